"""Bytes moved from file to file by the kernel, or through a small buffer where it will not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

__all__ = ["copy_range", "write_at"]

_BUFFER_BYTES = 4 << 20
_UNSUPPORTED = {
    errno.EBADF,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSOCK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.ETXTBSY,
    errno.EXDEV,
}

Mover = Callable[[int, int, int, int, int], int]


def write_at(target: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at an offset of an open file.

    Args:
        target: File descriptor, open for writing.
        data: What to write.
        offset: Where its first byte goes.
    """
    view = memoryview(data).cast("B")
    while view:
        if hasattr(os, "pwrite"):
            written = os.pwrite(target, view, offset)
        else:
            os.lseek(target, offset, os.SEEK_SET)
            written = os.write(target, view)
        view, offset = view[written:], offset + written


def _by_reference(source: int, start: int, target: int, offset: int, count: int) -> int:
    # Shares the blocks on file systems that can, else copies inside the kernel.
    return os.copy_file_range(source, target, count, offset_src=start, offset_dst=offset)


def _by_sendfile(source: int, start: int, target: int, offset: int, count: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, start, count)


def _by_buffer(source: int, start: int, target: int, offset: int, count: int) -> int:
    count = min(count, _BUFFER_BYTES)
    if hasattr(os, "pread"):
        data = os.pread(source, count, start)
    else:
        os.lseek(source, start, os.SEEK_SET)
        data = os.read(source, count)
    write_at(target, data, offset)
    return len(data)


_MOVERS: tuple[Mover, ...] = (
    *((_by_reference,) if hasattr(os, "copy_file_range") else ()),
    *((_by_sendfile,) if hasattr(os, "sendfile") else ()),
    _by_buffer,
)


def copy_range(source: int, start: int, target: int, offset: int, count: int) -> None:
    """Copy `count` bytes at `start` of one open file to `offset` of another.

    Args:
        source: Descriptor open for reading.
        start: First byte in the source.
        target: Descriptor open for writing, used by this thread alone (its position moves).
        offset: First byte in the target.
        count: How many bytes.

    Raises:
        OSError: Reading or writing failed.
        EOFError: The source ends before the range does.
    """
    movers = list(_MOVERS)
    while count:
        moved = 0
        try:
            moved = movers[0](source, start, target, offset, count)
        except OSError as error:
            if len(movers) == 1 or error.errno not in _UNSUPPORTED:
                raise
        if moved:
            start, offset, count = start + moved, offset + moved, count - moved
        elif len(movers) == 1:
            raise EOFError(f"it ends {count} bytes before the end of the range")
        else:
            # Refused, or nothing moved (some file systems say so instead): the next one may.
            del movers[0]
