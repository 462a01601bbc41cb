"""How much memory this process may take from now on.

On Linux the kernel holds the bound (RLIMIT_DATA): it counts private memory alone, refuses before
a page is touched, so that a machine never swaps, and what asked for too much says so itself. A
bound on the address space would count data files that are mapped and never read. Elsewhere a
thread watches the resident size and ends the process.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from vlmpass.ir_tools.system.memory import private_bytes, rss

__all__ = ["MEMORY_EXIT", "bound_memory", "is_out_of_memory", "watch_memory"]

MEMORY_EXIT = 77
"""Exit code of a process that took more than it may, where a thread watches it."""

_STACK = 8 << 20  # of each thread that a runtime starts later; reserved memory counts
_EVERY = 0.01
_SIGNS = ("bad_alloc", "Failed to allocate memory", "Cannot allocate memory", "MemoryError")


def bound_memory(nbytes: int) -> None:
    """Let this process take so many bytes more than it holds now, and no more than that.

    A second call replaces the bound of the first.
    """
    if sys.platform == "linux":
        import resource

        soft = private_bytes() + nbytes + _STACK * (os.cpu_count() or 1)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    else:
        watch_memory(nbytes)


def watch_memory(nbytes: int) -> None:
    """End this process, with `MEMORY_EXIT`, as soon as its resident size grows by so many bytes."""
    most = rss() + nbytes

    def watch() -> None:
        while rss() <= most:
            time.sleep(_EVERY)
        os._exit(MEMORY_EXIT)

    threading.Thread(target=watch, daemon=True).start()


def is_out_of_memory(said: str) -> bool:
    """Tell whether what an allocator or a runtime said is that it got no memory."""
    return any(sign in said for sign in _SIGNS)
