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
from vlmpass.rewriter_rules.substitute.tokens import put_where

__all__ = ["ATEN_OPERATORS", "aten_operator", "is_left_behind"]

_D = ir.DataType
_FROM = 13


class _Arguments:
    """The arguments of a node by PyTorch's names.

    Args:
        node: The node.
        names: Those of its parameters, in order; the last may end with a star and takes the rest.
    """

    def __init__(self, node: ir.Node, names: Sequence[str]) -> None:
        self.node = node
        free = [name for name in names if name not in node.attributes]
        self._inputs = dict(zip(free, node.inputs, strict=False))
        self.rest = list(node.inputs[len(free) :])

    def value(self, name: str) -> ir.Value | None:
        """Return an argument that is an input, None where it is left out."""
        return self._inputs.get(name)

    def needed(self, name: str) -> ir.Value:
        """Return an argument that is an input."""
        value = self._inputs.get(name)
        if value is None:
            raise CannotConvert(f"its {name} is left out")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number that is known before."""
        given = self.node.attributes.get(name)
        if given is not None and not given.is_ref():
            return float(given.value)
        value = self._inputs.get(name)
        known = None if value is None else known_or_none(value)
        if value is not None and (known is None or known.size != 1):
            raise CannotConvert(f"its {name} is known at run time only")
        return default if known is None else float(known.reshape(-1)[0])


_Builder = Callable[[Tape, _Arguments], ir.Value]


def _resized(mode: str, **attributes: object) -> _Builder:
    """Return what builds a Resize that places and weighs as PyTorch does."""

    def build(op: Tape, given: _Arguments) -> ir.Value:
        x, size = given.needed("self"), given.value("output_size")
        corners = mode != "nearest" and bool(given.number("align_corners", 0))
        scales = scales_of(op, [value for value in given.rest if value is not None])
        if size is None and scales is None:
            raise CannotConvert("it has neither an output size nor scales")
        how = {"coordinate_transformation_mode": "half_pixel", **attributes}
        if corners:
            how["coordinate_transformation_mode"] = "align_corners"
        factors, whole = whole_sizes(op, x, size, scales)
        return op.Resize(x, None, factors, whole, mode=mode, **how)

    return build


def _place(op: Tape, line: ir.Value, x: ir.Value, right: bool) -> ir.Value:
    """Record how many numbers of a sorted line come before each of x; all do before NaN."""
    if dtype(line) != dtype(x):
        raise CannotConvert("its operands are of two types")
    each = op.Unsqueeze(x, vector(op, [-1]))
    later = op.Greater(line, each) if right else op.Not(op.Less(line, each))
    nan = dtype(x).is_floating_point()
    before = op.Not(op.And(later, op.Not(op.IsNaN(each)))) if nan else op.Not(later)
    return op.ReduceSum(op.Cast(before, to=_D.INT64), vector(op, [-1]), keepdims=0)


def _bucketize(op: Tape, given: _Arguments) -> ir.Value:
    right = bool(given.number("right", 0))
    found = _place(op, given.needed("boundaries"), given.needed("self"), right)
    return cast(op, found, _D.INT32) if given.number("out_int32", 0) else found


def _searchsorted(op: Tape, given: _Arguments) -> ir.Value:
    line = given.needed("sorted_sequence")
    sides = [given.value("side"), given.value("sorter"), given.node.attributes.get("side")]
    if rank(line) != 1 or any(each is not None for each in sides):
        raise CannotConvert("it is of several rows, or says a side or an order")
    found = _place(op, line, given.needed("self"), bool(given.number("right", 0)))
    return cast(op, found, _D.INT32) if given.number("out_int32", 0) else found


def _masked_scatter(op: Tape, given: _Arguments) -> ir.Value:
    x, mask, source = (given.needed(name) for name in ("self", "mask", "source"))
    if rank(mask) > rank(x):
        raise CannotConvert("its mask has more axes than what it is put into")
    both = op.Expand(cast(op, mask, _D.BOOL), op.Shape(x))
    whole = op.Expand(x, op.Shape(both))
    for value in (both, whole):
        value.shape = ir.Shape([None] * rank(x))
    return put_where(op, whole, both, flat(op, source), rank(x))


def _repeat_interleave(op: Tape, given: _Arguments) -> ir.Value:
    x, repeats = given.value("self"), given.value("repeats")
    alone = len([value for value in given.node.inputs if value is not None]) == 1
    if x is not None and alone and "repeats" not in given.node.attributes:
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


def _attention(op: Tape, given: _Arguments) -> ir.Value:
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


def _scale(op: Tape, given: _Arguments, q: ir.Value) -> ir.Value:
    kind = dtype(q)
    if given.value("scale") is not None or "scale" in given.node.attributes:
        return op.const(np.array(given.number("scale", 1), kind.numpy()), kind)
    size = (dims(q) or [None])[-1]
    if size is not None:
        return op.const(np.array(size**-0.5, kind.numpy()), kind)
    width = op.Cast(scalar_at(op, op.Shape(q), rank(q) - 1), to=kind)
    return op.Reciprocal(op.Sqrt(width))


def _index(op: Tape, given: _Arguments) -> ir.Value:
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


def _index_put(op: Tape, given: _Arguments) -> ir.Value:
    inside = "accumulate" in given.node.attributes
    last = given.rest[-1:] if inside else given.rest[-2:]
    indices = given.rest[: len(given.rest) - len(last)]
    x, values = given.needed("self"), last[0] if last else None
    sums = bool(given.node.attributes["accumulate"].value) if inside else _flag(last[1:])
    if values is None or not indices or None in indices:
        raise CannotConvert("it has no values, or axes that are not indexed between others")
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


def _flag(values: Sequence[ir.Value | None]) -> bool:
    if not values or values[0] is None:
        return False
    known = known_or_none(source_of(values[0]))
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


_NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_EXACT = {"nearest_mode": "round_prefer_ceil"}
_AT_CORNERS = ("self", "output_size", "align_corners")
_PLAIN = ("self", "output_size")
_SORTED = ("sorted_sequence", "self", "out_int32", "right", "side", "sorter")
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")

_BUILDERS: Mapping[str, tuple[Sequence[str], _Builder]] = {
    "upsample_linear1d": (_AT_CORNERS, _resized("linear")),
    "upsample_bilinear2d": (_AT_CORNERS, _resized("linear")),
    "upsample_trilinear3d": (_AT_CORNERS, _resized("linear")),
    "upsample_bicubic2d": (_AT_CORNERS, _resized("cubic", cubic_coeff_a=-0.75)),
    "upsample_nearest1d": (_PLAIN, _resized("nearest", **_NEAREST)),
    "upsample_nearest2d": (_PLAIN, _resized("nearest", **_NEAREST)),
    "upsample_nearest3d": (_PLAIN, _resized("nearest", **_NEAREST)),
    "_upsample_nearest_exact1d": (_PLAIN, _resized("nearest", **_EXACT)),
    "_upsample_nearest_exact2d": (_PLAIN, _resized("nearest", **_EXACT)),
    "_upsample_nearest_exact3d": (_PLAIN, _resized("nearest", **_EXACT)),
    "bucketize": (("self", "boundaries", "out_int32", "right"), _bucketize),
    "searchsorted": (_SORTED, _searchsorted),
    "masked_scatter": (("self", "mask", "source"), _masked_scatter),
    "repeat_interleave": (("self", "repeats", "dim", "output_size"), _repeat_interleave),
    "scaled_dot_product_attention": (_ATTENTION, _attention),
    "index": (("self",), _index),
    "index_put": (("self",), _index_put),
}
_NAMES = ("ATen", *_BUILDERS, *(f"{name}_" for name in _BUILDERS))
_SPELLINGS = tuple((domain, op) for domain in DOMAINS for op in _NAMES)


def _operator_of(node: ir.Node) -> str | None:
    """Return the operator of PyTorch that a foreign node is, if it is one of these."""
    if node.domain not in DOMAINS:
        return None
    given = node.attributes.get("operator") if node.op_type == "ATen" else None
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
        return build(op, _Arguments(node, names))
    except CannotConvert as error:
        return refuse("{}", error.reason)


ATEN_OPERATORS = RuleSet((aten_operator,))
