"""Stops some threads of a process and no others, as a stuck computation would.

A signal stops a whole process; a tracer stops single threads. The process id and the beginnings of
the threads' names come as arguments. When all stand still one line is printed; at SIGTERM, or when
this process dies, they go on. Needs the right to trace, which root has.
"""

import ctypes
import os
import signal
import sys

# From ptrace(2) and waitpid(2).
PTRACE_DETACH = 17
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request, thread):
    if LIBC.ptrace(request, thread, None, None) == -1:
        error = os.strerror(ctypes.get_errno())
        sys.exit(f"cannot trace thread {thread}: {error}; run the suite as root (or with sudo)")


def named(process, beginnings):
    """The threads whose names begin with one of these."""
    for thread in sorted(os.listdir(f"/proc/{process}/task"), key=int):
        with open(f"/proc/{process}/task/{thread}/comm", encoding="utf-8") as comm:
            if comm.read().strip().startswith(tuple(beginnings)):
                yield int(thread)


def main():
    process, beginnings = int(sys.argv[1]), sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threads = list(named(process, beginnings))
    if not threads:
        sys.exit(f"process {process} has no thread named {' or '.join(beginnings)}")
    for thread in threads:
        ptrace(PTRACE_SEIZE, thread)
    for thread in threads:
        ptrace(PTRACE_INTERRUPT, thread)
        _, status = os.waitpid(thread, WALL)
        if not os.WIFSTOPPED(status):
            sys.exit(f"thread {thread} did not stop: {status:#x}")
    print("stalled", *threads, flush=True)
    signal.sigwait({signal.SIGTERM})
    for thread in threads:
        ptrace(PTRACE_DETACH, thread)
    print("going on", flush=True)


if __name__ == "__main__":
    main()
