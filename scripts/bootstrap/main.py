"""The command: check, install, make the environment; do nothing, quickly, when all is there."""

import argparse
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from scripts.bootstrap.console import BootstrapError, say
from scripts.bootstrap.environment import Environment, Stamp
from scripts.bootstrap.system import Probes, find_missing, provide, real_probes

_INTERRUPTED = 130
_NEED_LIBPYTHON = frozenset({"all", "triton"})


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare the checkout; the exit status is 0, 1 with a reason on standard error, or 130 after Ctrl-C."""
    options = _parse(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        bootstrap(Environment(options.root), options.extras, real_probes())
    except BootstrapError as error:
        print(f"tridist: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tridist: interrupted; the next run starts afresh", file=sys.stderr)
        return _INTERRUPTED
    return 0


def bootstrap(environment: Environment, extras: frozenset[str], probes: Probes) -> None:
    """Bring system packages and the environment in step with what `extras` need.

    Raises:
        BootstrapError: something is missing that cannot be installed, or installing failed.
    """
    wanted = environment.wanted(extras)
    if environment.is_ready(wanted):
        return
    with environment.locked() as lock:
        if environment.is_ready(wanted):  # another run did it while we waited
            return
        _prepare(environment, wanted, probes, lock)


def _prepare(environment: Environment, wanted: Stamp, probes: Probes, lock: IO[str]) -> None:
    started = time.monotonic()
    say(f"preparing with Python {platform.python_version()}")
    environment.log.unlink(missing_ok=True)
    missing = find_missing(probes, triton=bool(wanted.extras & _NEED_LIBPYTHON))
    provide(missing, probes, log=environment.log)
    environment.prepare(wanted, lock)
    say(f"ready after {time.monotonic() - started:.0f} s")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bootstrap", description=__doc__)
    parser.add_argument("--extras", type=_extras, default=_extras("all"), help="extras to install, comma-separated")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the checkout")
    return parser.parse_args(argv)


def _extras(text: str) -> frozenset[str]:
    return frozenset(filter(None, (part.strip() for part in text.split(","))))


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
