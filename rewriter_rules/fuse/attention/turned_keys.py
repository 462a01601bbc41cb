"""Keys turned for the product with queries, in one way."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_ir import Shape, Value

from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.attention.steps_back import Size, reshaped

__all__ = ["TURNED_KEYS"]

FLAT = P.Reshape("x", "three").named("flat")


@rule(P.Reshape(P.Transpose(FLAT, perm=(0, 2, 1)), "four").named("turned"))
def transpose_of_flat(
    op: Tape, x: Value, three: Value, flat: Value, four: Value, turned: Value
) -> Replacement:
    """Reshape(Transpose(Reshape(x, three), perm=[0, 2, 1]), four) -> Transpose(x, perm)."""
    three_axes, four_axes = reshaped(flat), reshaped(turned)
    if x.shape is None or three_axes is None or four_axes is None:
        return refuse("the shapes of {}, {} and {} are not all known", x, flat, turned)
    back = _swapped(x.shape, three_axes, four_axes)
    if back is None:
        return refuse("{} is not known to be {} with its last axes swapped", turned, x)
    return op.Transpose(x, perm=back)


def _swapped(
    shape: Shape, three_axes: Sequence[Size], four_axes: Sequence[Size]
) -> list[int] | None:
    """Return the order of axes that swaps the last two, if that is what becomes of a shape."""
    rank = len(shape)
    back = [*range(rank - 2), rank - 1, rank - 2]
    same = len(four_axes) == rank and len(three_axes) == 3
    kept = same and all(same_size(four_axes[at], shape[axis]) for at, axis in enumerate(back))
    return back if kept and all(map(same_size, three_axes[1:], shape[-2:])) else None


TURNED_KEYS = RuleSet((transpose_of_flat,))
"""Of the exporter on torch.export, which folds the batch and heads of keys into one axis."""
