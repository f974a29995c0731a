"""The virtual environment of a checkout: made once, kept in step with its inputs, never half-made.

Two files hold the state. `.venv/.tridist-stamp` is written last and says what is installed; while it matches, there is
nothing to do. `.venv.lock` keeps two runs apart, and is marked busy for as long as one changes the environment: a run
that finds it free but busy follows one that was interrupted, and starts afresh.
"""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scripts.bootstrap.console import BootstrapError, run_logged, say, tail

_BUSY = "busy"


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from."""

    interpreter: str
    """Digest of the Python and of the place: another one means another environment."""
    requirements: str
    """Digest of the files that say what to install."""
    extras: frozenset[str]

    def covers(self, wanted: "Stamp") -> bool:
        """Whether an environment with this stamp serves a request for `wanted`."""
        same = (self.interpreter, self.requirements) == (wanted.interpreter, wanted.requirements)
        return same and self.extras >= wanted.extras

    def dump(self) -> str:
        """The stamp as text."""
        return f"{self.interpreter}\n{self.requirements}\n{','.join(sorted(self.extras))}\n"

    @classmethod
    def load(cls, path: Path) -> "Stamp | None":
        """Read a stamp; None when there is none, or none that we understand."""
        try:
            interpreter, requirements, extras = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return None
        return cls(interpreter, requirements, frozenset(extras.split(",")))


@dataclass(frozen=True)
class Environment:
    """The virtual environment that belongs to the checkout at `root`."""

    root: Path

    @property
    def path(self) -> Path:
        """The environment's directory."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.path / "bin" / "python"

    @property
    def stamp_path(self) -> Path:
        """Where the stamp lies."""
        return self.path / ".tridist-stamp"

    @property
    def log(self) -> Path:
        """Where the output of pip and apt goes."""
        return self.root / ".tridist" / "bootstrap.log"

    def wanted(self, extras: frozenset[str]) -> Stamp:
        """The stamp that an up-to-date environment with these extras has."""
        place = f"{sys.version} {sys.base_prefix} {self.root}"
        files = [self.root / "pyproject.toml", self.root / "constraints.txt"]
        return Stamp(
            interpreter=hashlib.sha256(place.encode()).hexdigest(),
            requirements=hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest(),
            extras=extras,
        )

    def is_ready(self, wanted: Stamp) -> bool:
        """Whether there is nothing to do."""
        stamp = Stamp.load(self.stamp_path)
        return stamp is not None and stamp.covers(wanted) and self.python.exists()

    @contextmanager
    def locked(self) -> Iterator[IO[str]]:
        """Hold the environment's lock, waiting for another run to end; gives the lock file."""
        with (self.root / ".venv.lock").open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another run is preparing .venv, waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock

    def prepare(self, wanted: Stamp, lock: IO[str]) -> None:
        """Bring the environment in step with `wanted`; the caller holds `lock`.

        Raises:
            BootstrapError: the environment could not be made, or pip failed.
        """
        reason = self._reason_to_remake(wanted, lock)
        _mark(lock, _BUSY)
        self.stamp_path.unlink(missing_ok=True)
        if reason is not None:
            self._remake(reason, lock)
        self._install(wanted, lock)
        self._write_stamp(wanted)
        _mark(lock, "")

    def _reason_to_remake(self, wanted: Stamp, lock: IO[str]) -> str | None:
        if not self.path.exists():
            return "creating .venv"
        if _is_busy(lock):
            return "the last run did not finish, making .venv again"
        if not self.python.exists():
            return ".venv has no working Python, making it again"
        stamp = Stamp.load(self.stamp_path)
        if stamp is None or stamp.interpreter != wanted.interpreter:
            return "Python or the directory changed, making .venv again"
        return None

    def _remake(self, reason: str, lock: IO[str]) -> None:
        say(reason)
        if self.path.is_symlink():
            raise BootstrapError(".venv is a symbolic link; remove it and try again")
        shutil.rmtree(self.path, ignore_errors=True)
        # Started from inside an environment, even this one, the interpreter underneath is what to build on.
        base = getattr(sys, "_base_executable", sys.executable)
        self._run([base, "-m", "venv", "--clear", str(self.path)], lock, what="creating .venv")

    def _install(self, wanted: Stamp, lock: IO[str]) -> None:
        extras = ",".join(sorted(wanted.extras))
        say(f"installing tridist[{extras}] (a minute or two the first time)")
        pip = [str(self.python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        pip += ["--constraint", "constraints.txt"]
        # The build backend comes from the constraints too: without isolation pip uses the one in the environment.
        self._run([*pip, "setuptools"], lock, what="installing setuptools")
        self._run([*pip, "--no-build-isolation", "--editable", f".[{extras}]"], lock, what="installing tridist")

    def _run(self, command: list[str], lock: IO[str], *, what: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        if not run_logged(command, log=self.log, env=env, cwd=self.root, keep_fds=(lock.fileno(),)):
            raise BootstrapError(f"{what} failed. The end of {self.log.relative_to(self.root)}:\n{tail(self.log)}")

    def _write_stamp(self, stamp: Stamp) -> None:
        draft = self.stamp_path.with_suffix(".new")
        draft.write_text(stamp.dump(), encoding="utf-8")
        draft.replace(self.stamp_path)


def _mark(lock: IO[str], text: str) -> None:
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()


def _is_busy(lock: IO[str]) -> bool:
    lock.seek(0)
    return lock.read().strip() == _BUSY
