"""Ranges, running products and loops over a series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import function_body
from vlmpass.rewriter_rules.opset.build import cast, normalized, scalar, vector, without
from vlmpass.rewriter_rules.opset.expand import inline
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dims,
    dtype,
    integer,
    integers,
    operand,
    operands,
    optional_input,
    rank,
)
from vlmpass.rewriter_rules.opset.table import (
    HIGHER,
    UNCHANGED,
    CannotConvert,
    Outputs,
    adapter,
    expansion,
)

__all__: list[str] = []

_D = ir.DataType


@adapter("Range", 27, 11)
def range_in_float(op: Tape, node: ir.Node) -> Outputs:
    """Range(a, b, d) -> Cast(Range(Cast(a), Cast(b), Cast(d))), of float16 and bfloat16."""
    kind = dtype(operand(node, 0))
    if kind not in (_D.FLOAT16, _D.BFLOAT16):
        return without(op, node, "stash_type")
    stash = _D(integer(node, "stash_type", 1))
    if stash not in (_D.FLOAT, _D.DOUBLE):
        sums = stash.name.lower()
        raise CannotConvert(f"its sums are rounded to {sums}, which came with opset 27")
    return op.Cast(op.Range(*(op.Cast(each, to=stash) for each in operands(node, 3))), to=kind)


@expansion("Range", 11, opset=11)
def counted_range(op: Tape, node: ir.Node) -> Outputs:
    """Range(a, b, d) -> its function body in ONNX, its count computed in double, not in float."""
    inputs = operands(node, 3)
    kind = dtype(inputs[0])
    if any(each.shape is not None and len(each.shape) for each in inputs):
        raise CannotConvert("its operands are no scalars, as the standard has them")
    if kind in (_D.INT16, _D.INT32):  # the difference of the ends may not fit
        return op.Cast(op.Range(*(op.Cast(each, to=_D.INT64) for each in inputs)), to=kind)
    return inline(op, _counting_in_double(node), node)


def _counting_in_double(node: ir.Node) -> ir.Function:
    body = function_body(node, 11, 11)
    assert body is not None
    for inner in body:
        if inner.op_type == "Cast" and inner.attributes["to"].as_int() == _D.FLOAT:
            inner.attributes["to"] = ir.AttrInt64("to", _D.DOUBLE)
    return body


@expansion("CumProd", 26)
def running_product(op: Tape, node: ir.Node) -> Outputs:
    """CumProd(x, a) -> Scan over axis a, each element times the product so far."""
    x, axis = operands(node, 2)
    if 0 in (dims(x) or ()):
        return op.Identity(x)
    shape = op.Shape(x)
    inputs = _ones_and_block(op, x, shape, axis)
    _, products = op.node("Scan", inputs, _product_along_axis(op, node, x), outputs=2)
    products.type = x.type
    return op.Reshape(products, shape)


def _ones_and_block(op: Tape, x: ir.Value, shape: ir.Value, axis: ir.Value) -> list[ir.Value]:
    """Record x with the axes before and after one made one each, and ones for a slice of that."""
    at = op.Reshape(op.Cast(axis, to=_D.INT64), vector(op, [1]))
    place = op.Mod(at, vector(op, [rank(x)]))
    zero, end = vector(op, [0]), vector(op, [2**31 - 1])
    after = op.Add(place, vector(op, [1]))
    lead = op.ReduceProd(op.Slice(shape, zero, place, zero), zero, keepdims=1)
    tail = op.ReduceProd(op.Slice(shape, after, end, zero), zero, keepdims=1)
    middle = op.Gather(shape, place, axis=0)
    block = op.Reshape(x, op.Concat(lead, middle, tail, axis=0))
    block.shape = ir.Shape([None, None, None])
    ones = op.Expand(scalar(op, 1, dtype(x)), op.Concat(lead, tail, axis=0))
    ones.shape = ir.Shape([None, None])
    return [ones, block]


def _product_along_axis(op: Tape, node: ir.Node, x: ir.Value) -> dict[str, object]:
    """Return the attributes of the Scan over the middle one of three axes."""
    way = [integer(node, "reverse")]
    return {
        "body": _product_body(op, x, bool(integer(node, "exclusive"))),
        "num_scan_inputs": 1,
        "scan_input_axes": [1],
        "scan_output_axes": [1],
        "scan_input_directions": way,
        "scan_output_directions": way,
    }


def _product_body(op: Tape, x: ir.Value, exclusive: bool) -> ir.Graph:
    """Return the body of the Scan: product, element -> product, output."""
    name = op.names.value
    product, element = (
        ir.Value(name=name(f"{op.hint}/{each}"), type=x.type, shape=ir.Shape([None, None]))
        for each in ("product", "element")
    )
    inner = Tape(op.names, op.opsets, f"{op.hint}/turn")
    following = inner.Mul(product, element)
    shown = inner.Identity(product if exclusive else following)
    for value in (following, shown):
        value.type, value.shape = x.type, ir.Shape([None, None])
    return ir.Graph(
        [product, element], [following, shown], nodes=inner.nodes, name=name(f"{op.hint}/body")
    )


@adapter("Scan", 8, 9, asks=True)
def batch_by_batch(op: Tape, node: ir.Node) -> Outputs:
    """Scan(states, x) over a batch -> Scan over the batch of Scan(states, x)."""
    if optional_input(node, 0) is not None:
        raise CannotConvert("its sequence lengths left with opset 9", "choose opset 8")
    inputs = node.inputs[1:]
    outer = {"body": _batch_body(op, node), "num_scan_inputs": len(inputs)}
    return op.node("Scan", inputs, outer, outputs=len(node.outputs))


def _batch_body(op: Tape, node: ir.Node) -> ir.Graph:
    """Return the Scan of one row of the batch as a body."""
    name = op.names.value
    rows = [
        ir.Value(name=name(f"{op.hint}/row"), type=value.type, shape=_row(value))
        for value in node.inputs[1:]
        if value is not None
    ]
    inner = Tape(op.names, op.opsets, f"{op.hint}/batch")
    kept = {
        "body": node.attributes["body"],
        "num_scan_inputs": integer(node, "num_scan_inputs"),
        "scan_input_directions": integers(node, "directions"),
    }
    results = inner.node("Scan", rows, kept, outputs=len(node.outputs))
    for result, old in zip(results, node.outputs, strict=True):
        result.type, result.shape = old.type, _row(old)
    return ir.Graph(rows, results, nodes=inner.nodes, name=name(f"{op.hint}/body"))


def _row(value: ir.Value) -> ir.Shape | None:
    """Return the shape of one row of a batch."""
    sizes = dims(value)
    return None if sizes is None else ir.Shape(sizes[1:])


@adapter("Scan", 9, 8)
def batch_of_one(op: Tape, node: ir.Node) -> Outputs:
    """Scan(states, x) -> Squeeze(Scan(, Unsqueeze(states), Unsqueeze(x))), a batch of one."""
    if any(integers(node, "scan_output_directions") or ()):
        raise CannotConvert("it prepends to its outputs, which came with opset 9", HIGHER)
    inputs, way = _in_a_batch(op, node), integers(node, "scan_input_directions")
    count = integer(node, "num_scan_inputs")
    given = {"body": node.attributes["body"], "num_scan_inputs": count, "directions": way}
    results = op.node("Scan", [None, *inputs], given, outputs=len(node.outputs))
    return _out_of_the_batch(op, node, results)


def _in_a_batch(op: Tape, node: ir.Node) -> list[ir.Value]:
    """Record the inputs of a Scan as a batch of one, what it goes along as their first axis."""
    count = integer(node, "num_scan_inputs")
    states = len(node.inputs) - count
    axes = [0] * states + [*(integers(node, "scan_input_axes") or (0,) * count)]
    inputs = []
    for index, axis in enumerate(axes):
        x = operand(node, index)
        if axis:
            order = [axis, *(each for each in range(rank(x)) if each != axis)]
            x = op.Transpose(x, perm=order)
        inputs.append(op.Unsqueeze(x, axes=[0]))
    return inputs


def _out_of_the_batch(op: Tape, node: ir.Node, results: Sequence[ir.Value]) -> list[ir.Value]:
    """Record the outputs of a Scan over a batch of one, each along the axis that is asked for."""
    states = len(node.inputs) - integer(node, "num_scan_inputs")
    found = [op.Squeeze(result, axes=[0]) for result in results]
    for index, axis in enumerate(integers(node, "scan_output_axes") or ()):
        if axis:
            others = [*range(1, rank(node.outputs[states + index]))]
            order = [*others[:axis], 0, *others[axis:]]
            found[states + index] = op.Transpose(found[states + index], perm=order)
    return found


@adapter("Loop", 11, 1)
def carries_something(op: Tape, node: ir.Node) -> Outputs:
    """Loop(n, c, v) stays, where it carries a value v."""
    if len(node.inputs) < 3:
        raise CannotConvert("it carries no value, which came with opset 11", HIGHER)
    return UNCHANGED


@adapter("Scan", 11, 9)
def scan_axes_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Scan(x, scan_input_axes=a) -> Scan(x, scan_input_axes=a + r), where a < 0."""
    axes, out = integers(node, "scan_input_axes"), integers(node, "scan_output_axes")
    if min(out or (0,)) < 0:
        raise CannotConvert("its output axes count from the back, which came with opset 11")
    if axes is None or min(axes) >= 0:
        return UNCHANGED
    pairs = zip(axes, node.inputs[-len(axes) :], strict=True)
    front = [normalized(axis, rank(value)) for axis, value in pairs if value]
    return again(op, node, scan_input_axes=front)


@expansion("Round", 11)
def round_half_to_even(op: Tape, node: ir.Node) -> Outputs:
    """Round(x) -> Floor(x + 0.5), less 1 where that is odd and x lies in the middle."""
    x, kind = operand(node, 0), dtype(operand(node, 0))
    half, one = scalar(op, 0.5, kind), scalar(op, 1, kind)
    low = op.Floor(x)
    rest = op.Sub(x, low)
    odd = op.Sub(low, op.Mul(op.Floor(op.Mul(low, half)), scalar(op, 2, kind)))
    above = op.Greater(rest, half)
    tie = op.And(op.Not(op.Less(rest, half)), op.Greater(odd, half))
    return op.Where(op.Or(above, tie), op.Add(low, one), low)


@expansion("IsInf", 10)
def beyond_the_largest(op: Tape, node: ir.Node) -> Outputs:
    """IsInf(x) -> x beyond the largest finite value."""
    x = operand(node, 0)
    largest = scalar(op, float(np.finfo(dtype(x).numpy()).max), dtype(x))
    above, below = op.Greater(x, largest), op.Less(x, op.Neg(largest))
    if not integer(node, "detect_negative", 1):
        return above
    return op.Or(above, below) if integer(node, "detect_positive", 1) else below


@expansion("ConstantOfShape", 9)
def expanded(op: Tape, node: ir.Node) -> Outputs:
    """ConstantOfShape(s, value=v) -> Expand(v, s)."""
    given = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
    return op.Expand(op.const(fill.reshape([])), node.inputs[0])


@expansion("Sign", 9)
def sign(op: Tape, node: ir.Node) -> Outputs:
    """Sign(x) -> Cast(x > 0) - Cast(x < 0), and NaN of NaN, which Atan(x) * 0 is."""
    x, kind = operand(node, 0), dtype(operand(node, 0))
    zero = scalar(op, 0, kind)
    found = op.Sub(op.Cast(op.Greater(x, zero), to=kind), op.Cast(op.Less(x, zero), to=kind))
    if not kind.is_floating_point():
        return found
    narrow = cast(op, x, _D.FLOAT)  # runtimes have Atan of floats
    nothing = op.Mul(op.Atan(narrow), scalar(op, 0, _D.FLOAT))
    return op.Add(found, cast(op, nothing, kind))
