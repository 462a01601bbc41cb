"""What is asked for (an opset, an element type, fewer nodes …) as pipeline text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.opsets import OLDEST_OPSET, default_opset, newest_opset
from vlmpass.ir_tools.walk import all_nodes
from vlmpass.passes.kinds import write_word
from vlmpass.rewriter_rules.opset.stamp import needed_ir_version
from vlmpass.rewriter_rules.quant.emit import BLOCKED_OPSET
from vlmpass.rewriter_rules.substitute.aten import kernel_of

__all__ = [
    "DTYPES",
    "FUSE",
    "QUANT",
    "SIMPLIFY",
    "TARGETS",
    "Intent",
    "Limits",
    "fit_ir_version",
    "nearest",
]

DTYPES = ("float32", "float16", "bfloat16")
"""The element types that can be asked for."""

SIMPLIFY = (
    "infer,shape-arithmetic,fold,dead-branches,cse,simplify,fold,shape-arithmetic,cse,simplify,"
    "remove-unused,dedupe-initializers"
)
"""Fewer nodes, same values: what decides shapes first, and once more what that laid open.

Shapes come before folding, so that what leaves a stored tensor as it is goes away, and the tensor
keeps its name; folded, it would have the name of the result.
"""

QUANT = ("matmul-nbits", "dequantize-linear", "float")
"""What linear layers with packed weights (GPTQ, AWQ) can become."""

FUSE = ("standard", "ort")
"""Whose operators normalisations and activations can become."""

_MANY = 50
"""Of how many names a message no longer lists all."""


@dataclass(frozen=True)
class Limits:
    """The newest versions that a target reads.

    Attributes:
        opset: Of the default domain.
        ir_version: Of the file format.
    """

    opset: int
    ir_version: int


TARGETS: Mapping[str, Limits] = {"ort-cpu": Limits(opset=26, ir_version=13)}
"""The targets that can be asked for; ONNX Runtime's limits are those of 1.31."""


def nearest(word: str, known: Iterable[str], what: str) -> PipelineError:
    """Return an error for an unknown word that names the nearest known one, or all if not many."""
    choices = list(known)
    folded = {each.lower(): each for each in choices}
    found = difflib.get_close_matches(word.lower(), folded, 1, 0.6)
    remedy = f"choose one of {', '.join(choices)}"
    if found:
        remedy = f"did you mean '{folded[found[0]]}'?"
    elif len(choices) > _MANY:
        remedy = "look up its name"
    return PipelineError(f"there is no {what} '{word}'", remedy=remedy)


def _parse_opset(text: str | int) -> int | str:
    """Return an opset number, or ``auto`` or ``lowest``.

    Raises:
        PipelineError: It is neither, or out of range.
    """
    if text in ("auto", "lowest"):
        return text
    bounds = f"from {OLDEST_OPSET} to {newest_opset()}"
    try:
        opset = int(text)
    except ValueError:
        raise PipelineError(
            f"'{text}' is no opset", remedy=f"choose one {bounds}, auto or lowest"
        ) from None
    if not OLDEST_OPSET <= opset <= newest_opset():
        raise PipelineError(f"opset {opset} is out of range", remedy=f"choose one {bounds}")
    return opset


@dataclass(frozen=True)
class Intent:
    """What the result is to be.

    Attributes:
        opset: Version of the default domain, ``auto`` or ``lowest``; None leaves it.
        dtype: The floating-point type to compute in; None leaves them.
        target: Who is to run it; None knows no limits.
        quant: What linear layers with packed weights become; None leaves them.
        simplify: Whether to leave as few nodes as possible.
        fuse: Whose operators normalisations and activations become; None leaves them.
        keep_io: Whether inputs and outputs keep their element types.
        calibrate: What to find values too large for half precision with: ``random`` inputs or an
            .npz file of inputs; None measures nothing.
        mend_shifts: Whether packed words are shifted as in PyTorch where the exporter divided.
        widen_io: Whether inputs and outputs of a type that the opset does not have take a wider
            one.

    Raises:
        PipelineError: There is no such opset, type, target or choice, the target reads older
            opsets only, or an option is given without what it is about.
    """

    opset: int | str | None = None
    dtype: str | None = None
    target: str | None = None
    quant: str | None = None
    simplify: bool = False
    fuse: str | None = None
    keep_io: bool = False
    calibrate: str | None = None
    widen_io: bool = False
    mend_shifts: bool = False

    def __post_init__(self) -> None:
        if self.opset is not None:
            object.__setattr__(self, "opset", _parse_opset(self.opset))
        if self.dtype is not None and self.dtype not in DTYPES:
            raise nearest(self.dtype, DTYPES, "element type")
        if self.target is not None and self.target not in TARGETS:
            raise nearest(self.target, TARGETS, "target")
        if self.quant is not None and self.quant not in QUANT:
            raise nearest(self.quant, QUANT, "form of a quantised layer")
        if self.fuse is not None and self.fuse not in FUSE:
            raise nearest(self.fuse, FUSE, "set of operators to fuse to")
        self._check_type_options()
        self._check_quant()
        if self.widen_io and self.opset is None and self.target is None:
            raise PipelineError("widen-io is about a change of opset", remedy="give an opset too")
        limits = self.limits
        if limits is not None and isinstance(self.opset, int) and self.opset > limits.opset:
            raise PipelineError(
                f"{self.target} reads opset {limits.opset} at most, not {self.opset}",
                remedy=f"ask for opset {limits.opset}",
            )

    def _check_type_options(self) -> None:
        if self.keep_io and self.dtype is None:
            raise PipelineError("keep-io is about a change of types", remedy="give a dtype too")
        if self.calibrate is not None and self.dtype not in ("float16", "bfloat16"):
            raise PipelineError(
                "calibration is for half precision", remedy="give dtype float16 or bfloat16 too"
            )
        if self.calibrate not in (None, "random") and not Path(str(self.calibrate)).is_file():
            raise PipelineError(
                f"there is no file of inputs '{self.calibrate}'",
                remedy="give an .npz file, or random",
            )

    def _check_quant(self) -> None:
        asked = [each for each in (self.opset, self.limits and self.limits.opset) if each]
        low = next((each for each in asked if isinstance(each, int) and each < BLOCKED_OPSET), None)
        if self.quant == "dequantize-linear" and low is not None:
            raise PipelineError(
                f"blocked DequantizeLinear needs opset {BLOCKED_OPSET}, and {low} is asked for",
                remedy=f"ask for opset {BLOCKED_OPSET} or later, or for matmul-nbits or float",
            )

    @property
    def limits(self) -> Limits | None:
        """The target's limits."""
        return None if self.target is None else TARGETS[self.target]

    def text(self, model: ir.Model) -> str:
        """Return the pipeline that brings a model there, all the way: run again, it does nothing.

        Packed weights come first, while they are as exported, at an opset that has their form, and
        fusion last, when the opset has all it will have. Constants are folded before types narrow,
        and after they widen. What comes after the first simplification leaves something to
        simplify, and nodes whose shapes follow only now. Outputs that nobody declared are inferred
        in any case.
        """
        parts = ["mend-shifts"] if self.mend_shifts else []
        if self.quant is not None and not self._widens_before_quant:
            parts += self._quant_parts(model)
        if self.dtype == "float32":
            parts.append(self._dtype_part(self.dtype))
        if self._widens_before_quant:
            parts += self._quant_parts(model)
        if self.simplify:
            parts.append(SIMPLIFY)
        first = len(parts)
        if self.dtype not in (None, "float32"):
            parts.append(self._dtype_part(str(self.dtype)))
        parts += self._opset_parts(model)
        if self.fuse is not None:
            parts.append(f"infer,fuse{{emit={self.fuse}}}")
        if self.simplify and parts[first:]:
            parts.append(SIMPLIFY)
        if any("infer" in part for part in parts):
            parts.append("infer")
        text = ",".join(parts)
        needy = any(each.type is None or each.shape is None for each in model.graph.outputs)
        return f"infer,{text}".rstrip(",") if needy and not text.startswith("infer") else text

    @property
    def _widens_before_quant(self) -> bool:
        """Whether weights are written out as float32: then they are not rounded on the way."""
        return self.quant == "float" and self.dtype == "float32"

    def _quant_parts(self, model: ir.Model) -> list[str]:
        parts = [f"infer,quant-linear{{to={self.quant}}}"]
        has = default_opset(model.opset_imports)
        if self.quant == "dequantize-linear" and has is not None and has < BLOCKED_OPSET:
            needed = self.opset if isinstance(self.opset, int) else BLOCKED_OPSET
            parts.insert(0, f"infer,convert-opset{{to={needed}}}")
        return parts

    def _dtype_part(self, dtype: str) -> str:
        options = [f"to={dtype}", *(["keep-io=true"] if self.keep_io else [])]
        if self.calibrate is not None:
            options.append(f"calibrate={write_word(self.calibrate)}")
        name = "unify-dtype" if dtype == "float32" else "mixed-precision"
        return f"repair-types,{name}{{{' '.join(options)}}}"

    def _opset_parts(self, model: ir.Model) -> list[str]:
        parts: list[str] = []
        opset = self.opset
        has = default_opset(model.opset_imports)
        if opset is None and self.limits is not None and has is not None:
            opset = self.limits.opset if has > self.limits.opset else None
        if opset is not None:
            # Some steps down, and those from before 13, depend on ranks that nobody wrote down.
            if has is not None and (has < 13 or not isinstance(opset, int) or opset < has):
                parts.append("infer")
            wider = " interface=wider" if self.widen_io else ""
            parts.append(f"convert-opset{{to={opset}{wider}}}")
        if any(kernel_of(node) is not None for node in all_nodes(model)):
            # What stands for the foreign node is written at opset 13 or later.
            early = opset == "lowest" or (isinstance(opset, int) and opset < 13)
            parts.insert(len(parts) - 1 if early else len(parts), "substitute")
        return parts


def fit_ir_version(model: ir.Model, target: str) -> None:
    """Lower the ir_version to what a target reads, where nothing in the model needs a newer one.

    Raises:
        PipelineError: Something in the model needs a newer one.
    """
    limit = TARGETS[target].ir_version
    needed = needed_ir_version(model)
    if needed > limit:
        raise PipelineError(
            f"the model needs ir_version {needed}, and {target} reads {limit} at most",
            remedy="convert the element types or features that need it",
        )
    model.ir_version = min(model.ir_version, limit)
