"""Choose the Triton core: the official ``tritonserver`` package, or our own binding to the wheel's library."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any, Literal

from tridist.errors import MissingExtraError

ProviderName = Literal["official", "binding"]

_CODES = {
    "InternalError": "Internal",
    "NotFoundError": "Not found",
    "InvalidArgumentError": "Invalid argument",
    "UnavailableError": "Unavailable",
    "UnsupportedError": "Unsupported",
    "AlreadyExistsError": "Already exists",
    "CancelledError": "Cancelled",
}


@dataclass(frozen=True)
class Provider:
    """A Triton core. The names of the official package (``Server``, ``Tensor``, …) are its attributes.

    Attributes:
        name: which of the two it is.
        api: the object that has the names.
    """

    name: ProviderName
    api: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.api, name)

    @staticmethod
    def error_code(error: BaseException) -> str:
        """Triton's code of one of the provider's errors in words, as ``TRITONSERVER_ErrorCodeString`` has them."""
        return _CODES.get(type(error).__name__, "Unknown")


def load_provider(name: ProviderName | None = None) -> Provider:
    """Load the Triton core, once per process.

    Args:
        name: which one; without it the official package where it is installed for real, else our binding.

    Raises:
        MissingExtraError: neither is installed.
        ConfigurationError: the wheel is installed and cannot be used on this machine.
    """
    if name != "binding":
        official = _official()
        if official is not None:
            return official
        if name == "official":
            raise MissingExtraError("the official tritonserver package", "triton")
    return _binding()


@functools.lru_cache(maxsize=1)
def _official() -> Provider | None:
    try:
        package = importlib.import_module("tritonserver")
    except ImportError:
        return None
    # PyPI has a placeholder of this name, which can be imported and holds nothing.
    if not hasattr(package, "Server"):
        return None
    adapter = importlib.import_module("tridist.triton.official")
    return Provider("official", adapter.adapt(package))


@functools.lru_cache(maxsize=1)
def _binding() -> Provider:
    importlib.import_module("tridist.triton.capi.library").load_library()
    return Provider("binding", importlib.import_module("tridist.triton.binding"))
