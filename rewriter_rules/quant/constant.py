"""Constant subgraphs as lazy tensors: what the nodes compute, without running them.

Small values are computed at once; large ones become expressions over the stored weights, so that
an unpacked weight never exists in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array, can_evaluate, evaluate
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of, refers
from vlmpass.ir_tools.graph.walk import operands_first
from vlmpass.ir_tools.weights import as_weight, expressions
from vlmpass.ir_tools.weights.boxes import full
from vlmpass.ir_tools.weights.leaves import Expression, Held
from vlmpass.rewriter_rules.quant.expressions import Elementwise, Merged, Rows, Step

__all__ = ["Constants", "broadcast", "minus", "reshaped"]

_SMALL = 1 << 14
_ELEMENTWISE = frozenset({
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "Cast", "CastLike", "Div", "Equal",
    "Expand", "Floor", "Less", "Mod", "Mul", "Not", "Or", "Sub", "Where", "Xor",
})  # fmt: skip
"""What unpacks numbers, and is computed exactly on any part of a weight."""


class Constants:
    """What values are, where that follows from constants alone.

    Args:
        opsets: Imported opset version by domain.
        given: What is known of values from outside, such as a function's inputs.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        given: Callable[[ir.Value], Expression | None] = lambda value: None,
    ) -> None:
        self._opsets = opsets
        self._given = given
        self._found: dict[ir.Value, Expression | None] = {}

    def express(self, value: ir.Value | None) -> Expression | None:
        """Return a value as a lazy tensor; None if it varies or is beyond what can be said."""
        if value is None:
            return None
        for each in operands_first(value, self._needs, self._found):
            self._found[each] = self._express(each)
        return self._found[value]

    def small(self, value: ir.Value | None) -> Array | None:
        """Return a value as an array if it is constant and small."""
        found = self.express(value)
        return found.read(full(found.shape)) if found is not None and found.size <= _SMALL else None

    def _needs(self, value: ir.Value) -> list[ir.Value]:
        node = value.producer()
        if node is None or constant_of(value) is not None or node.domain:
            return []
        return [each for each in node.inputs if each is not None]

    def _express(self, value: ir.Value) -> Expression | None:
        tensor = constant_of(value)
        if tensor is not None:
            return None if tensor.dtype == ir.DataType.STRING else as_weight(tensor).expression
        node = value.producer()
        if node is None:
            return self._given(value)
        if node.domain or len(node.outputs) != 1:
            return None
        inputs = [self._found[each] if each is not None else None for each in node.inputs]
        if not inputs or any(each is None for each in inputs):
            return None
        given = [each for each in inputs if each is not None]
        if all(each.size <= _SMALL for each in given):
            small = self._compute(node, given)
            if small is not None:
                return small
        return self._lazily(node, given)

    def _compute(self, node: ir.Node, inputs: Sequence[Expression]) -> Expression | None:
        if not can_evaluate(node):
            return None
        arrays = [each.read(full(each.shape)) for each in inputs]
        found = evaluate(node, arrays, self._opsets)
        if found is None or found[0].size > _SMALL:
            return None
        return Held.of(ir.Tensor(np.asarray(found[0], order="C")))

    def _lazily(self, node: ir.Node, inputs: Sequence[Expression]) -> Expression | None:
        data = inputs[0]
        if refers(node):
            return None
        if node.op_type in _ELEMENTWISE:
            return self._elementwise(node, inputs)
        if node.op_type == "Identity":
            return data
        if node.op_type == "Transpose":
            default = tuple(reversed(range(len(data.shape))))
            return expressions.transposed(data, tuple(ints_of(node, "perm", default)))
        if node.op_type in ("Reshape", "Unsqueeze", "Squeeze"):
            return self._reshaped(node, inputs)
        if node.op_type in ("Gather", "GatherND"):
            return _rows(node, inputs)
        return None

    def _reshaped(self, node: ir.Node, inputs: Sequence[Expression]) -> Expression | None:
        data = inputs[0]
        if len(inputs) > 1:
            wanted = [int(n) for n in inputs[1].read(full(inputs[1].shape)).reshape(-1)]
        else:
            wanted = list(ints_of(node, "axes", ()))
        if node.op_type == "Reshape":
            sizes = [data.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
            known = math.prod(n for n in sizes if n != -1)
            shape = tuple(data.size // known if n == -1 else n for n in sizes)
            return reshaped(data, shape) if math.prod(shape) == data.size else None
        rank = len(data.shape) + (len(wanted) if node.op_type == "Unsqueeze" else 0)
        axes = {axis % rank for axis in wanted}
        if node.op_type == "Squeeze":
            axes = axes or {i for i, size in enumerate(data.shape) if size == 1}
            shape = tuple(size for i, size in enumerate(data.shape) if i not in axes)
        else:
            sizes_left = iter(data.shape)
            shape = tuple(1 if i in axes else next(sizes_left) for i in range(rank))
        return expressions.reshaped(data, shape)

    def _elementwise(self, node: ir.Node, inputs: Sequence[Expression]) -> Expression | None:
        """Continue the arithmetic of the inputs, each shared part once."""
        operands = list(inputs)
        shapes = [each.shape for each in operands]
        attributes: dict[str, int | str] = {}
        for each in node.attributes.values():
            if each.type == ir.AttributeType.INT:
                attributes[each.name] = each.as_int()
            elif each.type == ir.AttributeType.STRING:
                attributes[each.name] = each.as_string()
        op_type = node.op_type
        if op_type == "Expand":
            target = operands.pop().read(full(inputs[1].shape))
            shapes = [operands[0].shape, tuple(int(size) for size in target)]
            op_type, attributes = "Identity", {}
        elif op_type == "CastLike":
            attributes = {"to": operands.pop().dtype.value}
            op_type, shapes = "Cast", shapes[:1]
        shape = tuple(int(size) for size in np.broadcast_shapes(*shapes))
        builder = _Builder(len(shape), self._opsets.get("", 1))
        places = tuple(builder.add(each) for each in operands)
        step = Step(op_type, tuple(sorted(attributes.items())), ())
        return builder.finish(step, places, shape)


def reshaped(expression: Expression, shape: tuple[int, ...]) -> Expression:
    """Return an expression in another shape; merging two axes keeps any box cheap to read."""
    old = expression.shape
    for axis in range(len(old) - 1):
        if (*old[:axis], old[axis] * old[axis + 1], *old[axis + 2 :]) == shape:
            if isinstance(expression, Elementwise):
                return Merged(expression.dtype, shape, expression, axis)
            break
    return expressions.reshaped(expression, shape)


def broadcast(expression: Expression, shape: tuple[int, ...]) -> Expression:
    """Return an expression repeated to a shape, as ONNX and numpy broadcast."""
    if expression.shape == shape:
        return expression
    builder = _Builder(len(shape), 13)
    place = builder.add(expression)
    return builder.finish(Step("Identity", (), ()), (place,), shape)


def minus(numbers: Expression, amount: int) -> Expression:
    """Return small integers less an amount, as int32."""
    builder = _Builder(len(numbers.shape), 13)
    each = Held.of(ir.Tensor(np.full((1,) * len(numbers.shape), amount, np.int32)))
    places = builder.add(expressions.cast(numbers, ir.DataType.INT32, True)), builder.add(each)
    return builder.finish(Step("Sub", (), ()), places, numbers.shape)


def _rows(node: ir.Node, inputs: Sequence[Expression]) -> Expression | None:
    """Return a Gather or GatherND of whole slices along one axis."""
    data, index = inputs
    wanted = index.read(full(index.shape))
    axis = 0
    if node.op_type == "GatherND":
        batch = int_of(node, "batch_dims", 0) != 0
        if batch or wanted.ndim != 2 or wanted.shape[1] != 1:
            return None
        wanted = wanted[:, 0]
    else:
        axis = int_of(node, "axis", 0) % len(data.shape)
    count = data.shape[axis]
    if wanted.ndim != 1 or not ((-count <= wanted) & (wanted < count)).all():
        return None
    if node.op_type == "GatherND":
        index = expressions.reshaped(index, wanted.shape)
    front = (axis, *(i for i in range(len(data.shape)) if i != axis))
    back = tuple(front.index(i) for i in range(len(front)))
    turned = expressions.transposed(data, front)
    taken = Rows(data.dtype, (len(wanted), *turned.shape[1:]), turned, index)
    return expressions.transposed(taken, back)


class _Builder:
    """Puts several pieces of arithmetic together; equal parts are computed once.

    While building, an operand is a pair: whether it is a step, and its number among its like.
    """

    def __init__(self, rank: int, opset: int) -> None:
        self._rank = rank
        self._opset = opset
        self._sources: list[Expression] = []
        self._steps: list[tuple[Step, tuple[tuple[bool, int], ...]]] = []

    def add(self, expression: Expression) -> tuple[bool, int]:
        """Take in an operand and return its place."""
        if isinstance(expression, Elementwise) and len(expression.shape) == self._rank:
            places = [self._source(source) for source in expression.sources]
            for step in expression.steps:
                places.append(self._step(step, tuple(places[i] for i in step.operands)))
            return places[-1]
        missing = self._rank - len(expression.shape)
        return self._source(expressions.reshaped(expression, (1,) * missing + expression.shape))

    def _source(self, source: Expression) -> tuple[bool, int]:
        for index, known in enumerate(self._sources):
            if known is source or known == source:
                return False, index
        self._sources.append(source)
        return False, len(self._sources) - 1

    def _step(self, step: Step, places: tuple[tuple[bool, int], ...]) -> tuple[bool, int]:
        bare = Step(step.op_type, step.attributes, ())
        if (bare, places) in self._steps:
            return True, self._steps.index((bare, places))
        self._steps.append((bare, places))
        return True, len(self._steps) - 1

    def finish(
        self, step: Step, places: tuple[tuple[bool, int], ...], shape: tuple[int, ...]
    ) -> Elementwise:
        """Return everything with one more step at its end."""
        self._step(step, places)
        count = len(self._sources)
        steps = tuple(
            Step(bare.op_type, bare.attributes, tuple(i + count * later for later, i in operands))
            for bare, operands in self._steps
        )
        dtype = self._dtype(steps)
        return Elementwise(dtype, shape, tuple(self._sources), steps, self._opset)

    def _dtype(self, steps: tuple[Step, ...]) -> ir.DataType:
        """Return the type of the result by trying the arithmetic on one element."""
        ones = tuple((0, 1) for _ in range(self._rank))
        shape = (1,) * self._rank
        sources = tuple(expressions.taken(source, ones) for source in self._sources)
        trial = Elementwise(ir.DataType.FLOAT, shape, sources, steps, self._opset)
        return ir.DataType.from_numpy(trial.read(ones).dtype)
