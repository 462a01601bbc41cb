"""What keys and values are before they are turned and repeated for the product with queries."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Shape, Value

from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of
from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import Declined, Tape, refuse
from vlmpass.rewriter_rules.fuse.attention.steps_back import made_by
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["Heads", "heads_of", "turned_back"]

REPEATS = ("Expand", "Tile")
SPLITS = ("Unsqueeze", "Reshape")


def turned_back(op: Tape, turned: Value) -> Value | Declined:
    """Return keys, [batch, heads, length, size], of which the last two axes are swapped.

    Args:
        op: Records a Transpose where keys are in yet another order.
        turned: What queries are multiplied with.
    """
    node = made_by(turned, "Transpose")
    if node is None or node.inputs[0] is None:
        return refuse("{} is no Transpose of keys", turned)
    perm = tuple(ints_of(node, "perm", ()))
    if sorted(perm) != [0, 1, 2, 3]:
        return refuse("{} does not turn 4 axes", node)
    back = (perm[0], perm[1], perm[3], perm[2])
    return node.inputs[0] if back == (0, 1, 2, 3) else op.Transpose(node.inputs[0], perm=back)


@dataclass(frozen=True)
class Heads:
    """Keys or values, [batch, heads, length, size].

    Attributes:
        value: With as many heads as there are.
        times: How often each head stands in a row for that.
    """

    value: Value
    times: int


def _one_between(value: Value, wide: Shape) -> Value | None:
    """Return [batch, heads, length, size] where a value is it, with an axis of 1 after heads."""
    split = made_by(value, *SPLITS)
    source = None if split is None else split.inputs[0]
    if source is None or source.shape is None or value.shape is None or len(value.shape) != 5:
        return None
    sizes = [wide[0], wide[1], wide[3], wide[4]]
    fits = len(source.shape) == 4 and value.shape[2] == 1
    return source if fits and all(map(same_size, source.shape, sizes)) else None


def heads_of(value: Value) -> Heads:
    """Return heads before each of them was repeated in its place, or as they are.

    Args:
        value: Heads, [batch, heads, length, size], that may be repeated: [batch, heads, 1, length,
            size] expanded along the axis of 1, and joined with heads.
    """
    as_is = Heads(value, 1)
    join = made_by(value, "Reshape")
    wide = None if join is None else join.inputs[0]
    if wide is None or wide.shape is None or value.shape is None:
        return as_is
    if len(wide.shape) != 5 or len(value.shape) != 4:
        return as_is
    heads, times = wide.shape[1], wide.shape[2]
    if not isinstance(heads, int) or not isinstance(times, int) or value.shape[1] != heads * times:
        return as_is
    kept = [(0, 0), (2, 3), (3, 4)]
    if not all(same_size(value.shape[one], wide.shape[two]) for one, two in kept):
        return as_is
    source = _repeated(wide, wide.shape)
    return as_is if source is None or rank(source) != 4 else Heads(source, times)


def _repeated(wide: Value, shape: Shape) -> Value | None:
    """Return what was repeated along the third of five axes."""
    node = wide.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Concat":
        axis, first = int_of(node, "axis", 0), node.inputs[0]
        same = axis in (2, -3) and first is not None and set(node.inputs) == {first}
        return _one_between(first, shape) if same and first is not None else None
    first = node.inputs[0] if node.op_type in REPEATS else None
    return None if first is None else _one_between(first, shape)
