"""Loading ucxx, and the UCX settings that our transfers rest on.

Settings go into the context's options rather than into the environment, so that child processes and other users of UCX
in this process see nothing of them. Whatever the user has set as ``UCX_*`` wins.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tridist.errors import MissingExtraError

_PREFIX = "UCX_"

_OPTIONS: Mapping[str, str] = {
    # Endpoints with error handling may only use transports that notice a dead peer. Shared memory does so only when
    # told; without this, same-host traffic silently takes TCP loopback (openucx/ucx #8477).
    "MM_ERROR_HANDLING": "y",
    # Keeps CMA (one copy, straight from the other process) under the same condition.
    "CMA_MEMORY_INVALIDATE": "y",
    # The second line of defence: a peer's death normally shows as the end of its control stream, at once.
    "KEEPALIVE_INTERVAL": "1s",
    # System V segments do what POSIX ones do; without them a worker has half the memory and one file descriptor less.
    "TLS": "^sysv",
    # ucxx puts the two following into the environment when it is imported; here they stay ours.
    "RNDV_THRESH": "8192",
    "MAX_RNDV_RAILS": "1",
}
# UCX_CUDA_IPC_ENABLE_GET_ZCOPY stays at UCX's own "auto": forcing it on helps GPUs without NVLink and hurts others, and
# only the machine's owner knows which those are; the environment variable reaches UCX as usual.

_LOOPBACK: Mapping[str, str] = {
    # UCX's TCP transport listens on every device it may use, whatever address we bind.
    "NET_DEVICES": "lo"
}

_WHILE_LOADING: Mapping[str, str] = {
    # libucs reads these once, while it is loaded. Its cache of memory types misses what cupy allocates,
    "MEMTYPE_CACHE": "n",
    # it logs to the standard output, which belongs to the program,
    "LOG_FILE": "stderr",
    # and it warns of MEMTYPE_CACHE as unused, wrongly, in every process.
    "WARN_UNUSED_ENV_VARS": "n",
}

_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ucxx:
    """The parts of ucxx that we use. They sit below its asyncio layer, for the reasons that `lane` gives."""

    context: Any
    worker: Any
    endpoint: Any
    address: Any
    array: Any
    tag: Any
    error: type[Exception]
    features: tuple[Any, ...]


def load_ucxx() -> Ucxx:
    """Import ucxx and its libraries; takes about a third of a second the first time.

    Raises:
        MissingExtraError: ucxx or libucx is not installed.
    """
    with _lock:
        before = dict(os.environ)
        for name, value in _WHILE_LOADING.items():
            os.environ.setdefault(_PREFIX + name, value)
        try:
            import_module("ucxx")
            library = import_module("ucxx._lib.libucxx")
            array = import_module("ucxx._lib.arr").Array
        except ImportError as error:
            raise MissingExtraError("UCX transfers", "ucx") from error
        finally:
            _forget_new_settings(before)
    return Ucxx(
        context=library.UCXContext,
        worker=library.UCXWorker,
        endpoint=library.UCXEndpoint,
        address=library.UCXAddress,
        array=array,
        tag=library.UCXXTag,
        error=library.UCXError,
        features=(library.Feature.TAG, library.Feature.WAKEUP),
    )


def options(*, loopback: bool) -> dict[str, str]:
    """UCX options by name without prefix, less those that the user's environment sets."""
    ours = {**_OPTIONS, **(_LOOPBACK if loopback else {})}
    return {name: value for name, value in ours.items() if _PREFIX + name not in os.environ}


def _forget_new_settings(before: Mapping[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(_PREFIX) and name not in before]:
        del os.environ[name]
