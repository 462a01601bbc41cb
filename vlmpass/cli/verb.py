"""What every verb has around it: errors become one clear line and an exit code."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

import typer

from vlmpass.cli import Terminated
from vlmpass.cli.console import say

if TYPE_CHECKING:
    from vlmpass.ir_tools.errors import VlmpassError

__all__ = [
    "DONE",
    "FINDINGS",
    "INTERRUPTED",
    "REFUSED",
    "TERMINATED",
    "set_debugging",
    "verb",
]

_P = ParamSpec("_P")

DONE, FINDINGS, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_ONE_BY_ONE = 12
_LIST_ALL = "  vlmpass --debug lists every node"
_state = {"debug": False}


def set_debugging(wanted: bool) -> None:
    """Say whether errors show where they were raised."""
    _state["debug"] = wanted


def _is_debugging() -> bool:
    """Tell whether errors show where they were raised."""
    return _state["debug"]


def verb(function: Callable[_P, int]) -> Callable[_P, None]:
    """Turn a function that returns an exit code into a command that never shows a traceback.

    An error of vlmpass is one line and exit code 2; anything else it raises is a defect, which is
    said so, with the command that shows it again.
    """

    @functools.wraps(function)
    def command(*args: _P.args, **kwargs: _P.kwargs) -> None:
        raise typer.Exit(_guarded(lambda: function(*args, **kwargs)))

    return command


def _guarded(function: Callable[[], int]) -> int:
    from vlmpass.ir_tools.errors import VlmpassError

    try:
        return function()
    except KeyboardInterrupt as error:
        say("vlmpass: interrupted; nothing was written")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as `head` does: be silent, also when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except VlmpassError as error:
        _traceback()
        say(f"vlmpass: error: {_text(error)}")
        return REFUSED
    except typer.Exit as exit_:
        return exit_.exit_code
    except Exception as error:  # noqa: BLE001 - the last place to report a defect
        _traceback()
        again = shlex.join(["vlmpass", "--debug", *sys.argv[1:]])
        say(f"vlmpass: defect: {type(error).__name__}: {error}")
        say(f"  nothing was written; please report it with what this shows: {again}")
        return REFUSED


def _text(error: VlmpassError) -> str:
    """Return an error's text; a long list of refusals is grouped by what they have in common."""
    from vlmpass.ir_tools.errors import Refused

    if not isinstance(error, Refused) or len(error.refusals) <= _ONE_BY_ONE or _is_debugging():
        return str(error)
    groups: dict[str, list[str]] = {}
    for each in error.refusals:
        reason = f"{each.reason}; {each.remedy}" if each.remedy else each.reason
        groups.setdefault(reason, []).append(each.node)
    lines = [error.problem.splitlines()[0]]
    for reason, nodes in groups.items():
        shown = ", ".join(nodes[:3])
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        lines += [f"  {reason}", f"    {shown}{more}"]
    return "\n".join([*lines, *(f"  {line}" for line in error.context), _LIST_ALL])


def _traceback() -> None:
    if _is_debugging():
        say(traceback.format_exc())
