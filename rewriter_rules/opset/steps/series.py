"""Ranges, running products and loops over a series."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import function_body
from vlmpass.rewriter_rules.opset.build import normalized, scalar, vector
from vlmpass.rewriter_rules.opset.expand import inline
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dims,
    dtype,
    integer,
    integers,
    operand,
    optional_input,
    rank,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType


@adapter("Range", 27, 11)
def range_in_float(op: Tape, node: ir.Node) -> Outputs:
    """Range(a, b, d) -> Cast(Range(Cast(a), Cast(b), Cast(d))), of float16 and bfloat16."""
    kind = dtype(operand(node, 0))
    if kind not in (_D.FLOAT16, _D.BFLOAT16):
        return again(op, node, drop=("stash_type",)) if node.attributes else UNCHANGED
    stash = _D(integer(node, "stash_type", 1))
    if stash not in (_D.FLOAT, _D.DOUBLE):
        raise CannotConvert(
            f"its sums are rounded to {stash.name.lower()}, which came with opset 27"
        )
    inputs = [op.Cast(operand(node, index), to=stash) for index in range(3)]
    return op.Cast(op.Range(*inputs), to=kind)


@expansion("Range", 11, opset=11)
def counted_range(op: Tape, node: ir.Node) -> Outputs:
    """Range(a, b, d) -> its function body in ONNX, its count computed in double, not in float."""
    inputs = [operand(node, index) for index in range(3)]
    kind = dtype(inputs[0])
    if kind in (_D.INT16, _D.INT32):  # the difference of the ends may not fit
        return op.Cast(op.Range(*(op.Cast(each, to=_D.INT64) for each in inputs)), to=kind)
    body = function_body(node, 11, 11)
    assert body is not None
    for inner in body:
        if inner.op_type == "Cast" and inner.attributes["to"].as_int() == _D.FLOAT:
            inner.attributes["to"] = ir.AttrInt64("to", _D.DOUBLE)
    return inline(op, body, node)


@expansion("CumProd", 26)
def running_product(op: Tape, node: ir.Node) -> Outputs:
    """CumProd(x, a) -> Scan over axis a, each element times the product so far."""
    x, axis = operand(node, 0), operand(node, 1)
    if 0 in (dims(x) or ()):
        return op.Identity(x)
    shape = op.Shape(x)
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
    way = [integer(node, "reverse")]
    attributes = {
        "body": _product_body(op, x, bool(integer(node, "exclusive"))),
        "num_scan_inputs": 1,
        "scan_input_axes": [1],
        "scan_output_axes": [1],
        "scan_input_directions": way,
        "scan_output_directions": way,
    }
    _, products = op.node("Scan", [ones, block], attributes, outputs=2)
    products.type = x.type
    return op.Reshape(products, shape)


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
    count = integer(node, "num_scan_inputs")
    name = op.names.value
    rows: list[ir.Value] = []
    for value in inputs:
        assert value is not None
        sizes = dims(value)
        shape = None if sizes is None else ir.Shape(sizes[1:])
        rows.append(ir.Value(name=name(f"{op.hint}/row"), type=value.type, shape=shape))
    inner = Tape(op.names, op.opsets, f"{op.hint}/batch")
    way = integers(node, "directions")
    kept = {"body": node.attributes["body"], "num_scan_inputs": count}
    if way is not None:
        kept["scan_input_directions"] = way
    results = inner.node("Scan", rows, kept, outputs=len(node.outputs))
    for result, old in zip(results, node.outputs, strict=True):
        sizes = dims(old)
        result.type = old.type
        result.shape = None if sizes is None else ir.Shape(sizes[1:])
    body = ir.Graph(rows, results, nodes=inner.nodes, name=name(f"{op.hint}/body"))
    outer = {"body": body, "num_scan_inputs": len(rows)}
    return op.node("Scan", inputs, outer, outputs=len(node.outputs))


@adapter("Scan", 9, 8)
def batch_of_one(op: Tape, node: ir.Node) -> Outputs:
    """Scan(states, x) -> Squeeze(Scan(, Unsqueeze(states), Unsqueeze(x))), a batch of one."""
    count, states = integer(node, "num_scan_inputs"), len(node.inputs)
    states -= count
    if any(integers(node, "scan_output_directions") or ()):
        raise CannotConvert(
            "it prepends to its outputs, which came with opset 9", "choose opset 9 or higher"
        )
    axes = integers(node, "scan_input_axes") or (0,) * count
    inputs: list[ir.Value | None] = [None]
    for index in range(len(node.inputs)):
        x, axis = operand(node, index), 0 if index < states else axes[index - states]
        if axis:
            order = [axis, *(each for each in range(rank(x)) if each != axis)]
            x = op.Transpose(x, perm=order)
        inputs.append(op.Unsqueeze(x, axes=[0]))
    way = integers(node, "scan_input_directions")
    kept = {"body": node.attributes["body"], "num_scan_inputs": count, "directions": way}
    given = {name: value for name, value in kept.items() if value is not None}
    results = op.node("Scan", inputs, given, outputs=len(node.outputs))
    found = [op.Squeeze(result, axes=[0]) for result in results]
    for index, axis in enumerate(integers(node, "scan_output_axes") or ()):
        if axis:
            others = [*range(1, rank(node.outputs[states + index]))]
            order = [*others[:axis], 0, *others[axis:]]
            found[states + index] = op.Transpose(found[states + index], perm=order)
    return found


@adapter("Scan", 11, 9)
def scan_axes_from_the_front(op: Tape, node: ir.Node) -> Outputs:
    """Scan(x, scan_input_axes=a) -> Scan(x, scan_input_axes=a + r), where a < 0."""
    axes, out = integers(node, "scan_input_axes"), integers(node, "scan_output_axes")
    if min(out or (0,)) < 0:
        raise CannotConvert("its output axes count from the back, which came with opset 11")
    if axes is None or min(axes) >= 0:
        return UNCHANGED
    values = node.inputs[len(node.inputs) - len(axes) :]
    front = [
        normalized(axis, rank(value)) for axis, value in zip(axes, values, strict=True) if value
    ]
    return again(op, node, scan_input_axes=front)


@expansion("Round", 11)
def round_half_to_even(op: Tape, node: ir.Node) -> Outputs:
    """Round(x) -> Floor(x + 0.5), less 1 where that is odd and x lies in the middle."""
    x = operand(node, 0)
    kind = dtype(x)
    half, one = scalar(op, 0.5, kind), scalar(op, 1, kind)
    low = op.Floor(x)
    rest = op.Sub(x, low)
    odd = op.Sub(low, op.Mul(op.Floor(op.Mul(low, half)), scalar(op, 2, kind)))
    above = op.Or(
        op.Greater(rest, half),
        op.And(op.Not(op.Less(rest, half)), op.Greater(odd, half)),
    )
    return op.Where(above, op.Add(low, one), low)


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
    x = operand(node, 0)
    kind, zero = dtype(x), scalar(op, 0, dtype(x))
    above = op.Cast(op.Greater(x, zero), to=kind)
    found = op.Sub(above, op.Cast(op.Less(x, zero), to=kind))
    if not kind.is_floating_point():
        return found
    narrow = x if kind == _D.FLOAT else op.Cast(x, to=_D.FLOAT)  # runtimes have Atan of floats
    nothing = op.Mul(op.Atan(narrow), scalar(op, 0, _D.FLOAT))
    return op.Add(found, nothing if kind == _D.FLOAT else op.Cast(nothing, to=kind))
