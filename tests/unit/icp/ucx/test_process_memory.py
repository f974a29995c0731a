from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from tridist.icp.ucx.process_memory import memory_address, read_memory

CHILD = """
import sys
import numpy as np
array = np.random.default_rng(5).integers(0, 256, 3 << 20, dtype=np.uint8)
print(array.__array_interface__["data"][0], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process, int(process.stdout.readline())
        process.kill()


def test_bytes_of_another_process(child):
    process, address = child
    expected = np.random.default_rng(5).integers(0, 256, 3 << 20, dtype=np.uint8)
    target = np.zeros(3 << 20, np.uint8)
    for offset, size in ((0, 3 << 20), (1, 4095), (4097, 1), ((3 << 20) - 1, 1), (7, 0)):
        target[:] = 0
        read_memory(process.pid, address + offset, memory_address(target), size)
        np.testing.assert_array_equal(target[:size], expected[offset : offset + size])
        assert not target[size:].any()


def test_a_process_that_has_ended(child):
    process, address = child
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        read_memory(process.pid, address, memory_address(np.zeros(10, np.uint8)), 10)


@pytest.mark.parametrize("there", [0, 1, 100])
def test_memory_that_is_not_there(there):
    """Also when some of it is: a call of the kernel's stops before the page, the next one says why."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as held:
        view = np.frombuffer(held, np.uint8)
        second = memory_address(view) + mmap.PAGESIZE
        assert libc.mprotect(ctypes.c_void_p(second), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        with pytest.raises(OSError) as raised:  # noqa: PT011 (the number says which)
            read_memory(os.getpid(), second - there, memory_address(np.zeros(200, np.uint8)), 200)
        del view
    assert raised.value.errno == errno.EFAULT
