"""Notice Python-backend stubs that die while a model is loading.

The backend starts a stub and waits for its first answer. It notices a stub that dies in the model's own code, but one
that does not get that far (no ``model.py``, a library that it lacks) leaves the load waiting for ever. The launcher
that we put in the stub's place writes down each stub's process id. A load therefore runs on a thread of its own, and
the caller looks meanwhile whether a stub of the model has died. If so it gets an error, and the thread is left behind
in the core, which goes on with everything else.

A stub that the backend has noticed stays no zombie for long; one that stays a zombie is one that it waits for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tridist.triton.exceptions import InternalError

T = TypeVar("T")

_INTERVAL = 0.1
_PATIENCE = 4.0
"""Seconds that a stub must have been dead: the backend takes more than one to notice a death by itself."""
_LONGEST_LOAD = 3600.0
"""Seconds after which no load still looks at a record."""


def run_watched(
    call: Callable[[], T],
    records: Path | None,
    model: str | None,
    left_behind: Callable[[threading.Event], object] = lambda _: None,
) -> T:
    """Call, unless a stub dies on which the call then waits for ever.

    Args:
        call: what waits for the core.
        records: the folder in which the launcher writes down stubs; None where the launcher is not ours.
        model: whose stubs count; None for any.
        left_behind: told when the call is left behind, with what is set if it returns after all.

    Raises:
        InternalError: a stub of the model died and the call does not return.
        Exception: whatever ``call`` raises.
    """
    if records is None:
        return call()
    outcome: list[T] = []
    failure: list[BaseException] = []
    finished = threading.Event()

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001  # it is raised again on the caller's thread
            failure.append(error)
        finally:
            finished.set()

    before = _zombies(records, model)
    # A daemon: when it is left behind, nothing but the end of the process ends it.
    threading.Thread(target=run, name=f"tridist-triton-load-{model}", daemon=True).start()
    if not _finishes(finished, lambda: _zombies(records, model) - before):
        left_behind(finished)
        which = "a model" if model is None else f"model {model!r}"
        raise InternalError(
            f"failed to load {which}: its Python backend stub process died before it had loaded "
            "the model's code (is there a model.py?); see the log for its last words"
        )
    if failure:
        raise failure[0]
    return outcome[0]


def forget_ended(records: Path) -> None:
    """Unlink the records of this process's stubs that have ended."""
    _zombies(records, None)


def sweep(records: Path) -> None:
    """Unlink what processes that are gone have written down; nobody else would.

    Young records stay: on a home folder that machines or containers share, the processes of another one seem gone, and
    theirs count while a model is loading.
    """
    for record in records.iterdir():
        owner = record.name.partition("-")[0]
        with contextlib.suppress(OSError):
            if not (owner.isdecimal() and _exists(int(owner))) and time.time() - record.stat().st_mtime > _LONGEST_LOAD:
                record.unlink()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _finishes(finished: threading.Event, new_zombies: Callable[[], set[int]]) -> bool:
    """Wait for the call; False when a stub has died on it."""
    first_seen: dict[int, float] = {}
    while not finished.wait(_INTERVAL):
        now = time.monotonic()
        first_seen = {pid: first_seen.get(pid, now) for pid in new_zombies()}
        if any(now - since >= _PATIENCE for since in first_seen.values()):
            return False
    return True


def _zombies(records: Path, model: str | None) -> set[int]:
    """Our dead stubs that nobody has taken note of. Forgets the stubs that are gone."""
    found: set[int] = set()
    for record in records.glob(f"{os.getpid()}-*"):
        pid = int(record.name.split("-", 1)[1])
        state = _state(pid)
        if state is None:
            record.unlink(missing_ok=True)
        elif state == "Z" and _is_of(record, model):
            found.add(pid)
    return found


def _is_of(record: Path, model: str | None) -> bool:
    if model is None:
        return True
    instance = ""
    with contextlib.suppress(OSError):
        instance = record.read_text().strip()
    # An instance is called after its model and its group's number, unless the configuration names the group.
    return instance == model or instance.rpartition("_")[0] == model


def _state(pid: int) -> str | None:
    """A child's state letter; None when it is gone, or the number is another process's by now."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, parent = fields[0], int(fields[1])
    return state if parent == os.getpid() else None
