"""Reading another process's memory: Linux's ``process_vm_readv``, called through ctypes.

The kernel copies straight from the other process's pages to ours, once, and checks on every call that this process may
trace the other. It needs no help from the other process, and both may die at any moment: then it is an error.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

import numpy as np


class _Part(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read_memory(pid: int, source: int, target: int, size: int) -> None:
    """Copy ``size`` bytes from address ``source`` of process ``pid`` to address ``target`` of this one.

    Other Python threads run meanwhile. Memory that the caller does not own at ``target`` is overwritten all the same.

    Raises:
        OSError: the kernel refuses (``EPERM``), there is no such process (``ESRCH``), it has not these bytes
            (``EFAULT``), or there is no such call here (``ENOSYS``). Some of ``target`` may be overwritten.
    """
    call = _process_vm_readv()
    done = 0
    while done < size:
        rest = size - done
        # It stops short of a page that is not there, and at 2 GiB; the next call has the reason, or the rest.
        copied = call(pid, _Part(target + done, rest), 1, _Part(source + done, rest), 1, 0)
        if copied <= 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        done += copied


def memory_address(array: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
    """Where the bytes of a flat, contiguous array of this process are."""
    address: int = array.__array_interface__["data"][0]
    return address


@cache
def _process_vm_readv() -> Callable[..., int]:
    # CDLL, not PyDLL: it gives the interpreter's lock up for as long as the call takes.
    function = ctypes.CDLL(None, use_errno=True).process_vm_readv
    part = ctypes.POINTER(_Part)
    function.argtypes = [ctypes.c_int, part, ctypes.c_ulong, part, ctypes.c_ulong, ctypes.c_ulong]
    function.restype = ctypes.c_ssize_t
    call: Callable[..., int] = function
    return call
