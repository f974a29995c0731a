"""Where a tensor's bytes are: host memory, or one GPU's."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from tridist.errors import InvalidArgumentError, MissingExtraError

# DLPack's DLDeviceType values (dlpack.h); the host kinds are all read through ordinary pointers.
DLPACK_HOST_KINDS = frozenset({1, 3})  # kDLCPU, kDLCUDAHost (pinned)
DLPACK_CUDA = 2

_PATTERN = re.compile(r"(?:(cpu)|cuda(?::([0-9]{1,9}))?)")


@dataclass(frozen=True, slots=True)
class Device:
    """A memory: ``kind`` is ``"cpu"`` or ``"cuda"``, ``id`` the GPU's ordinal (0 for the host)."""

    kind: str
    id: int = 0

    @classmethod
    def parse(cls, text: str | int | Device) -> Device:
        """``"cpu"``, ``"cuda"``, ``"cuda:1"``, or a GPU's ordinal.

        Raises:
            InvalidArgumentError: it is none of these.
        """
        if isinstance(text, Device):
            return text
        if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
            return cls("cuda", text)
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidArgumentError("device", text, "is not 'cpu', 'cuda', 'cuda:N' or a GPU's number")
        return HOST if match[1] else cls("cuda", int(match[2] or 0))

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.id}"


HOST = Device("cpu")


def load_cupy() -> Any:
    """The ``cupy`` module, imported only when a GPU tensor is really at hand.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise MissingExtraError("GPU memory (for CUDA 13: gpu-cuda13)", "gpu-cuda12") from error
