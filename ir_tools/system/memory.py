"""How much physical memory this process holds now and has held at most, without extra packages."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["hand_back", "peak_rss", "physical_memory", "private_bytes", "rss"]

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def hand_back() -> None:
    """Return freed memory to the system, where the C library keeps it for later (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def rss() -> int:
    """Return the bytes of physical memory in use now.

    Source: VmRSS of /proc/self/status on Linux, proc_pidinfo on macOS, GetProcessMemoryInfo on
    Windows.
    """
    if sys.platform == "linux":
        return _linux("VmRSS:")
    if sys.platform == "win32":
        return _windows()[1]
    return _darwin()


def private_bytes() -> int:
    """Return the bytes of private memory that this process has reserved, touched or not.

    Source: VmData of /proc/self/status, which is what RLIMIT_DATA bounds; Linux alone.
    """
    return _linux("VmData:")


def physical_memory() -> int:
    """Return the bytes of memory that this machine has, or that this process's container may use.

    Source: sysconf on Linux and macOS, with the control group's memory.max; GlobalMemoryStatusEx
    on Windows.
    """
    if sys.platform == "win32":
        return _windows_total()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(_CGROUP.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no control groups, or no limit ("max")
        return total


def peak_rss() -> int:
    """Return the most bytes of physical memory this process has held so far.

    Source: the larger of VmHWM of /proc/self/status and ru_maxrss on Linux, ru_maxrss on macOS,
    GetProcessMemoryInfo on Windows.
    """
    if sys.platform == "win32":
        return _windows()[0]
    import resource  # not on Windows

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return used  # bytes there, kilobytes on Linux
    return max(used * 1024, _linux("VmHWM:"))


def _linux(key: str) -> int:
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def _darwin() -> int:
    task_info = (ctypes.c_uint64 * 12)()  # struct proc_taskinfo: virtual size, resident size, …
    flavor = 4  # PROC_PIDTASKINFO
    size = ctypes.sizeof(task_info)
    written = ctypes.CDLL(None).proc_pidinfo(os.getpid(), flavor, 0, ctypes.byref(task_info), size)
    if written < 16:
        raise OSError("proc_pidinfo gave no task information")
    return int(task_info[1])


def _windows() -> tuple[int, int]:
    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS
        _fields_ = [
            ("cb", ctypes.c_uint32),
            ("PageFaultCount", ctypes.c_uint32),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 6),
        ]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel: ctypes.CDLL = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb):
        raise OSError("GetProcessMemoryInfo failed")
    return counters.PeakWorkingSetSize, counters.WorkingSetSize


def _windows_total() -> int:
    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total", ctypes.c_uint64),
            ("others", ctypes.c_uint64 * 6),
        ]

    status = Status()
    status.length = ctypes.sizeof(status)
    kernel: ctypes.CDLL = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("GlobalMemoryStatusEx failed")
    return int(status.total)
