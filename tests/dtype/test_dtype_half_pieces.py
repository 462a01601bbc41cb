"""Random pieces in float16 by an evaluator of its own; and defects planted in the islands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir
import pytest
from half_pieces import PIECES, fault

from vlmpass.ir_tools.types import narrow
from vlmpass.ir_tools.types import retype as retyping
from vlmpass.passes.dtype import islands, masks, measured, mixed_precision

SAMPLE = 54
SEEDS = 10
Plant = Callable[[pytest.MonkeyPatch], None]


def without(operator: str) -> Plant:
    kept = {key: why for key, why in islands.SENSITIVE.items() if key[1] != operator}
    return lambda patch: patch.setattr(mixed_precision, "SENSITIVE", kept)


def nothing(module: object, name: str, result: object) -> Plant:
    return lambda patch: patch.setattr(module, name, lambda *_, **__: result)


def forgotten(module: object, name: str, *missing: str) -> Plant:
    held = getattr(module, name)
    return lambda patch: patch.setattr(module, name, frozenset(held) - set(missing))


def late_masks(patch: pytest.MonkeyPatch) -> None:
    of = masks._Masks.of
    patch.setattr(masks._Masks, "of", lambda half: replace(of(half), least=1e5))


def rounded_masks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(narrow, "MASK", 1e300)
    patch.setattr(mixed_precision, "_unfit", lambda *_: ())


def unbounded_masks(patch: pytest.MonkeyPatch) -> None:
    def cast(self: object, tensor: ir.TensorProtocol, dtype: ir.DataType, where: str, **_: object):
        return narrow.cast_tensor(tensor, dtype)

    patch.setattr(narrow.Narrowing, "cast", cast)


PLANTED: dict[str, tuple[str, Plant]] = {
    **{f"{name} is narrow": (name, without(name)) for name in (
        "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceL1", "CumSum",
    )},
    "Cos is narrow": ("rotary", without("Cos")),
    "Sin is narrow": ("rotary", without("Sin")),
    "angles are forgotten": ("rotary", nothing(mixed_precision, "angles", {})),
    "masks are forgotten": ("masked", nothing(mixed_precision, "masks_of_islands", {})),
    "masks begin late": ("masked", late_masks),
    "masks become infinite": ("masked_where", unbounded_masks),
    "a mean is narrow": ("centred", without("ReduceMean")),
    "islands do not grow": ("centred", lambda patch: patch.setattr(
        mixed_precision, "grow", lambda model, typing, kept: dict(kept))),
    "squares are outside": ("norm", nothing(islands, "_below", ())),
    "a power is narrow": ("norm", without("Pow")),
    "a root is narrow": ("norm", without("Sqrt")),
    "an exponential is narrow": ("spans", without("Exp")),
    "scaled sums leave the island": ("ReduceSum", nothing(islands._Growth, "_scale", None)),
    "a reciprocal is narrow": ("inverse", without("Reciprocal")),
    "tiny numbers become zero": ("tiny", nothing(mixed_precision, "_unfit", ())),
    "divisors leave the island": ("tiny", nothing(mixed_precision, "divisors", {})),
    "nothing is measured": ("residual", nothing(measured, "magnitudes", {})),
    "integers are rounded": ("whole", nothing(retyping, "integer_arithmetic", {})),
    "scatters are narrow": ("scattered", nothing(islands, "_scatters", None)),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_half_pieces_hold_in_float16(seed: int) -> None:
    names = list(PIECES)
    assert fault(names[seed % len(names)], seed) == ""


@pytest.mark.parametrize("planted", PLANTED)
def test_half_pieces_find_planted_faults(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant = PLANTED[planted]
    plant(monkeypatch)
    assert any(fault(name, seed) for seed in range(SEEDS))


def test_half_pieces_are_enough_faults() -> None:
    assert len(PLANTED) >= 20
