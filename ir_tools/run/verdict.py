"""What a comparison of two models found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmpass.ir_tools.run.compare import OutputDifference

__all__ = ["Trial", "Verification"]


@dataclass(frozen=True)
class Trial:
    """One set of inputs that both models were run on.

    Attributes:
        dims: Size by symbol of every dynamic dimension; empty for the user's own inputs.
        finite: Whether every output of the reference was finite.
        hard: What about them is hard on narrow types or not usual, such as ``long sequences`` or
            ``an empty cache``; mostly empty.
    """

    dims: Mapping[str, int]
    finite: bool
    hard: str = ""


@dataclass(frozen=True)
class Verification:
    """What a comparison of two models found.

    Attributes:
        ok: Whether every output of every trial is equal within the tolerance.
        expected_ran: How the reference was run.
        actual_ran: How the other was run.
        trials: The input sets.
        outputs: For each output the worst of its trials, in the reference's order.
        findings: What else is wrong, such as an input that is missing.
        notes: What a reader of the verdict should know.
        causes: Why models differ, where that can be told, such as nearly equal scores.
        seconds: Wall time.
        seed: Of the generated inputs; None for the user's own.
    """

    ok: bool
    expected_ran: str
    actual_ran: str
    trials: tuple[Trial, ...]
    outputs: tuple[OutputDifference, ...]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    seconds: float = 0.0
    seed: int | None = None

    @property
    def max_rel(self) -> float:
        """The largest relative error over all outputs."""
        return max((output.max_rel for output in self.outputs), default=0.0)
