"""What vlmpass raises: every error names the thing, the reason and the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

__all__ = [
    "INFER_FIRST",
    "ArgumentError",
    "CheckError",
    "ModelError",
    "PassFailed",
    "PipelineError",
    "Refusal",
    "Refused",
    "RuleError",
    "SaveError",
    "VerifyError",
    "VlmpassError",
    "cut",
]


class VlmpassError(Exception):
    """The request or the input cannot be honoured; nothing was written (exit code 2).

    Args:
        problem: One sentence without a full stop: the thing and the reason.
        remedy: What the user can do about it, in the imperative; may be empty.

    Attributes:
        context: Lines that say where in a pipeline it happened; the pass manager fills them in.
    """

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.context: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.problem}; {self.remedy}" if self.remedy else self.problem
        return "\n  ".join([text, *self.context])

    def full(self) -> str:
        """Return the text with everything that `str` only counts."""
        return str(self)


class ArgumentError(VlmpassError):
    """An argument from Python is of a type, or has a value, that is not taken."""


class ModelError(VlmpassError):
    """The input is not a model that can be opened whole and safely; told in one line."""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        # Names are quoted as the file has them, and a file may have them in many lines.
        super().__init__(_one_line(problem), remedy=_one_line(remedy))


_LONGEST = 1000
_LONG = re.compile(rf"\S{{{_LONGEST + 1},}}")


def cut(text: str) -> str:
    """Return a text without the ends of words of more than 1000 characters, as names can be."""
    return _LONG.sub(lambda match: f"{match[0][:_LONGEST]}…", text)


def _one_line(text: str) -> str:
    text = cut(text)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class PipelineError(VlmpassError):
    """The pipeline text or a pass option is wrong; the message carries the caret."""


class CheckError(VlmpassError):
    """A model does not pass the full type check."""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        super().__init__(cut(problem), remedy=remedy)


class RuleError(VlmpassError):
    """A rule is written wrongly, or there is none of a name."""


class SaveError(VlmpassError):
    """The output cannot be written as asked."""


class VerifyError(VlmpassError):
    """Two models could not be compared."""


@dataclass(frozen=True)
class Refusal:
    """One node that cannot be rewritten as asked.

    Attributes:
        node: Name and operator of the node, such as ``/layers.0/Gelu (Gelu-20)``.
        reason: Why it cannot be done.
        remedy: What would make it possible; may be empty.
    """

    node: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}" + (f"; {self.remedy}" if self.remedy else "")


INFER_FIRST: Final = "run infer first"
"""The remedy for a type or shape that nobody wrote down."""
_DECLARE = "declare it in the source, for infer does not find it"


class Refused(VlmpassError):
    """A pass refuses the whole request; nodes that share a reason are told together.

    Args:
        request: What was asked, such as ``convert-opset to 13``.
        refusals: All of them, in graph order; at least one.
    """

    def __init__(self, request: str, refusals: Sequence[Refusal]) -> None:
        self.request = request
        self.refusals = tuple(refusals)
        count = "1 node" if len(refusals) == 1 else f"{len(refusals)} nodes"
        self._head = f"{request} is refused for {count}"
        super().__init__("\n  ".join([self._head, *_grouped(self.refusals)]))

    def after_infer(self) -> Refused:
        """Return the same for a model whose types and shapes have just been inferred."""
        refusals = [
            replace(each, remedy=_DECLARE) if each.remedy == INFER_FIRST else each
            for each in self.refusals
        ]
        return Refused(self.request, refusals)

    def full(self) -> str:
        """Return the text with every node on a line of its own."""
        return "\n  ".join([self._head, *map(str, self.refusals), *self.context])


_NAMED = 3
_KINDS = 12
_PARTICULAR = re.compile(r"'[^']*'|\[[^\]]*\]|\d+")


def _grouped(refusals: Sequence[Refusal]) -> list[str]:
    """Return a line for each node, or for each kind of reason that more than three share."""
    kinds: dict[tuple[str, str], list[Refusal]] = {}
    for each in refusals:
        kind = _PARTICULAR.sub("_", each.reason), _PARTICULAR.sub("_", each.remedy)
        kinds.setdefault(kind, []).append(each)
    lines = [line for alike in list(kinds.values())[:_KINDS] for line in _lines(alike)]
    rest = [each for alike in list(kinds.values())[_KINDS:] for each in alike]
    if rest:
        lines.append(f"{len(rest)} more, for {len(kinds) - _KINDS} other reasons")
    return lines


def _lines(alike: Sequence[Refusal]) -> list[str]:
    """Return the lines for refusals of one kind: names and numbers apart, one reason."""
    if len(alike) <= _NAMED:
        return [str(each) for each in alike]
    first, *others = alike
    if all((each.reason, each.remedy) == (first.reason, first.remedy) for each in others):
        names = ", ".join(each.node for each in alike[:_NAMED])
        named = Refusal(f"{names} and {len(alike) - _NAMED} more", first.reason, first.remedy)
        return [str(named)]
    names = ", ".join(each.node for each in others[: _NAMED - 1])
    return [f"{first}\n    so are {names} and {len(alike) - _NAMED} more"]


class PassFailed(VlmpassError):
    """A pass raised; the caller's model is as it was, unless it was given away to be changed.

    Args:
        pass_text: The pass as pipeline text.
        position: Its place in the pipeline, such as ``2 of 5``.
        cause: What it raised.
        replay: The command that reproduces the failure.
        node: Name and operator of the node it was at, if known and not in the cause's text.
    """

    def __init__(
        self, pass_text: str, position: str, cause: BaseException, replay: str, node: str = ""
    ) -> None:
        self.pass_text = pass_text
        self.position = position
        self.cause = cause
        self.replay = replay
        self.node = node
        what = str(cause) if isinstance(cause, VlmpassError) else f"{type(cause).__name__}: {cause}"
        at = f" at {node}" if node else ""
        super().__init__(f"pass {position}, {pass_text}{at}: {what}")
        self.context = (f"replay: {replay}",)
