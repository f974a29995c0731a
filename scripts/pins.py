"""Print the constraints that apply on top of a base image: ours, less those for packages that it has already.

A framework image is tested with the versions that it ships; an environment that shadowed its numpy with ours would
break it. Standard library only. Usage: pins.py CONSTRAINTS
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

# pip and setuptools are in every new environment; ours build the package, so our pins for them stay.
_OURS = frozenset({"pip", "setuptools", "wheel"})


def normalise(name: str) -> str:
    """A project's name as the packaging specification compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def select(lines: Iterable[str], installed: Iterable[str]) -> Iterator[str]:
    """The `name==version` lines whose package is not among `installed`."""
    there = {normalise(name) for name in installed} - _OURS
    for line in lines:
        pin = line.partition("#")[0].strip()
        if pin and normalise(pin.partition("==")[0]) not in there:
            yield pin


def main() -> None:
    """Filter the file named on the command line by what this Python can import."""
    installed = [str(found.metadata["Name"]) for found in distributions()]
    print("\n".join(select(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines(), installed)))


if __name__ == "__main__":
    main()
