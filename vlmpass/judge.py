"""The verdict on a result before it counts: the full type check, and numbers against the source."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.memory import hand_back
from vlmpass.ir_tools.run import Verification, verify
from vlmpass.ir_tools.walk import tensor_slots
from vlmpass.report import Checked
from vlmpass.rewriter_rules.restore import restore

__all__ = ["NUMBERS_LIMIT", "Judge"]

NUMBERS_LIMIT = 512_000_000
"""Bytes of weights up to which numbers are compared without being asked for."""


@dataclass(frozen=True)
class Judge:
    """Decides whether a result may be written.

    Attributes:
        source: Gives the source model, as it was before the first pass; it is asked once, and only
            if numbers are compared.
        numbers: Whether to compare numbers: True, False, or None for small models where ONNX
            Runtime is installed.
        target: Who is to run the result; ONNX Runtime's own targets must load it as it is.
        rounded_constants: Whether a pass may have rounded constants as the source does, running.
    """

    source: Callable[[], ir.Model]
    numbers: bool | None = None
    target: str | None = None
    rounded_constants: bool = False

    def judge(self, result: ir.Model) -> Checked:
        """Return what was verified.

        Args:
            result: The result, its weights readable.

        Raises:
            CheckError: The result is no valid model.
            VerifyError: It computes something else than the source, or a comparison was asked for
                and cannot be made.
        """
        check(result)
        hand_back()
        reason = self._why_not(result)
        if reason:
            return Checked(True, None, reason)
        strict = (self.target or "").startswith("ort-")
        try:
            found = verify(
                self.source(),
                result,
                as_is=strict,
                restore=restore,
                rounded_constants=self.rounded_constants,
            )
        except VerifyError as error:
            if self.numbers:
                raise
            return Checked(True, None, error.problem)
        if strict and found.findings:
            raise VerifyError(
                f"{self.target} does not run the result as the source runs: {_worst(found)}",
                remedy="ask for an element type or opset that it computes in, as with --dtype",
            )
        if not found.ok:
            raise VerifyError(
                f"the result does not compute what the source computes: {_worst(found)}",
                remedy="--no-verify writes it all the same",
            )
        return Checked(True, found, "")

    def _why_not(self, result: ir.Model) -> str:
        if self.numbers is False:
            return "not asked for"
        if self.numbers:
            return ""
        if importlib.util.find_spec("onnxruntime") is None:
            return 'ONNX Runtime is not installed; pip install "vlmpass[runtime]"'
        if sum(slot.tensor.nbytes for slot in tensor_slots(result)) > NUMBERS_LIMIT:
            return f"weights above {NUMBERS_LIMIT // 10**6} MB; --verify compares all the same"
        return ""


def _worst(found: Verification) -> str:
    """Return the first thing that is wrong, in a few words."""
    if found.findings:
        return found.findings[0]
    wrong = [output for output in found.outputs if not output.ok]
    if not wrong:
        return "it has no outputs"
    worst = max(wrong, key=lambda output: output.max_rel)
    detail = f"{worst.reason} in output '{worst.name}'"
    if worst.max_rel > 0:
        detail += f", relative error {worst.max_rel:.1e} where {worst.tolerance:.0e} is allowed"
    others = len(wrong) - 1
    return detail + (f", and in {others} more" if others else "")
