"""Which workers of a deployment drain before which others."""

from __future__ import annotations

from collections.abc import Mapping

from tridist.errors import ConfigurationError


def check_calls(calls: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse calls in which no order can be found.

    Args:
        calls: of each worker, by name, those that it calls.

    Raises:
        ConfigurationError: a worker calls one that is not there, or itself by way of others; ``field`` is the
            ``workers[number].calls`` of that worker, or of the first that cannot drain.
    """
    fields = {name: f"workers[{number}].calls" for number, name in enumerate(calls)}
    for name, called in calls.items():
        for other in called:
            if other not in calls:
                raise ConfigurationError(fields[name], other, f"is no worker of the deployment that {name} is in")
    left = dict(calls)
    while left:
        # Whoever calls nobody that is left is out of every circle.
        free = [name for name, called in left.items() if not any(other in left for other in called)]
        if not free:
            first = fields[next(iter(left))]
            raise ConfigurationError(first, sorted(left), "go round in a circle: none of these can drain first")
        for name in free:
            del left[name]
