"""What vlmpass raises: every error names the thing, the reason and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CheckError",
    "ModelError",
    "PassFailed",
    "PipelineError",
    "Refusal",
    "Refused",
    "SaveError",
    "VerifyError",
    "VlmpassError",
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


class ModelError(VlmpassError):
    """The input is not a model that can be opened whole and safely."""


class PipelineError(VlmpassError):
    """The pipeline text or a pass option is wrong; the message carries the caret."""


class CheckError(VlmpassError):
    """A model does not pass the full type check."""


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


class Refused(VlmpassError):
    """A pass refuses the whole request and lists every offending node.

    Args:
        request: What was asked, such as ``convert-opset to 13``.
        refusals: All of them, in graph order; at least one.
    """

    def __init__(self, request: str, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        count = "1 node" if len(refusals) == 1 else f"{len(refusals)} nodes"
        lines = [f"{request} is refused for {count}", *(f"  {r}" for r in refusals)]
        super().__init__("\n".join(lines))


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
