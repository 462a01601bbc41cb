"""What is asked for: an opset, an element type, fewer nodes …, judged without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.system.arguments import flag, number, word
from vlmpass.ir_tools.system.paths import inputs_file
from vlmpass.options import Given, choice, option, options_of, profile_of, settle, target_names
from vlmpass.sensitivity import read_budget

if TYPE_CHECKING:
    import onnx_ir as ir

    from vlmpass.ir_tools.targets import Profile

__all__ = [
    "ALLOWED",
    "DTYPES",
    "FUSE",
    "HALVES",
    "QUANT",
    "ROUNDED",
    "Intent",
    "Passes",
]

_BESIDE = ("passes", "target", "sensitivity")
"""What may be given with passes."""

Passes: TypeAlias = "str | ir.passes.PassBase | Sequence[ir.passes.PassBase]"

DTYPES = ("float32", "float16", "bfloat16")
"""The element types that can be asked for."""

HALVES = ("float16", "bfloat16")
"""Those of them that overflow or round early."""

QUANT = ("matmul-nbits", "dequantize-linear", "float")
"""What linear layers with packed weights (GPTQ, AWQ) can become."""

ROUNDED = {"int8": (8, 13), "int4": (4, 21)}
"""How weights can be rounded: the bits, and the opset that its standard form needs."""

ALLOWED = ("approximate",)
"""What substitutes for a target may be, beside exact."""

FUSE = ("standard", "ort")
"""Whose operators normalisations and activations can become."""


def _parse_opset(given: object) -> int | str:
    """Return an opset number, or ``auto`` or ``lowest``.

    Raises:
        PipelineError: It is neither, or out of range.
    """
    from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset

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


def _needs_dtype(given: Given) -> PipelineError | None:
    if given["keep_io"] and given["dtype"] is None:
        return PipelineError("keep-io is about a change of types", remedy="give a dtype too")
    return None


def _needs_half(given: Given) -> PipelineError | None:
    if given["calibrate"] is not None and given["dtype"] not in HALVES:
        remedy = "give dtype float16 or bfloat16 too"
        return PipelineError("calibration is for half precision", remedy=remedy)
    return None


def _needs_opset(given: Given) -> PipelineError | None:
    if given["widen_io"] and given["opset"] is None and given["target"] is None:
        return PipelineError(
            "widen-io is about what an opset or a target has", remedy="give one too"
        )
    return None


def _needs_target(given: Given) -> PipelineError | None:
    if given["allow"] is not None and given["target"] is None:
        return PipelineError("allow is about a target", remedy="give a target too")
    return None


def _needs_rounding(given: Given) -> PipelineError | None:
    if given["sensitivity"] is not None and given["quantize"] is None and given["passes"] is None:
        return PipelineError(
            "sensitivity is about rounding", remedy="give quantize too, or a pass that rounds"
        )
    return None


def _stands_alone(given: Given) -> PipelineError | None:
    others = (each for each in options_of(Intent) if each.name not in _BESIDE)
    if given["passes"] is None or all(given[each.name] == each.default for each in others):
        return None
    return PipelineError(
        "passes say everything, and an opset, element type or the like was given too",
        remedy="write convert-opset{to=...} or unify-dtype{to=...} among the passes",
    )


def _target(name: str, value: object) -> str | None:
    found = word(name, value)
    if found is not None:
        profile_of(found)
    return found


def _calibration(name: str, value: object) -> str | None:
    found = word(name, value)
    if found not in (None, "random"):
        inputs_file(str(found))
    return found


def _budget(name: str, value: object) -> str | None:
    found = word(name, value)
    if found is not None:
        read_budget(found)
    return found


def _named(name: str, value: object) -> object:
    """Return passes as they were given; the names in a text are looked up without any import."""
    from vlmpass.passes.pipeline.named import read_named

    if isinstance(value, str):
        read_named(value)
    return value


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What the result is to be.

    Raises:
        PipelineError: There is no such opset, type, target or choice, the target reads older
            opsets only, or an option is given without what it is about.
    """

    opset: int | str | None = option(
        None,
        "Opset to convert to, or auto or lowest.",
        lambda name, value: value,
        "N",
        among=lambda: ("auto", "lowest"),
    )
    dtype: str | None = option(
        None,
        "Compute in float32, float16 or bfloat16.",
        choice(DTYPES, "element type"),
        "TYPE",
        among=lambda: DTYPES,
    )
    keep_io: bool = option(
        False, "With a dtype: inputs and outputs keep their types.", flag, refuse=_needs_dtype
    )
    widen_io: bool = option(
        False,
        "With an opset or target: inputs and outputs of a type that it lacks take a wider one, such"
        " as int8 for int4.",
        flag,
        refuse=_needs_opset,
    )
    restamp: bool = option(
        False,
        "Stamp the opset that the nodes are written for where the file says another, before all"
        " else.",
        flag,
    )
    mend_shifts: bool = option(
        False, "Unpack negative words as PyTorch does where the exporter divided for >>.", flag
    )
    calibrate: str | None = option(
        None,
        "With half precision: random, or an .npz file of inputs, to find what overflows and keep"
        " it in float32.",
        _calibration,
        "HOW",
        refuse=_needs_half,
    )
    target: str | None = option(
        None,
        "Make it what this runtime runs, in as few nodes as may be: ort-cpu, see vlmpass targets,"
        " or a .toml profile.",
        _target,
        "NAME",
        among=target_names,
    )
    allow: str | None = option(
        None,
        "With a target: approximate lets substitutes stand that are not exact, where no exact one"
        " is known; what they change is told.",
        choice(ALLOWED, "kind of substitute"),
        "WHAT",
        refuse=_needs_target,
    )
    quant: str | None = option(
        None,
        "Make each GPTQ or AWQ layer matmul-nbits, dequantize-linear or float.",
        choice(QUANT, "form of a quantised layer"),
        "FORM",
        among=lambda: QUANT,
    )
    quantize: str | None = option(
        None,
        "Round the weights of products to int8 or int4, and say what that changes.",
        choice(tuple(ROUNDED), "type of rounded weights"),
        "TYPE",
        among=lambda: ROUNDED,
    )
    sensitivity: str | None = option(
        None,
        "With quantize, or passes that round: budget=0.5% lets the most sensitive products stay"
        " float, inputs=PATH has what it is measured with, plot=FOLDER gets a plot.",
        _budget,
        "HOW",
        refuse=_needs_rounding,
    )
    simplify: bool = option(False, "Leave as few nodes as possible.", flag)
    fuse: str | None = option(
        None,
        "Make normalisations and activations one operator each: standard, or ort for ONNX"
        " Runtime's own.",
        choice(FUSE, "set of operators to fuse to"),
        "WHOSE",
        among=lambda: FUSE,
    )
    passes: Passes | None = option(
        None,
        "Run these passes instead, such as 'infer,convert-opset{to=18}'; see vlmpass passes.",
        _named,
        "TEXT",
        refuse=_stands_alone,
    )

    def __post_init__(self) -> None:
        settle(self, Intent)
        # Last, because which opsets there are is asked of onnx, whose import takes a second.
        if self.opset is not None:
            object.__setattr__(self, "opset", _parse_opset(self.opset))
        self._refuse_versions()

    def _refuse_versions(self) -> None:
        """Refuse an opset that is too low or too high for what else is asked for."""
        target = self.profile
        asked = [each for each in (self.opset, target and target.opset) if isinstance(each, int)]
        if self.quant == "dequantize-linear" and asked:
            from vlmpass.rewriter_rules.quant.emit import BLOCKED_OPSET

            low = next((each for each in asked if each < BLOCKED_OPSET), None)
            if low is not None:
                raise PipelineError(
                    f"blocked DequantizeLinear needs opset {BLOCKED_OPSET}, and {low} is asked for",
                    remedy=f"ask for opset {BLOCKED_OPSET} or later, or for matmul-nbits or float",
                )
        if self.quantize is not None and asked:
            _, needed = ROUNDED[self.quantize]
            low = next((each for each in asked if each < needed), None)
            if low is not None:
                raise PipelineError(
                    f"{self.quantize} weights need opset {needed}, and {low} is asked for",
                    remedy=f"ask for opset {needed} or later, or for the pass quantize-weights"
                    " with form=matmul-nbits",
                )
        if target is not None and isinstance(self.opset, int):
            target.hold(self.opset)

    def wanted(self) -> frozenset[str] | None:
        """Return the passes that options ask for, by name; None where passes are given instead."""
        if self.passes is not None:
            return None
        names = {
            "convert-opset": self.opset is not None,
            "quant-linear": self.quant is not None,
            "quantize-weights": self.quantize is not None,
            "fuse": self.fuse is not None,
            "mend-shifts": self.mend_shifts,
        }
        return frozenset(name for name, asked in names.items() if asked)

    @cached_property
    def profile(self) -> Profile | None:
        """What the target takes, read when it was asked for; None where none was."""
        return None if self.target is None else profile_of(self.target)
