"""The verdict on a result before it counts: the full type check, and numbers against the source."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.memory import hand_back
from vlmpass.ir_tools.run import Allowance, Verification, default_memory, verify
from vlmpass.loadable import LoadJudge
from vlmpass.report import NOT_TRIED, Checked, Loaded
from vlmpass.rewriter_rules.restore import restore

__all__ = ["VERIFY_SECONDS", "Judge"]

VERIFY_SECONDS = 120.0
"""How long comparing numbers may take where nobody asked for it."""


@dataclass(frozen=True)
class Judge:
    """Decides whether a result may be written.

    Attributes:
        source: Gives the source model, as it was before the first pass; it is asked only if it is
            needed.
        numbers: Whether to compare numbers: True, however long it takes; False; or None where ONNX
            Runtime is installed, for as long as `seconds`.
        target: Who is to run the result; ONNX Runtime's own targets must load it as it is.
        memory: Bytes that a runtime may take beside the weights; None for `default_memory`.
        seconds: How long comparing may take; None for no bound if `numbers`, else
            `VERIFY_SECONDS`.
        rounded_constants: Whether a pass may have rounded constants as the source does, running.
    """

    source: Callable[[], ir.Model]
    numbers: bool | None = None
    target: str | None = None
    memory: int | None = None
    seconds: float | None = None
    rounded_constants: bool = False

    def loads(self, result: ir.Model) -> Loaded:
        """Return whether ONNX Runtime loads a result; a target is held to it in any case.

        Raises:
            CheckError: The result is no valid model.
            VerifyError: It does not, and must.
        """
        if not self._strict and self.numbers is False:
            return NOT_TRIED
        check(result)
        target = self.target if self._strict else None
        return LoadJudge(self.source, target, Allowance(self._most)).judge(result)

    def judge(self, result: ir.Model, loaded: Loaded) -> Checked:
        """Return what was verified.

        Args:
            result: The result, its weights readable.
            loaded: What `loads` returned for it.

        Raises:
            CheckError: The result is no valid model.
            VerifyError: It computes something else than the source, or a comparison was asked for
                and cannot be made.
        """
        check(result)
        hand_back()
        reason = self._why_not()
        if reason:
            return Checked(True, None, reason, loaded)
        try:
            found = self._compare(result)
        except VerifyError as error:
            if self.numbers:
                raise
            return Checked(True, None, str(error), loaded)
        if self._strict and found.findings:
            raise VerifyError(
                f"{self.target} does not run the result as the source runs: {_worst(found)}",
                remedy="ask for an element type or opset that it computes in, as with --dtype",
            )
        if not found.ok:
            raise VerifyError(
                f"the result does not compute what the source computes: {_worst(found)}",
                remedy="--no-verify writes it all the same",
            )
        return Checked(True, found, "", loaded)

    @property
    def _strict(self) -> bool:
        return (self.target or "").startswith("ort-")

    @property
    def _most(self) -> int:
        return default_memory() if self.memory is None else self.memory

    def _compare(self, result: ir.Model) -> Verification:
        seconds = self.seconds
        if seconds is None and not self.numbers:
            seconds = VERIFY_SECONDS
        until = None if seconds is None else time.monotonic() + seconds
        return verify(
            self.source(),
            result,
            as_is=self._strict,
            restore=restore,
            rounded_constants=self.rounded_constants,
            allowance=Allowance(self._most, until),
        )

    def _why_not(self) -> str:
        if self.numbers is False:
            return "not asked for"
        if self.numbers is None and importlib.util.find_spec("onnxruntime") is None:
            return 'ONNX Runtime is not installed; pip install "vlmpass[runtime]"'
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
