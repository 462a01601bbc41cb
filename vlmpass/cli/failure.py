"""What went wrong, told once: a line for people, and an object for programs that asked for JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from vlmpass.cli.console import StreamError, say, show_json
from vlmpass.ir_tools.system.listed import listed

if TYPE_CHECKING:
    from vlmpass.ir_tools.errors import Refusal, VlmpassError

__all__ = ["Failure", "set_begun", "set_json", "standing", "tell"]

_FEW = 3
_state = {"json": False, "begun": False}


def set_json(wanted: bool) -> None:
    """Say whether a failure is told as JSON too."""
    _state["json"] = wanted


def set_begun(begun: bool) -> None:
    """Say whether a part of a model has gone to standard output, and not all of it."""
    _state["begun"] = begun


@dataclass(frozen=True)
class Failure:
    """Why a verb did not do what was asked.

    Attributes:
        kind: Class of the error, or ``UsageError``, ``Interrupted``, ``Defect``.
        problem: The thing and the reason.
        remedy: What can be done about it; may be empty.
        context: Where in a pipeline it happened.
        refusals: Every node that a pass refuses.
        stands: Files that were complete and in place by then, models with all their data.
    """

    kind: str
    problem: str
    remedy: str = ""
    context: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    stands: tuple[str, ...] = field(default=(), kw_only=True)

    @classmethod
    def of(cls, error: VlmpassError, stands: Sequence[str]) -> Failure:
        """Return what an error of vlmpass says."""
        refusals = getattr(error, "refusals", ())
        problem = error.problem.splitlines()[0] if refusals else error.problem
        return cls(
            type(error).__name__, problem, error.remedy, error.context, refusals,
            stands=tuple(stands),
        )  # fmt: skip


def standing(stands: Sequence[str]) -> str:
    """Say which outputs are complete; ``nothing was written`` if there are none."""
    if not stands and _state["begun"]:
        return "standard output has a part of the model"
    if not stands:
        return "nothing was written"
    verb = "is complete and stands" if len(stands) == 1 else "are complete and stand"
    return f"{' and '.join(stands) if len(stands) < _FEW else listed(stands, _FEW)} {verb}"


def tell(failure: Failure, code: int, text: str) -> int:
    """Tell a failure on standard error, and as JSON on standard output where that was asked for.

    Args:
        failure: What the JSON holds.
        code: The exit code.
        text: The lines for people.

    Returns:
        The exit code.
    """
    # What belongs to a line above is indented; a break in a name is none of the message's.
    say(re.sub(r"\n(?!  )", r"\\n", text.rstrip("\n")))
    if _state["json"] and failure.kind != StreamError.__name__:
        try:
            show_json({"error": asdict(failure), "exit_code": code})
        except StreamError as error:
            say(f"  {error.problem}")
    return code
