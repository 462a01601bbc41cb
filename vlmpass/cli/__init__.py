"""The command line: results on standard output, progress and errors on standard error."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 findings, 2 the request cannot be honoured.

    Args:
        arguments: Without the program's name; those of the process by default.
    """
    from vlmpass.cli.app import run

    raise SystemExit(run(arguments))
