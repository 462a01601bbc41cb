"""What a number was before it was rounded to a narrow type, if one of several is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import DataType, TensorProtocol, Value

from vlmpass.ir_tools.rewrite import Declined, Effect, P, Tape, refuse
from vlmpass.ir_tools.types.cast_nodes import REASON
from vlmpass.ir_tools.weights import cast_from

__all__ = ["FLOAT_X", "HELD", "NARROW", "RESTORES", "Exact", "Restored", "exactly", "reading"]

HELD = P.maybe.Cast("c", to=DataType.FLOAT)
"""A number in a narrow type: behind a Cast, or widened before, as `unify-dtype` does."""

FLOAT_X = {"x": [DataType.FLOAT]}

RESTORES = (Effect.RESTORES,)
"""What every rule declares that lets such a number be what it was."""

NARROW = (DataType.FLOAT16, DataType.BFLOAT16)


@dataclass(frozen=True)
class Exact:
    """A number as its author wrote it.

    Attributes:
        number: To full precision.
        says: How to write it, such as ``sqrt(2)``.
    """

    number: float
    says: str


@dataclass(frozen=True)
class Restored:
    """A number to full precision.

    Attributes:
        number: In float32, in the shape of the constant.
        reason: A sentence about what it was rounded to.
    """

    number: np.ndarray
    reason: str


def exactly(c: TensorProtocol, groups: Iterable[Sequence[Exact]]) -> Restored | Declined:
    """Return what a number is a rounding of.

    Args:
        c: A constant, as it is held or as it was widened.
        groups: What it may be, by what stands around it, the best founded candidates first; they
            are asked for only where c was rounded.

    Returns:
        The one number of the first group that has one whose rounding to the type it was held in
        first is c; declined where none has, and where c is one of them as it is.
    """
    held = cast_from(c)
    if held not in NARROW:
        return refuse("{} is {} and was not rounded", c.name, held)
    if c.size != 1 or _is_state(c.name):
        return refuse("{} is a weight of the model, and no number of its code", c.name)
    found = float(c.numpy().reshape(-1)[0])
    if math.frexp(found)[0] in (0.5, -0.5):
        return refuse("{} is a power of two, which authors mean", found)
    names: dict[str, None] = {}
    for group in groups:
        names.update((each.says, None) for each in group)
        fit = [each for each in group if found in _roundings(each.number, held)]
        near = {float(np.float32(each.number)): each for each in fit}
        if found in near:
            return refuse("{} is {} exactly", found, near[found].says)
        if len(near) == 1:
            (exact,) = near.values()
            reason = f"{found:.9g} was {exact.says} rounded to {held.name.lower()}"
            return Restored(np.full(c.shape.numpy(), exact.number, np.float32), reason)
    known = ", ".join(names) or "anything known here"
    return refuse("{} is not {} rounded to {}", found, known, held)


def reading(op: Tape, op_type: str, x: Value, number: Restored) -> Value:
    """Build an operator on a value and a restored number, with the reason on its node.

    Args:
        op: The tape.
        op_type: An operator of two inputs.
        x: Its first input.
        number: Its second input.
    """
    (result,) = op.node(op_type, [x, op.const(number.number, name="exact")])
    node = result.producer()
    assert node is not None
    node.metadata_props[REASON] = number.reason
    return result


def _roundings(number: float, dtype: DataType) -> tuple[float, ...]:
    """Return a number in a narrow type, rounded at once and by way of float32."""
    narrow = dtype.numpy()
    return tuple(float(wide(number).astype(narrow)) for wide in (np.float64, np.float32))


def _is_state(name: str | None) -> bool:
    """Whether a name is that of a parameter or buffer: ``layers.0.scale``.

    What PyTorch's exporters name themselves has no dots, or has slashes or colons too, but for
    tensors that are written in the code.
    """
    if name is None or "." not in name or "/" in name or ":" in name:
        return False
    return "lifted_tensor" not in name
