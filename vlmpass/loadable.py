"""Whether ONNX Runtime loads a result at its default level, and what to do where it does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, VerifyError, VlmpassError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.operators.schema import default_opset
from vlmpass.ir_tools.run import Allowance, RunError
from vlmpass.ir_tools.run.culprit import told
from vlmpass.ir_tools.run.loading import Loader
from vlmpass.ir_tools.run.participants import computed_in
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.targets import Profile
from vlmpass.passes import PassManager, parse
from vlmpass.report import Loaded
from vlmpass.rewriter_rules.opset.stamp import imported_opsets

__all__ = ["LoadAcceptance", "helpful_option", "why_not"]

_KERNELS = 21
"""The opset that ONNX Runtime has kernels for the most operators at."""

_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_NARROW = _HALVES | {ir.DataType.DOUBLE}
_VERSIONS = ("till opset", "Unsupported model IR version")


@dataclass(frozen=True)
class LoadAcceptance:
    """Loads a result, whatever its size, before it may be written.

    Attributes:
        source: Gives the source model; it is asked only where the result does not load.
        target: Who is to run the result; None: a source that loads must not become a result that
            does not.
        allowance: What loading may take.
    """

    source: Callable[[], ir.Model]
    target: str | None
    allowance: Allowance

    def accept(self, result: ir.Model) -> Loaded:
        """Return whether the result loads.

        Raises:
            VerifyError: It does not, and must: node, reason and remedy. Nor does the source,
                which is not valid.
        """
        if self.target is None and importlib.util.find_spec("onnxruntime") is None:
            return Loaded(None, 'ONNX Runtime is not installed; pip install "vlmpass[runtime]"')
        with Loader(self.allowance) as loader:
            error = loader.why_not(result)
            if error is None:
                return Loaded(True)
            if self.target is not None:
                raise VerifyError(
                    f"{self.target} does not load the result: {told(result, error, loader)}",
                    remedy=self._remedy(result, error, loader),
                )
            return self._against_source(result, error, loader)

    def _against_source(self, result: ir.Model, error: RunError, loader: Loader) -> Loaded:
        source = self.source()
        if error.is_stop:
            return Loaded(False, str(error))
        if loader.why_not(source) is not None:
            try:
                check(source)  # operators that onnx does not know hide its faults in the result
            except CheckError as fault:
                raise VerifyError("ONNX Runtime loads neither it nor the result") from fault
            return Loaded(False, f"nor is the source: {told(result, error, loader, always=False)}")
        if _asked_for(source, result, error, loader):
            return Loaded(False, told(result, error, loader, always=False))
        raise VerifyError(
            "ONNX Runtime loads the source and does not load the result: "
            + told(result, error, loader),
            remedy=self._remedy(result, error, loader),
        )

    def _remedy(self, result: ir.Model, error: RunError, loader: Loader) -> str:
        """Return a remedy that was tried; the way around the check where none helps."""
        if error.is_stop:
            return error.remedy
        # A type that the conversion itself brought in is not changed by asking for another.
        narrow = computed_in(self.source()) & computed_in(result) & _NARROW
        option = helpful_option(result, narrow, loader)
        if option is not None:
            return f"ask for {option} too, which it loads"
        if self.target is None:
            return "--no-verify writes it all the same"
        return f"convert without --target {self.target}, for a runtime that has what is missing"


def why_not(model: ir.Model, target: Profile, allowance: Allowance) -> tuple[str, str] | None:
    """Return why a model as it stands is none for a target, and what helps; None if it is one.

    Args:
        model: A valid model; it is not changed.
        target: What it is for.
        allowance: What loading may take.

    Raises:
        VerifyError: The runtime of the target is not installed.
    """
    helps = f"vlmpass convert --target {target.asked}"
    for opset in sorted(imported_opsets(model)):
        if target.nearest(opset) != opset:
            reads = f"{target.name} reads {target.lowest_opset} to {target.opset}"
            return f"it imports opset {opset}, and {reads}", f"{helps} converts it"
    if model.ir_version > target.ir_version:
        reads = f"{target.name} reads {target.ir_version} at most"
        return f"its ir_version is {model.ir_version}, and {reads}", f"{helps} lowers it if it can"
    if target.runtime is None:
        return None
    with Loader(allowance) as loader:
        error = loader.why_not(model)
        if error is None:
            return None
        option = None
        if not error.is_stop:
            option = helpful_option(model, computed_in(model) & _NARROW, loader)
        remedy = error.remedy if error.is_stop else "none is known"
        return told(model, error, loader), remedy if option is None else f"{helps} {option}"


def helpful_option(model: ir.Model, narrow: frozenset[ir.DataType], loader: Loader) -> str | None:
    """Return the option of a conversion after which a model loads; None if none helps.

    Args:
        model: One that does not load.
        narrow: Element types that could be widened.
        loader: Tries what the options make of the model.
    """
    tried = _changes(model, narrow)
    return next((option for option, changed in tried if loader.why_not(changed) is None), None)


def _changes(result: ir.Model, narrow: frozenset[ir.DataType]) -> Iterator[tuple[str, ir.Model]]:
    """Yield what else could be asked for, and what the result would then be like."""
    if narrow:
        wide = clone(result)
        widen(wide, narrow)
        yield "--dtype float32", wide
    if (default_opset(result.opset_imports) or 0) > _KERNELS:
        older = clone(result)
        try:
            passes = parse(f"infer,convert-opset{{to={_KERNELS}}}")
            PassManager(passes, ()).run(older, in_place=True)
        except VlmpassError:
            return
        yield f"--opset {_KERNELS}", older


def _asked_for(source: ir.Model, result: ir.Model, error: RunError, loader: Loader) -> bool:
    """Say whether a result does not load for nothing but what was asked for by name.

    That is an opset newer than the runtime reads, or bfloat16, which its CPU does not compute in.
    """
    newer = (default_opset(result.opset_imports) or 0) > (default_opset(source.opset_imports) or 0)
    if any(text in error.reason for text in _VERSIONS):
        return newer or result.ir_version > source.ir_version
    brain = {ir.DataType.BFLOAT16}
    if not (computed_in(result) - computed_in(source)) & brain:
        return False
    wide = clone(result)
    widen(wide, frozenset(brain))
    return loader.why_not(wide) is None
