"""Run a program that ends when the thread which started it ends: ``python tied_exec.py PARENT_PID PROGRAM ARGUMENT…``.

Linux only. The process asks the kernel for a signal at its parent's death and then becomes the program (``exec`` keeps
the wish). This file runs as a script of its own, between fork and exec, because a ``preexec_fn`` would run Python in
the forked copy of a process with threads, where any lock may be held for good. It imports nothing of ours, so that it
starts within milliseconds under ``python -I -S``.

The kernel ties the wish to the parent *thread*: start the process from one that lives as long as it may.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we asked: nobody would tell us any more
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 (no shell is wanted; the arguments are our caller's)


if __name__ == "__main__":
    main()
