"""Rules that say one operator of ONNX Runtime's own in others, written as opset adapters are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.rewrite import P, Replacement, Rule, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.opset.queries import operand, optional_input
from vlmpass.rewriter_rules.opset.steps import norm
from vlmpass.rewriter_rules.opset.table import Adapter, CannotConvert

__all__ = ["FLOATS", "floats", "lacks", "layer_norm", "spelled", "unfused", "why_it_stays"]

_OLDEST = 13
"""The opset from which Softmax, Unsqueeze and quantisation are as what is built takes them."""
_LAYER_NORM = 17
"""The opset from which the standard has LayerNormalization."""

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def spelled(build: Adapter, op: Tape, node: ir.Node) -> Replacement:
    """Build a node as an opset adapter does; what the adapter refuses, the rule refuses.

    Args:
        build: The adapter.
        op: The tape.
        node: The node.
    """
    try:
        result = build(op, node)
    except CannotConvert as error:
        return refuse("{}", error.reason)
    outputs = [result] if isinstance(result, ir.Value) else list(result)
    return [*outputs, *[None] * (len(node.outputs) - len(outputs))][: len(node.outputs)]


def unfused(
    operator: str, *, outputs: int = 1, opset: tuple[int, int | None] = (_OLDEST, None)
) -> Callable[[Adapter], Rule]:
    """Make a function a rule for one of ONNX Runtime's operators, whatever it is given.

    Args:
        operator: The operator.
        outputs: How many outputs it has at most.
        opset: Lowest and highest opset of the default domain at which it can be said.
    """

    def define(build: Adapter) -> Rule:
        @wraps(build)
        def function(op: Tape, node: ir.Node) -> Replacement:
            lacking = _lacking(node)
            if lacking:
                return refuse("its input {} is missing", lacking)
            return spelled(build, op, node)

        function.__annotations__ = {"op": Tape, "node": ir.Node, "return": Replacement}
        pattern = getattr(P, operator)(..., _domain=ORT, _outputs=outputs, _node="node")
        made = rule(pattern, opset=opset)(function)
        code = build.__code__
        return replace(made, file=code.co_filename, line=code.co_firstlineno)

    return define


def _lacking(node: ir.Node) -> str:
    """Return the first input that an operator must have and a node has not; nothing checks it."""
    known = in_force(node.domain, node.op_type, 1)
    formals = () if known is None else known.inputs
    needed = ((at, each) for at, each in enumerate(formals) if not each.optional | each.variadic)
    return next((each.name for at, each in needed if optional_input(node, at) is None), "")


def layer_norm(
    op: Tape, x: ir.Value, scale: ir.Value, bias: ir.Value | None, epsilon: object
) -> ir.Value:
    """Record a LayerNormalization of the last axis, or what spells it where the opset lacks it.

    Args:
        op: The tape.
        x: What is normalised.
        scale: What it is multiplied by then.
        bias: What is added then.
        epsilon: What is added to the variance: a number, or an attribute.
    """
    made = op.LayerNormalization(x, scale, bias, axis=-1, epsilon=epsilon)
    node = made.producer()
    if op.opsets[""] >= _LAYER_NORM or node is None:
        return made
    op.nodes.remove(node)
    found = norm.layer_normalization(op, node)
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    assert not isinstance(found, ir.Value)
    assert found[0] is not None
    return found[0]


def floats(node: ir.Node, *indices: int) -> ir.DataType:
    """Return the float type of some inputs, all of one; the first where none are named.

    Args:
        node: The node.
        indices: Which inputs, of which those that are absent do not count.

    Raises:
        CannotConvert: They are not, or it is not known.
    """
    given = [optional_input(node, index) for index in indices] if indices else [operand(node, 0)]
    kinds = {value.dtype for value in given if value is not None}
    if len(kinds) != 1 or (kind := kinds.pop()) not in FLOATS:
        raise CannotConvert("the types of its inputs are not known to be one of floats")
    assert kind is not None
    return kind


def lacks(node: ir.Node, index: int, what: str) -> None:
    """Make sure that an input is left out.

    Args:
        node: The node.
        index: Which input.
        what: What is said where it is given.

    Raises:
        CannotConvert: It is given.
    """
    if optional_input(node, index) is not None:
        raise CannotConvert(what)


_REASONS = {
    "SparseAttention": "the keys that it looks at are told by rows of a compressed block matrix",
    "LongformerAttention": "its windows lie around each token, beside tokens that all look at",
}


def why_it_stays(operator: str) -> str:
    """Return why no rule says an operator in others."""
    return _REASONS.get(operator, "no rule says it in other operators")
