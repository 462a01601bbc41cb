"""The command line: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

__all__ = ["Terminated", "main"]

_LOADER = "<frozen importlib._bootstrap_external>"


class Terminated(KeyboardInterrupt):
    """The process was asked to end; what was begun is cleaned up as after Ctrl-C.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


def _end(number: int, frame: FrameType | None) -> None:
    if _loads_extension(frame):
        threading.Timer(0.05, signal.raise_signal, (number,)).start()
        return
    _ignore()  # what was begun is cleaned up, undisturbed
    raise Terminated(number)


def _loads_extension(frame: FrameType | None) -> bool:
    """Whether compiled code is being imported: an exception out of it may abort the process."""
    while frame is not None:
        code, owner = frame.f_code, type(frame.f_locals.get("self")).__name__
        if code.co_filename == _LOADER and owner == "ExtensionFileLoader":
            return True
        frame = frame.f_back
    return False


def _ignore() -> None:
    for each in _ending():
        signal.signal(each, signal.SIG_IGN)


def _ending() -> list[signal.Signals]:
    """Return the signals that ask a process to end, where the system has them."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


def _listen() -> None:
    """End in order when asked to; a signal that is ignored, as under nohup, stays so."""
    for each in _ending():
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, _end)


def _hold_descriptors() -> None:
    """Open what the caller has closed, so that no file of ours gets the number of a stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 findings, 2 the request cannot be honoured.

    An interrupted one exits with 128 and the number of the signal. Whatever the code, what was
    written all the same is named.

    Args:
        arguments: Without the program's name; those of the process by default.
    """
    stands: list[str] = []
    atexit.register(gc.freeze)  # what is alive then goes with the process; looking at it takes long
    try:
        _hold_descriptors()
        _listen()
        from vlmpass.cli.app import run
        from vlmpass.ir_tools.save.commits import watch_commits

        with watch_commits() as stands:
            code = run(arguments)
        _ignore()  # all is done, and the interpreter's end is nobody's to interrupt
    except Terminated as error:
        from vlmpass.cli.failure import standing

        sys.stderr.write(f"vlmpass: interrupted; {standing(stands)}\n")
        code = error.code
    raise SystemExit(code)
