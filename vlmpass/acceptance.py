"""The verdict on a result before it counts: the full type check, and numbers against the source."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

from vlmpass.convert_options import Comparing
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, VerifyError, VlmpassError
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.save.size import parse_size
from vlmpass.ir_tools.system.collector import collecting
from vlmpass.ir_tools.system.memory import hand_back
from vlmpass.report import NOT_TRIED, Checked, Loaded
from vlmpass.stages import Stages

if TYPE_CHECKING:
    from vlmpass.ir_tools.run.allowance import Allowance
    from vlmpass.ir_tools.run.verdict import Verification
    from vlmpass.ir_tools.targets import Profile
    from vlmpass.rounded_weights import BeforeRounding

__all__ = ["VERIFY_SECONDS", "Acceptance", "Held", "Result", "fault_of", "worst_of"]

VERIFY_SECONDS = 120.0
"""How long comparing numbers may take where nobody asked for it."""

_WIDER = (
    "show such inputs with --calibrate, or keep nodes in float32 with "
    "mixed-precision{keep-nodes=...}; --no-verify writes it all the same"
)


class Result(Protocol):
    """A result that can be checked, and loaded where that is asked for."""

    def check(self) -> None:
        """Check it fully, or raise CheckError."""

    def load(self) -> ir.Model:
        """Return it as a graph, its weights readable."""


@dataclass(frozen=True)
class Held:
    """A result in memory."""

    model: ir.Model

    def check(self) -> None:
        """Check it fully, or raise CheckError."""
        check(self.model)

    def load(self) -> ir.Model:
        """Return it."""
        return self.model


_TIED = (
    "what nearly ties goes either way in any narrower type, and --no-verify writes it all the same"
)


@dataclass(frozen=True)
class Acceptance:
    """Decides whether a result may be written.

    Attributes:
        source: Gives the source model, as it was before the first pass; it is asked only if it is
            needed.
        comparing: Whether numbers are compared: where None, if ONNX Runtime is installed. How long
            it may take is `VERIFY_SECONDS` where neither that nor a time is asked for.
        target: What is to run the result; a runtime that its profile names must load it as it is.
        changes: What the passes did to numbers.
        half: The half precision that the source was brought to, if it was: the result is also
            judged with every value rounded to it, which ONNX Runtime's CPU does not do.
        unlike: Why the result takes other inputs than the source, with which it is then not
            compared; empty where it does not.
        stages: Takes the time of what it does.
        deadline: When comparing ends, by `time.monotonic`; None for the time that is allowed.
    """

    source: Callable[[], ir.Model]
    comparing: Comparing
    target: Profile | None = None
    changes: NumberChanges = EXACT
    half: ir.DataType | None = None
    unlike: str = ""
    stages: Stages = field(default_factory=Stages)
    deadline: float | None = None

    def loads(self, result: ir.Model) -> Loaded:
        """Return whether ONNX Runtime loads a result; a target is held to it in any case.

        Another runtime of a target's own, if that is installed, has to load it too.

        Raises:
            CheckError: The result is no valid model.
            VerifyError: It does not, and must.
        """
        if not self._strict and self.comparing.verify is False:
            return NOT_TRIED
        from vlmpass.loadable import LoadAcceptance

        with self.stages("check"):
            check(result)
        target = self.target.name if self.target and self._strict else None
        with self.stages("load on ONNX Runtime"), collecting():
            loaded = LoadAcceptance(self.source, target, self._allowance()).accept(result)
        return replace(loaded, there=self._there(result))

    def _there(self, result: ir.Model) -> str:
        """Return what the target's own runtime makes of a result; empty if it has none."""
        if self.target is None or self.target.loader is None:
            return ""
        from vlmpass.target_loading import LOAD_SECONDS, load_there

        seconds = self.comparing.verify_seconds
        until = time.monotonic() + (LOAD_SECONDS if seconds is None else seconds)
        with self.stages(f"load for {self.target.name}"), collecting():
            return load_there(result, self.target, self._allowance(until))

    def accept(self, result: Result, loaded: Loaded) -> Checked:
        """Return what was verified.

        Args:
            result: The result.
            loaded: What `loads` returned for it.

        Raises:
            CheckError: The result is no valid model.
            VerifyError: It computes something else than the source, or a comparison was asked for
                and cannot be made.
        """
        with self.stages("check"):
            result.check()
        hand_back()
        reason = self._why_not()
        if reason:
            return Checked(True, None, reason, loaded)
        with self.stages("read back"):
            model = result.load()
        with self.stages("compare"), collecting():
            return self._accept(model, loaded)

    def with_rounded_weights(
        self, exact: BeforeRounding, since: NumberChanges, result: Result, loaded: Loaded
    ) -> Checked:
        """Return what was verified of a result whose weights were rounded, and what that costs.

        The model before the rounding is compared with the source, and the result with that model
        with its weights rounded, within one time. Where the first cannot be compared, nor is the
        result.

        Args:
            exact: The model before the rounding.
            since: What passes did to numbers since.
            result: The result.
            loaded: What `loads` returned for it.

        Raises:
            CheckError: The result is no valid model.
            VerifyError: It computes something else than the model before with weights rounded, or
                that something else than the source.
        """
        timed = replace(self, deadline=self._until())
        before = None
        if exact.changed:
            before = replace(timed, changes=exact.changes).accept(Held(exact.model), loaded)
        checked = replace(timed, source=exact.rounded, changes=since).accept(result, loaded)
        if before is not None and before.numbers is None:
            return replace(checked, numbers=None, rounded=None, reason=before.reason)
        if checked.numbers is None:
            return checked
        earlier = () if before is None or before.numbers is None else before.numbers.notes
        notes = dict.fromkeys((*earlier, *checked.numbers.notes, timed._cost(exact, result)))
        return replace(checked, numbers=replace(checked.numbers, notes=tuple(notes)))

    def _cost(self, exact: BeforeRounding, result: Result) -> str:
        """Say what rounding weights changes, or why that is not known."""
        with self.stages("compare"), collecting():
            try:
                return exact.cost(result.load(), self._allowance(self._until()))
            except VlmpassError as error:
                return f"what the rounding changes was not measured: {error}"

    def _accept(self, result: ir.Model, loaded: Loaded) -> Checked:
        """Return what was verified of a valid result, or raise VerifyError."""
        until = self._until()
        try:
            found = self._compare(result, until)
        except VerifyError as error:
            if self.comparing.verify:
                raise
            return Checked(True, None, str(error), loaded)
        if self.target is not None and self._strict and found.findings:
            raise VerifyError(
                f"{self.target.name} does not run the result as the source runs: {worst_of(found)}",
                remedy="ask for an element type or opset that it computes in, as with --dtype",
            )
        if not found.ok:
            raise VerifyError(
                f"the result does not compute what the source computes: {_why(found)}",
                remedy=_TIED if found.causes else "--no-verify writes it all the same",
            )
        found, rounded = self._rounded(result, found, until)
        return Checked(True, found, "", loaded, rounded)

    @property
    def _strict(self) -> bool:
        return self.target is not None and self.target.runtime is not None

    def _allowance(self, until: float | None = None) -> Allowance:
        """Return what a runtime may take; its module is imported for who compares or loads."""
        from vlmpass.ir_tools.run.allowance import Allowance, default_memory

        memory = self.comparing.memory
        return Allowance(default_memory() if memory is None else parse_size(memory), until)

    def _until(self) -> float | None:
        if self.deadline is not None:
            return self.deadline
        seconds = self.comparing.verify_seconds
        if seconds is None and not self.comparing.verify:
            seconds = VERIFY_SECONDS
        return None if seconds is None else time.monotonic() + seconds

    def _compare(
        self, result: ir.Model, until: float | None, emulated: ir.DataType | None = None
    ) -> Verification:
        from vlmpass.ir_tools.run.verify import verify
        from vlmpass.rewriter_rules.restore import restore

        if self.unlike:
            raise VerifyError(self.unlike)
        return verify(
            self.source(),
            result,
            as_is=self._strict and emulated is None,
            emulated=emulated,
            hard=emulated is not None,
            restore=restore,
            changes=self.changes,
            allowance=self._allowance(until),
        )

    def _rounded(
        self, result: ir.Model, found: Verification, until: float | None
    ) -> tuple[Verification, Verification | None]:
        """Compare once more with every value rounded, where the result is of half precision.

        Returns:
            The first comparison, with a note if the second could not be made, and the second.

        Raises:
            VerifyError: Rounded, it computes something else.
        """
        from vlmpass.ir_tools.run.participants import computed_in

        if self.half is None or self.half not in computed_in(result):
            return found, None
        name = self.half.name.lower()
        try:
            rounded = self._compare(result, until, self.half)
        except VlmpassError as error:
            if self.comparing.verify:
                raise
            note = f"not compared with every value rounded to {name}, as hardware does: {error}"
            return replace(found, notes=(*found.notes, note)), None
        if rounded.ok:
            return found, rounded
        why = "; ".join((_why(rounded), *rounded.notes))
        told = f"hardware that computes in {name} gets something else than the source: {why}"
        if self._strays(until):
            note = f"{told}; so it does from the source, compared with itself in float32"
            return replace(found, notes=(*found.notes, note)), None
        raise VerifyError(told, remedy=_TIED if rounded.causes else _WIDER)

    def _strays(self, until: float | None) -> bool:
        """Whether the source was of that half precision, and hardware gets something else too."""
        from vlmpass.ir_tools.run.participants import computed_in
        from vlmpass.ir_tools.run.verify import verify

        source, half = self.source(), self.half
        if half is None or half not in computed_in(source):
            return False
        allowance = self._allowance(until)
        return not verify(source, source, emulated=half, hard=True, allowance=allowance).ok

    def _why_not(self) -> str:
        if self.comparing.verify is False:
            return "not asked for"
        if self.comparing.verify is None and importlib.util.find_spec("onnxruntime") is None:
            return 'ONNX Runtime is not installed; pip install "vlmpass[runtime]"'
        return ""


def fault_of(source: ir.Model) -> str:
    """Return what makes a model invalid; empty if nothing does."""
    try:
        check(source)
    except CheckError as error:
        return error.problem
    return ""


def fault_by_sizes(source: ir.Model) -> str:
    """Return what makes a model invalid once the sizes that follow are known; else nothing."""
    from vlmpass.fitting import shaped

    with contextlib.suppress(VlmpassError):
        return fault_of(shaped(source, []))
    return ""


def _why(found: Verification) -> str:
    return "; ".join((worst_of(found), *found.causes))


def worst_of(found: Verification) -> str:
    """Return the first thing that is wrong, in a few words."""
    if found.findings:
        return found.findings[0]
    wrong = [output for output in found.outputs if not output.ok]
    if not wrong:
        return "it has no outputs"
    worst = max(wrong, key=lambda output: output.max_rel)
    detail = f"{worst.reason} in output '{worst.name}'"
    if worst.max_rel > 0:
        from vlmpass.ir_tools.run.compare import limit_text

        limit = limit_text(worst.tolerance)
        detail += f", relative error {worst.max_rel:.1e} where {limit} is allowed"
    others = len(wrong) - 1
    return detail + (f", and in {others} more" if others else "")
