"""Two nodes of a kind in a row that one can do, or none."""

from __future__ import annotations

from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import FOREVER, dim, matched, normal, rank

__all__ = ["CHAINS"]


@rule(P.Cast(P.Cast("x", to="inner").shared, to="outer"))
def cast_of_cast(op: Tape, x: Value, inner: DataType, outer: DataType) -> Replacement:
    """Cast(Cast(x, inner), outer) -> Cast(x, outer), when inner loses nothing of x."""
    if not holds_all(inner, x.dtype) or outer == DataType.STRING:
        return refuse("{} to {} may lose bits", x.dtype, inner)
    return x if outer == x.dtype else op.Cast(x, to=outer)


@rule(P.Transpose(P.Transpose("x", perm="first").shared, perm="second"))
def transpose_of_transpose(
    op: Tape, x: Value, first: tuple[int, ...], second: tuple[int, ...]
) -> Replacement:
    """Transpose(Transpose(x, perm=p), perm=q) -> Transpose(x, perm=p[q])."""
    if sorted(first) != sorted(second):
        return refuse("{} and {} are of different ranks", first, second)
    perm = tuple(first[axis] for axis in second)
    return x if perm == tuple(range(len(perm))) else op.Transpose(x, perm=perm)


def _without_copies(
    op: Tape, shape: tuple[int, ...], middle: Value, x: Value
) -> tuple[int, ...] | None:
    """Return the target of a Reshape of `middle` for `x`, whose axes a 0 would copy instead."""
    target: list[int] = []
    for at, size in enumerate(shape):
        copied = dim(op, middle, at)
        if size != 0 or (copied is not None and copied == dim(op, x, at)):
            target.append(size)
        else:
            target.append(copied if isinstance(copied, int) and copied else -1)
    return tuple(target) if target.count(-1) <= 1 else None


MOVES_NO_ELEMENT = P.Reshape | P.Squeeze | P.Unsqueeze | P.Flatten


@rule(P.Reshape(MOVES_NO_ELEMENT("x", ...).shared.named("middle"), "shape"))
def reshape_of_reshape(op: Tape, x: Value, middle: Value, shape: tuple[int, ...]) -> Replacement:
    """Reshape(Reshape(x, s), t) -> Reshape(x, t), and of Squeeze, Unsqueeze and Flatten."""
    target = _without_copies(op, shape, middle, x)
    if target is None:
        return refuse("{} copies axes of {} whose sizes are not known", shape, middle)
    return op.Reshape(x, op.const(target))


@rule(P.Squeeze(P.Unsqueeze("x", axes="added").shared, axes="removed"))
def squeeze_of_unsqueeze(
    op: Tape, x: Value, added: tuple[int, ...], removed: tuple[int, ...]
) -> Replacement:
    """Squeeze(Unsqueeze(x, axes), axes) -> x."""
    size = rank(x)
    total = None if size is None else size + len(added)
    there, gone = normal(added, total), normal(removed, total)
    if there is None or gone is None:
        return refuse("the rank of {} is not known", x)
    if set(there) != set(gone) or not gone:  # no axes to Squeeze may mean all of size 1
        return refuse("{} added, {} removed", added, removed)
    return x


@rule(P.Unsqueeze(P.Squeeze("x", axes="removed").shared, axes="added"))
def unsqueeze_of_squeeze(
    op: Tape, x: Value, removed: tuple[int, ...], added: tuple[int, ...]
) -> Replacement:
    """Unsqueeze(Squeeze(x, axes), axes) -> x."""
    gone, back = normal(removed, rank(x)), normal(added, rank(x))
    if not gone or back is None or set(gone) != set(back):
        return refuse("{} removed, {} added", removed, added)
    return x


@rule(P.Unsqueeze(P.Unsqueeze("x", axes="first").shared, axes="second"))
def unsqueeze_of_unsqueeze(
    op: Tape, x: Value, first: tuple[int, ...], second: tuple[int, ...]
) -> Replacement:
    """Unsqueeze(Unsqueeze(x, a), b) -> Unsqueeze(x, a moved by b and b)."""
    size = rank(x)
    if size is None:
        return refuse("the rank of {} is not known", x)
    inner, total = normal(first, size + len(first)), size + len(first) + len(second)
    outer = normal(second, total)
    if inner is None or outer is None:
        return refuse("{} does not get both axes {} and {}", x, first, second)
    kept = [axis for axis in range(total) if axis not in outer]
    return op.Unsqueeze(x, axes=sorted([*outer, *(kept[axis] for axis in inner)]))


@rule(P.Squeeze(P.Squeeze("x", axes="first").shared, axes="second"))
def squeeze_of_squeeze(
    op: Tape, x: Value, first: tuple[int, ...], second: tuple[int, ...]
) -> Replacement:
    """Squeeze(Squeeze(x, a), b) -> Squeeze(x, a and b moved back)."""
    size = rank(x)
    if size is None:
        return refuse("the rank of {} is not known", x)
    inner = normal(first, size) or ()
    left = [axis for axis in range(size) if axis not in inner]
    outer = normal(second, len(left))
    if not inner or not outer:  # no axes may mean all of size 1
        return refuse("{} has not both axes {} and {}", x, first, second)
    return op.Squeeze(x, axes=sorted([*inner, *(left[axis] for axis in outer)]))


SLICE = P.Slice("x", starts="starts1", ends="ends1", axes="axes1", steps="steps1")


@rule(P.Slice(SLICE.shared, starts="starts2", ends="ends2", axes="axes2", steps="steps2"))
def slice_of_slice(
    op: Tape,
    x: Value,
    starts1: tuple[int, ...],
    ends1: tuple[int, ...],
    axes1: tuple[int, ...],
    steps1: tuple[int, ...] | None,
    starts2: tuple[int, ...],
    ends2: tuple[int, ...],
    axes2: tuple[int, ...],
    steps2: tuple[int, ...] | None,
) -> Replacement:
    """Slice(Slice(x, a), b) -> Slice(x, a and b), for other axes or forward from the front."""
    inner, outer = normal(axes1, rank(x)), normal(axes2, rank(x))
    if inner is None or outer is None:
        return refuse("the rank of {} is not known", x)
    if not matched(starts1, ends1, axes1, steps1) or not matched(starts2, ends2, axes2, steps2):
        return refuse("starts, ends, axes and steps do not belong together")
    ranges = {
        axis: (starts1[at], ends1[at], steps1[at] if steps1 else 1) for at, axis in enumerate(inner)
    }
    for at, axis in enumerate(outer):
        start, end, step = starts2[at], ends2[at], steps2[at] if steps2 else 1
        if axis in ranges:
            low, high, stride = ranges[axis]
            if min(start, end, low, high) < 0 or step != 1 or stride != 1:
                return refuse("axis {} is cut twice, backwards or from the end", axis)
            start, end = start + low, min(high, FOREVER if end >= FOREVER else end + low)
        ranges[axis] = (start, end, step)
    merged = dict(sorted(ranges.items()))
    starts, ends, steps = (list(part) for part in zip(*merged.values(), strict=True))
    return op.Slice(x, starts=starts, ends=ends, axes=list(merged), steps=steps)


@rule(
    P.Squeeze(
        P.Slice("x", starts="starts", ends="ends", axes="axes", steps="steps"), axes="removed"
    )
)
def squeeze_of_slice(
    op: Tape,
    x: Value,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...],
    steps: tuple[int, ...] | None,
    removed: tuple[int, ...],
) -> Replacement:
    """Squeeze(Slice(x, i, i + 1, axis), axis) -> Gather(x, i, axis), of one index."""
    cut, gone = normal(axes, rank(x)), normal(removed, rank(x))
    if cut is None or gone is None:
        return refuse("the rank of {} is not known", x)
    if not matched(starts, ends, axes, steps) or len(cut) != 1 or cut != gone:
        return refuse("axes {} are cut, {} removed", axes, removed)
    start, end = starts[0], ends[0]
    last = FOREVER if start == -1 else start + 1
    if steps not in (None, (1,)) or end < last or (start != -1 and end > last):
        return refuse("{}:{} is not one index", start, end)
    return op.Gather(x, op.const(start), axis=cut[0])


def _removed(squeeze: Node) -> list[int] | None:
    """Return the axes that a Squeeze names; None if it names none that are known."""
    if "axes" in squeeze.attributes:
        return list(ints_of(squeeze, "axes", ()))
    axes = squeeze.inputs[1] if len(squeeze.inputs) > 1 else None
    tensor = None if axes is None else constant_of(axes)
    return None if tensor is None else tensor.numpy().tolist()


@rule(P.Squeeze("part", axes="removed"))
def squeeze_of_split(op: Tape, part: Value, removed: tuple[int, ...]) -> Replacement:
    """Squeeze(Split(x)[i], axis) -> Gather(x, i, axis), when every part is one index used so."""
    split = part.producer()
    if split is None or split.op_type != "Split" or split.inputs[0] is None:
        return refuse("{} is no part of a Split", part)
    axis = int_of(split, "axis", 0)
    if any(dim(op, each, axis) != 1 or each.is_graph_output() for each in split.outputs):
        return refuse("not every part of {} is known to be one index", split)
    for user in [use.node for each in split.outputs for use in each.uses()]:
        gone = _removed(user) if user.op_type == "Squeeze" else None
        if gone is None or normal(gone, rank(part)) != normal([axis], rank(part)):
            return refuse("{} needs a part with axis {}", user, axis)
    return op.Gather(split.inputs[0], op.const(split.outputs.index(part)), axis=axis)


@rule(P.Neg(P.Neg("x").shared) | P.Not(P.Not("x").shared) | P.BitwiseNot(P.BitwiseNot("x").shared))
def undone(op: Tape, x: Value) -> Replacement:
    """Neg(Neg(x)) -> x, and Not(Not(x)), BitwiseNot(BitwiseNot(x))."""
    return x


@rule(P.Add("x", P.Mul("y", -1.0) | P.Neg("y")))
def sum_with_negated(op: Tape, x: Value, y: Value) -> Replacement:
    """x + y * -1 -> x - y, and x + Neg(y)."""
    return op.Sub(x, y)


IDEMPOTENT = (P.Relu, P.Abs, P.Ceil, P.Floor, P.Round, P.Sign)


@rule(P.either(*(act(act(P.any).shared.named("once")) for act in IDEMPOTENT)))
def done_twice(op: Tape, once: Value) -> Replacement:
    """Relu(Relu(x)) -> Relu(x), and Abs, Ceil, Floor, Round, Sign."""
    return once


@rule(P.Reshape(P.Transpose("x", perm="perm").shared.named("turned"), "shape"))
def reshape_of_thin_transpose(
    op: Tape, x: Value, turned: Value, perm: tuple[int, ...], shape: tuple[int, ...]
) -> Replacement:
    """Reshape(Transpose(x, perm), s) -> Reshape(x, s), when perm moves axes of size 1 only."""
    order = [axis for axis in perm if dim(op, x, axis) != 1]
    target = _without_copies(op, shape, turned, x)
    if order != sorted(order) or target is None:
        return refuse("{} moves elements of {}", perm, x)
    return op.Reshape(x, op.const(target))


def _is_same_axis(one: int, other: int, value: Value) -> bool:
    found = normal([one], rank(value))
    return found is not None and found == normal([other], rank(value))


@rule(P.Concat(P.several("xs", some=P.Split), axis="axis"))
def concat_of_split(op: Tape, xs: tuple[Value, ...], axis: int) -> Replacement:
    """Concat(Split(x)) -> x, along the same axis."""
    split = xs[0].producer() if xs else None
    if split is None or split.op_type != "Split" or tuple(split.outputs) != xs:
        return refuse("its operands are not all parts of one Split, in order")
    whole = split.inputs[0]
    if whole is None or not _is_same_axis(axis, int_of(split, "axis", 0), xs[0]):
        return refuse("split along another axis than {}", axis)
    return whole


@rule(P.Concat(P.several("xs", some=P.Concat), axis="axis"))
def concat_of_concat(op: Tape, xs: tuple[Value, ...], axis: int) -> Replacement:
    """Concat(a, Concat(b, c), d) -> Concat(a, b, c, d), along the same axis."""
    flat: list[Value] = []
    for x in xs:
        inner = x.producer()
        same = inner is not None and inner.op_type == "Concat" and len(x.uses()) == 1
        if same and inner is not None and not x.is_graph_output():
            along = int_of(inner, "axis", 0)
            if _is_same_axis(axis, along, x):
                flat.extend(value for value in inner.inputs if value is not None)
                continue
        flat.append(x)
    if len(flat) == len(xs):
        return refuse("no operand is a Concat along axis {} used here alone", axis)
    return op.Concat(*flat, axis=axis)


CHAINS = (
    cast_of_cast
    + transpose_of_transpose
    + reshape_of_reshape
    + squeeze_of_unsqueeze
    + unsqueeze_of_squeeze
    + unsqueeze_of_unsqueeze
    + squeeze_of_squeeze
    + slice_of_slice
    + squeeze_of_slice
    + squeeze_of_split
    + undone
    + sum_with_negated
    + done_twice
    + reshape_of_thin_transpose
    + concat_of_split
    + concat_of_concat
)
