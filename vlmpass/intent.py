"""What is asked for: an opset, an element type, fewer nodes …, judged without a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.system.arguments import flag, number, word
from vlmpass.ir_tools.system.paths import inputs_file

__all__ = [
    "DTYPES",
    "FUSE",
    "HALVES",
    "QUANT",
    "TARGETS",
    "Intent",
    "Limits",
    "nearest",
]

DTYPES = ("float32", "float16", "bfloat16")
"""The element types that can be asked for."""

HALVES = ("float16", "bfloat16")
"""Those of them that overflow or round early."""

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
    """Return an error for an unknown word that names the nearest known one, or all if not many.

    Args:
        word: What was written.
        known: Words that exist.
        what: What they name, such as ``target``.
    """
    choices = list(known)
    folded = {each.lower(): each for each in choices}
    found = difflib.get_close_matches(word.lower(), folded, 1, 0.6)
    remedy = f"choose one of {', '.join(choices)}"
    if found:
        remedy = f"did you mean '{folded[found[0]]}'?"
    elif len(choices) > _MANY:
        remedy = "look up its name"
    return PipelineError(f"there is no {what} '{word}'", remedy=remedy)


def _parse_opset(given: object) -> int | str:
    """Return an opset number, or ``auto`` or ``lowest``.

    Raises:
        PipelineError: It is neither, or out of range.
    """
    from vlmpass.ir_tools.operators.schema import OLDEST_OPSET, newest_opset

    bounds = f"from {OLDEST_OPSET} to {newest_opset()}"
    if isinstance(given, str):
        if given in ("auto", "lowest"):
            return given
        try:
            given = int(given)
        except ValueError:
            raise PipelineError(
                f"'{given}' is no opset", remedy=f"choose one {bounds}, auto or lowest"
            ) from None
    opset = number("opset", given, least=None)
    assert opset is not None
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
        restamp: Whether the opset is the one that the nodes are written for, whatever is stamped.
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
    restamp: bool = False

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.dtype is not None and self.dtype not in DTYPES:
            raise nearest(self.dtype, DTYPES, "element type")
        if self.target is not None and self.target not in TARGETS:
            raise nearest(self.target, TARGETS, "target")
        if self.quant is not None and self.quant not in QUANT:
            raise nearest(self.quant, QUANT, "form of a quantised layer")
        if self.fuse is not None and self.fuse not in FUSE:
            raise nearest(self.fuse, FUSE, "set of operators to fuse to")
        self._check_type_options()
        if self.widen_io and self.opset is None and self.target is None:
            raise PipelineError("widen-io is about a change of opset", remedy="give an opset too")
        # Last, because which opsets there are is asked of onnx, whose import takes a second.
        if self.opset is not None:
            object.__setattr__(self, "opset", _parse_opset(self.opset))
        self._check_quant()
        limits = self.limits
        if limits is not None and isinstance(self.opset, int) and self.opset > limits.opset:
            raise PipelineError(
                f"{self.target} reads opset {limits.opset} at most, not {self.opset}",
                remedy=f"ask for opset {limits.opset}",
            )

    def _check_kinds(self) -> None:
        for name in ("dtype", "target", "quant", "fuse", "calibrate"):
            word(name, getattr(self, name))
        for name in ("simplify", "keep_io", "widen_io", "mend_shifts"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))

    def _check_type_options(self) -> None:
        if self.keep_io and self.dtype is None:
            raise PipelineError("keep-io is about a change of types", remedy="give a dtype too")
        if self.calibrate is not None and self.dtype not in HALVES:
            raise PipelineError(
                "calibration is for half precision", remedy="give dtype float16 or bfloat16 too"
            )
        if self.calibrate not in (None, "random"):
            inputs_file(str(self.calibrate))

    def _check_quant(self) -> None:
        if self.quant != "dequantize-linear":
            return
        from vlmpass.rewriter_rules.quant.emit import BLOCKED_OPSET

        asked = [each for each in (self.opset, self.limits and self.limits.opset) if each]
        low = next((each for each in asked if isinstance(each, int) and each < BLOCKED_OPSET), None)
        if low is not None:
            raise PipelineError(
                f"blocked DequantizeLinear needs opset {BLOCKED_OPSET}, and {low} is asked for",
                remedy=f"ask for opset {BLOCKED_OPSET} or later, or for matmul-nbits or float",
            )

    def refuse_beside_passes(self) -> None:
        """Refuse anything but a target where passes say what is done.

        Raises:
            PipelineError: Something else was asked for.
        """
        if self != Intent(target=self.target):
            raise PipelineError(
                "passes say everything, and an opset, element type or the like was given too",
                remedy="write convert-opset{to=...} or unify-dtype{to=...} among the passes",
            )

    def passes(self) -> frozenset[str] | None:
        """Return the names of the passes that were asked for; None where passes say everything."""
        if self == Intent(target=self.target):
            return None
        names = {
            "convert-opset": self.opset is not None,
            "quant-linear": self.quant is not None,
            "fuse": self.fuse is not None,
            "mend-shifts": self.mend_shifts,
        }
        return frozenset(name for name, wanted in names.items() if wanted)

    @property
    def limits(self) -> Limits | None:
        """The target's limits."""
        return None if self.target is None else TARGETS[self.target]
