"""Other operators of PyTorch that an exporter left as nodes of a foreign domain.

Spelled as ``org.pytorch.aten::ATen(operator="upsample_bilinear2d")``, or as ``aten::bucketize``
that a custom registration made. Arguments are those of PyTorch, as inputs in its order or as
attributes by name; tensors of a list (`index`, `index_put`) are inputs one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import source_of
from vlmpass.ir_tools.rewrite import Replacement, RuleSet, Tape, refuse, rule
from vlmpass.ir_tools.rewrite.pattern import Op, as_pattern
from vlmpass.rewriter_rules.opset.build import (
    arange,
    cast,
    exchanged,
    flat,
    part,
    scalar_at,
    vector,
)
from vlmpass.rewriter_rules.opset.queries import dims, dtype, known_or_none, rank
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.substitute.aten import DOMAINS, kernel_of, scales_of, whole_sizes
from vlmpass.rewriter_rules.substitute.aten_arguments import Arguments
from vlmpass.rewriter_rules.substitute.aten_nearest import nearest
from vlmpass.rewriter_rules.substitute.tokens import put_where

__all__ = ["ATEN_OPERATORS", "aten_operator", "is_left_behind"]

_D = ir.DataType
_FROM = 13


_Builder = Callable[[Tape, Arguments], ir.Value]


def _resized(count: int, mode: str, **attributes: object) -> _Builder:
    """Return what builds a Resize that places and weighs as PyTorch does."""

    def build(op: Tape, given: Arguments) -> ir.Value:
        x, size, held = _operands(given, count)
        if dtype(x).is_integer():
            raise CannotConvert("PyTorch rounds the weights of an integer image in its own way")
        corners = bool(given.number("align_corners", 0))
        if size is not None and corners:
            held = []  # PyTorch reads none
        elif size is not None and held:
            _agree(x, size, held)
        how = {"coordinate_transformation_mode": "half_pixel", **attributes}
        if corners:
            how["coordinate_transformation_mode"] = "align_corners"
        factors, whole = whole_sizes(op, x, size, scales_of(op, held))
        return op.Resize(x, None, factors, whole, mode=mode, **how)

    return build


def _nearest(count: int, exact: bool = False) -> _Builder:
    """Return what builds the Gathers of PyTorch's nearest neighbours."""

    def build(op: Tape, given: Arguments) -> ir.Value:
        return nearest(op, *_operands(given, count), count, exact)

    return build


def _operands(given: Arguments, count: int) -> tuple[ir.Value, ir.Value | None, list[ir.Value]]:
    """Return the image, its new size and the scales of a resize."""
    size, held = given.value("output_size"), given.scales(count)
    if "output_size" in given.node.attributes:
        raise CannotConvert("its output_size is given as an attribute")
    if size is None and not held:
        raise CannotConvert("it has neither an output size nor scales")
    return given.needed("self"), size, held


def _agree(x: ir.Value, size: ir.Value, scales: Sequence[ir.Value]) -> None:
    """Refuse a size that is not, or may not be, what a Resize makes of the scales beside it."""
    fixed = [known_or_none(value) for value in scales]
    factors = [array.reshape(-1) for array in fixed if array is not None]
    wanted, before = known_or_none(size), (dims(x) or [None])[2:]
    if wanted is None or len(factors) < len(scales) or not before or None in before:
        raise CannotConvert("whether its size and its scales agree is known at run time only")
    given = np.array(before, np.float32) * np.concatenate(factors).astype(np.float32)
    if not np.array_equal(given.astype(np.int64), wanted.reshape(-1)):
        raise CannotConvert("its size is not what its scales make, and Resize takes one of them")


def _place(op: Tape, line: ir.Value, x: ir.Value, right: bool) -> ir.Value:
    """Record how many numbers of a sorted line come before each of x; all do before NaN."""
    if dtype(line) != dtype(x):
        raise CannotConvert("its operands are of two types")
    each = op.Unsqueeze(x, vector(op, [-1]))
    later = op.Greater(line, each) if right else op.Not(op.Less(line, each))
    nan = dtype(x).is_floating_point()
    before = op.Not(op.And(later, op.Not(op.IsNaN(each)))) if nan else op.Not(later)
    return op.ReduceSum(op.Cast(before, to=_D.INT64), vector(op, [-1]), keepdims=0)


def _bucketize(op: Tape, given: Arguments) -> ir.Value:
    right = bool(given.number("right", 0))
    found = _place(op, given.needed("boundaries"), given.needed("self"), right)
    return cast(op, found, _D.INT32) if given.number("out_int32", 0) else found


def _searchsorted(op: Tape, given: Arguments) -> ir.Value:
    line = given.needed("sorted_sequence")
    sides = [given.value("side"), given.value("sorter"), given.node.attributes.get("side")]
    if rank(line) != 1 or any(each is not None for each in sides):
        raise CannotConvert("it is of several rows, or says a side or an order")
    found = _place(op, line, given.needed("self"), bool(given.number("right", 0)))
    return cast(op, found, _D.INT32) if given.number("out_int32", 0) else found


def _masked_scatter(op: Tape, given: Arguments) -> ir.Value:
    x, mask, source = (given.needed(name) for name in ("self", "mask", "source"))
    if rank(mask) > rank(x):
        raise CannotConvert("its mask has more axes than what it is put into")
    both = op.Expand(cast(op, mask, _D.BOOL), op.Shape(x))
    whole = op.Expand(x, op.Shape(both))
    for value in (both, whole):
        value.shape = ir.Shape([None] * rank(x))
    return put_where(op, whole, both, flat(op, source), rank(x))


def _repeat_interleave(op: Tape, given: Arguments) -> ir.Value:
    x, repeats = given.value("self"), given.value("repeats")
    if x is not None and _is_repeats(given):
        x, repeats = None, x  # how often each place is meant
        count = op.Squeeze(op.Shape(repeats), vector(op, [0]))
    else:
        x = given.needed("self")
        whole = given.value("dim") is None and "dim" not in given.node.attributes
        axis = 0 if whole else int(given.number("dim", 0))
        count = op.Size(x) if whole else scalar_at(op, op.Shape(x), axis % rank(x))
        x = flat(op, x) if whole else x
    if repeats is None:
        repeats = op.const(int(given.number("repeats", 1)))
    each = op.Expand(cast(op, repeats, _D.INT64), op.Unsqueeze(count, vector(op, [0])))
    ends = op.CumSum(each, op.const(0))
    total = op.ReduceSum(each, vector(op, [0]), keepdims=0)
    places = op.Unsqueeze(arange(op, total), vector(op, [1]))
    passed = op.Cast(op.Not(op.Less(places, ends)), to=_D.INT64)
    index = op.ReduceSum(passed, vector(op, [1]), keepdims=0)
    return index if x is None else op.Gather(x, index, axis=axis)


def _is_repeats(given: Arguments) -> bool:
    """Whether the first input says how often, and a second one would be the sum of that."""
    inputs = [value for value in given.node.inputs if value is not None]
    if given.overload:
        return given.overload == "Tensor"
    if {"repeats", "dim"} & set(given.node.attributes):
        return False
    if len(inputs) != 2:
        return len(inputs) == 1
    ints = dtype(inputs[0]) in (_D.INT64, _D.INT32) and rank(inputs[0]) == 1
    if ints and (rank(inputs[1]) == 0 or dims(inputs[1]) == [1]):
        raise CannotConvert(
            "which overload it is, of (self, repeats) and (repeats, sum), is unsaid"
        )
    return False


def _attention(op: Tape, given: Arguments) -> ir.Value:
    q, k, v = (given.needed(name) for name in ("query", "key", "value"))
    if given.number("dropout_p", 0) or given.number("enable_gqa", 0):
        raise CannotConvert("it drops at random, or shares heads of keys")
    mask, kind = given.value("attn_mask"), dtype(q)
    turned = op.Transpose(k, perm=exchanged(rank(k), -2, -1))
    scores = op.Mul(op.MatMul(q, turned), _scale(op, given, q))
    if given.number("is_causal", 0):
        rows, columns = (scalar_at(op, op.Shape(scores), rank(q) - axis) for axis in (2, 1))
        mask = op.Not(op.Less(op.Unsqueeze(arange(op, rows), vector(op, [1])), arange(op, columns)))
    if mask is None:
        return op.MatMul(op.Softmax(scores, axis=-1), v)
    least = op.const(np.array(-np.inf, kind.numpy()), kind)
    seen = op.Where(mask, scores, least) if dtype(mask) == _D.BOOL else op.Add(scores, mask)
    nothing = op.Equal(op.ReduceMax(seen, axes=[-1], keepdims=1), least)
    zero = op.const(np.array(0, kind.numpy()), kind)
    return op.MatMul(op.Where(nothing, zero, op.Softmax(seen, axis=-1)), v)


def _scale(op: Tape, given: Arguments, q: ir.Value) -> ir.Value:
    kind = dtype(q)
    if given.value("scale") is not None or "scale" in given.node.attributes:
        return op.const(np.array(given.number("scale", 1), kind.numpy()), kind)
    size = (dims(q) or [None])[-1]
    if size is not None:
        return op.const(np.array(size**-0.5, kind.numpy()), kind)
    width = op.Cast(scalar_at(op, op.Shape(q), rank(q) - 1), to=kind)
    return op.Reciprocal(op.Sqrt(width))


def _index(op: Tape, given: Arguments) -> ir.Value:
    x, indices = given.needed("self"), given.rest
    held = [value for value in indices if value is not None]
    if any(dtype(value) not in (_D.INT64, _D.INT32) for value in held):
        raise CannotConvert("it takes where a mask is set, and how many that is decides its shape")
    if len(held) == 1:
        return op.Gather(x, held[0], axis=indices.index(held[0]))
    if not held or len(held) < len(indices):
        raise CannotConvert("axes that are not indexed lie between others")
    return op.GatherND(x, _joined(op, held))


def _joined(op: Tape, indices: Sequence[ir.Value]) -> ir.Value:
    """Record one tensor of places from an index for each of the first axes."""
    wide = [cast(op, value, _D.INT64) for value in indices]
    common = wide[0]
    for value in wide[1:]:
        common = op.Add(common, op.Mul(value, op.const(0)))
    whole = [op.Expand(value, op.Shape(common)) for value in wide]
    return op.Concat(*(op.Unsqueeze(value, vector(op, [-1])) for value in whole), axis=-1)


def _index_put(op: Tape, given: Arguments) -> ir.Value:
    x, rest = given.needed("self"), list(given.rest)
    sums = bool(given.number("accumulate", 0))
    if "accumulate" not in given.node.attributes and rest and _is_flag(rest[-1]):
        sums = _flag(rest.pop())
    *indices, values = rest or [None]
    if values is None or not indices or None in indices:
        raise CannotConvert("it has no values, or axes that are not indexed between others")
    if dtype(values) != dtype(x):
        raise CannotConvert("its values are of another type")
    held = [value for value in indices if value is not None]
    if len(held) == 1 and dtype(held[0]) == _D.BOOL:
        return _put_at_mask(op, x, held[0], values, sums)
    if any(dtype(value) not in (_D.INT64, _D.INT32) for value in held):
        raise CannotConvert("masks are mixed with indices")
    if sums and op.opsets[""] < 16:
        raise CannotConvert("sums at places need opset 16 or later")
    places = _joined(op, held)
    rows = part(op, op.Shape(places), 0, -1)
    sizes = op.Concat(rows, part(op, op.Shape(x), len(held), 2**31 - 1), axis=0)
    how = {"reduction": "add"} if sums else {}
    return op.ScatterND(x, places, op.Expand(values, sizes), **how)


def _is_flag(value: ir.Value | None) -> bool:
    return value is None or (dtype(value) == _D.BOOL and rank(value) == 0)


def _flag(value: ir.Value | None) -> bool:
    if value is None:
        return False
    known = known_or_none(source_of(value))
    if known is None:
        raise CannotConvert("its accumulate is known at run time only")
    return bool(known.reshape(-1)[0])


def _put_at_mask(op: Tape, x: ir.Value, mask: ir.Value, values: ir.Value, sums: bool) -> ir.Value:
    trailing = rank(x) - rank(mask)
    sizes = dims(values)
    if sizes is not None and all(size == 1 for size in sizes):
        set_ = op.Unsqueeze(mask, vector(op, range(-trailing, 0))) if trailing else mask
        number = op.Reshape(values, vector(op, []))
        return op.Where(set_, op.Add(x, number) if sums else number, x)
    if sums or rank(values) != trailing + 1 or (sizes is None or sizes[0] == 1):
        raise CannotConvert("how its values are spread over the mask is not known")
    return put_where(op, x, mask, values, rank(mask))


_AT_CORNERS = ("self", "output_size", "align_corners")
_PLAIN = ("self", "output_size")
_SORTED = ("sorted_sequence", "self", "out_int32", "right", "side", "sorter")
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")

_BUILDERS: Mapping[str, tuple[Sequence[str], _Builder]] = {
    "upsample_linear1d": (_AT_CORNERS, _resized(1, "linear")),
    "upsample_bilinear2d": (_AT_CORNERS, _resized(2, "linear")),
    "upsample_trilinear3d": (_AT_CORNERS, _resized(3, "linear")),
    "upsample_bicubic2d": (_AT_CORNERS, _resized(2, "cubic", cubic_coeff_a=-0.75)),
    "upsample_nearest1d": (_PLAIN, _nearest(1)),
    "upsample_nearest2d": (_PLAIN, _nearest(2)),
    "upsample_nearest3d": (_PLAIN, _nearest(3)),
    "_upsample_nearest_exact1d": (_PLAIN, _nearest(1, exact=True)),
    "_upsample_nearest_exact2d": (_PLAIN, _nearest(2, exact=True)),
    "_upsample_nearest_exact3d": (_PLAIN, _nearest(3, exact=True)),
    "bucketize": (("self", "boundaries", "out_int32", "right"), _bucketize),
    "searchsorted": (_SORTED, _searchsorted),
    "masked_scatter": (("self", "mask", "source"), _masked_scatter),
    "repeat_interleave": (("self", "repeats", "dim", "output_size"), _repeat_interleave),
    "scaled_dot_product_attention": (_ATTENTION, _attention),
    "index": (("self",), _index),
    "index_put": (("self", "accumulate="), _index_put),
}
_NAMES = ("ATen", *_BUILDERS, *(f"{name}_" for name in _BUILDERS))
_SPELLINGS = tuple((domain, op) for domain in DOMAINS for op in _NAMES)


def _operator_of(node: ir.Node) -> str | None:
    """Return the operator of PyTorch that a foreign node is, if it is one of these."""
    if node.domain not in DOMAINS:
        return None
    given = node.attributes.get("operator") if node.op_type == "ATen" else None
    if given is not None and given.is_ref():
        return None
    name = node.op_type if given is None else given.as_string()
    name = name.partition(".")[0].removesuffix("_") if name != "ATen" else name
    return name if name in _BUILDERS else None


def is_left_behind(node: ir.Node) -> bool:
    """Whether a node is one of PyTorch's operators that something stands for."""
    return kernel_of(node) is not None or _operator_of(node) is not None


unlisted = rule
"""Makes a rule that is the pass's own: nobody asks for it by name, and no runtime compares it."""


@unlisted(Op(_SPELLINGS, (as_pattern("x"), as_pattern("rest*")), node="node"))
def aten_operator(
    op: Tape, x: ir.Value, rest: tuple[ir.Value | None, ...], node: ir.Node
) -> Replacement:
    """aten::upsample_*, bucketize, masked_scatter, index_put and others -> what they mean."""
    name = _operator_of(node)
    if name is None:
        return refuse("{} is another operator", node)
    opset = op.opsets.get("", 1)
    if opset < _FROM:
        return refuse("opset {} is below 13; convert to 13 or later first", opset)
    names, build = _BUILDERS[name]
    try:
        return build(op, Arguments(node, names))
    except CannotConvert as error:
        return refuse("{}", error.reason)


ATEN_OPERATORS = RuleSet((aten_operator,))
