"""What every verb has around it: errors become one clear line and an exit code."""

from __future__ import annotations

import functools
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import ParamSpec

import typer

from vlmpass.cli import Terminated
from vlmpass.cli.console import encoding_of, say
from vlmpass.cli.failure import Failure, standing, tell

__all__ = ["DONE", "FINDINGS", "INTERRUPTED", "REFUSED", "guarded", "set_debugging", "verb"]

_P = ParamSpec("_P")

DONE, FINDINGS, REFUSED, INTERRUPTED = 0, 1, 2, 130
_state = {"debug": False}


def set_debugging(wanted: bool) -> None:
    """Say whether errors show where they were raised."""
    _state["debug"] = wanted


def verb(function: Callable[_P, int]) -> Callable[_P, None]:
    """Turn a function that returns an exit code into a command that never shows a traceback.

    An error of vlmpass is one line and exit code 2; anything else it raises is a defect, which is
    said so, with the command that shows it again.
    """

    @functools.wraps(function)
    def command(*args: _P.args, **kwargs: _P.kwargs) -> None:
        raise typer.Exit(guarded(lambda: function(*args, **kwargs)))

    return command


def guarded(function: Callable[[], int]) -> int:
    """Return the exit code of a function, whatever it raises; what stands all the same is said."""
    from vlmpass.ir_tools.save.commits import watch_commits
    from vlmpass.screens.characters import shown_in

    with watch_commits() as stands, shown_in(encoding_of(sys.stdout)):
        try:
            return function()
        except typer.Exit as exit_:
            return exit_.exit_code
        except BaseException as error:  # noqa: BLE001 - the last place to tell it
            return _told(error, stands)


def _told(error: BaseException, stands: Sequence[str]) -> int:
    """Tell what was raised and return the exit code."""
    from vlmpass.ir_tools.errors import VlmpassError

    if isinstance(error, KeyboardInterrupt):
        code = error.code if isinstance(error, Terminated) else INTERRUPTED
        failure = Failure("Interrupted", "interrupted", stands=tuple(stands))
        return tell(failure, code, f"vlmpass: interrupted; {standing(stands)}")
    if not isinstance(error, Exception):
        raise error
    if _state["debug"]:
        say(traceback.format_exc())
    if isinstance(error, VlmpassError):
        text = f"vlmpass: error: {error.full() if _state['debug'] else error}"
        if not _state["debug"] and len(error.full()) > len(str(error)):
            text += "\n  vlmpass --debug lists every node"
        tail = f"\n  {standing(stands)}" if stands else ""
        return tell(Failure.of(error, stands), REFUSED, text + tail)
    what = f"{type(error).__name__}: {error}"
    again = shlex.join(["vlmpass", "--debug", *sys.argv[1:]])
    report = f"please report it with what this shows: {again}"
    failure = Failure("Defect", what, report, stands=tuple(stands))
    return tell(failure, REFUSED, f"vlmpass: defect: {what}\n  {standing(stands)}; {report}")
