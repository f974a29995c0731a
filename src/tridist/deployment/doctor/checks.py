"""The list of checks. Each one runs in a process of its own (`probe`), for a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from tridist.deployment.doctor.report import Outcome
from tridist.icp.planes import PlanesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """What checks have to know.

    Attributes:
        planes: the server to look at and how to reach it.
        embedded: no server was named: look at an embedded one.
    """

    planes: PlanesConfig
    embedded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: for options and scripts.
        title: for people.
        function: ``"module:function"`` of what does it: takes `CheckSettings`, returns an `Outcome`.
        timeout: seconds after which it counts as hanging.
        required: tridist cannot work without it.
    """

    name: str
    title: str
    function: str
    timeout: float
    required: bool

    def load(self) -> Callable[[CheckSettings], Outcome]:
        """The function; imported only where it runs, for it may crash on the way."""
        module, _, name = self.function.partition(":")
        function: Callable[[CheckSettings], Outcome] = getattr(import_module(module), name)
        return function


_HERE = "tridist.deployment.doctor"

CHECKS = (
    Check(name="python", title="Python", function=f"{_HERE}.system:check_python", timeout=20, required=True),
    Check(name="nats", title="NATS", function=f"{_HERE}.nats:check_nats", timeout=30, required=True),
    Check(name="memory", title="Shared memory", function=f"{_HERE}.system:check_memory", timeout=10, required=False),
    Check(name="ucx", title="UCX", function=f"{_HERE}.ucx:check_ucx", timeout=60, required=True),
    Check(name="triton", title="Triton core", function=f"{_HERE}.triton:check_core", timeout=60, required=False),
    Check(
        name="python-backend",
        title="Triton Python backend",
        function=f"{_HERE}.triton:check_python_backend",
        timeout=90,
        required=False,
    ),
    Check(name="gpu", title="GPU", function=f"{_HERE}.gpu:check_gpu", timeout=60, required=False),
)


def find_check(name: str) -> Check:
    """The check of that name; raises KeyError when there is none."""
    return {check.name: check for check in CHECKS}[name]
