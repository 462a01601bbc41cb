"""The command line: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import signal
from collections.abc import Sequence

__all__ = ["Terminated", "main"]


class Terminated(KeyboardInterrupt):
    """The process was asked to end; what was begun is cleaned up as after Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 findings, 2 the request cannot be honoured.

    Args:
        arguments: Without the program's name; those of the process by default.
    """
    from vlmpass.cli.app import run

    signal.signal(signal.SIGTERM, _terminate)
    raise SystemExit(run(arguments))
