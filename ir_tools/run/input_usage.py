"""How a graph consumes one of its inputs: followed forward to the tables and kernels it meets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.operators import Kind, commutes, hands_on, named, traits_of

__all__ = ["Use", "trace_use"]

# Operators whose output holds the same elements as the input at the given position (None: any).
# Operators that index a table: operator -> {position of the indices: position of the table}.
_INDEXES: dict[str, dict[int, int]] = {
    "EmbedLayerNormalization": {0: 2, 1: 4},
    "Gather": {1: 0},
    "GatherBlockQuantized": {1: 0},
    "GatherElements": {1: 0},
    "QEmbedLayerNormalization": {0: 2, 1: 4},
}
_CASTS = named(Kind.CAST)
_CHANGES = named(Kind.ELEMENTWISE, Kind.FILL)
_STEPS = 4096


@dataclass
class Use:
    """What the values of a graph input are for.

    Attributes:
        bound: Every value must be below this: rows of the smallest table that they index, less
            what is added on the way; None where they index nothing of known size.
        consumers: Operators that the values reach unchanged, with the input position they take.
        equal_to: Integers that the values are compared with, such as an image token's id.
        stride: Height and width stride of the first convolution they reach.
        channels: Channels that this convolution takes.
    """

    bound: int | None = None
    consumers: set[tuple[str, int]] = field(default_factory=set)
    equal_to: list[int] = field(default_factory=list)
    stride: tuple[int, int] | None = None
    channels: int | None = None

    @property
    def sizes(self) -> bool:
        """Whether an operator reads the values as sizes or places, other than those of a table."""
        return any(_is_size(*consumer) for consumer in self.consumers)

    def reaches(self, *operators: str) -> bool:
        """Tell whether one of the operators consumes the values."""
        return any(operator in operators for operator, _ in self.consumers)


def _is_size(operator: str, position: int) -> bool:
    traits = traits_of("", operator)
    if traits is None or position in _INDEXES.get(operator, ()):
        return False
    return operator == "Range" or position in traits.sizes


def trace_use(model: ir.Model, value: ir.Value) -> Use:
    """Follow a graph input through the operators that keep its elements.

    Calls of the model's functions and loop bodies are followed; no weight is read.
    """
    return _Trace(model).run(value)


def small_integers(value: ir.Value | None) -> list[int] | None:
    """Return the elements of a constant of at most 16 integers; None for anything else."""
    tensor = constant_of(value)
    if tensor is None or tensor.size > 16 or not tensor.dtype.is_integer():
        return None
    return [int(number) for number in tensor.numpy().reshape(-1)]


class _Trace:
    """One walk: values still to look at, with what was added to them on the way."""

    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._arguments: dict[ir.Value, ir.Value | None] = {}
        self._use = Use()

    def run(self, value: ir.Value) -> Use:
        """Walk until nothing new is reached."""
        queue: deque[tuple[ir.Value, int, bool]] = deque([(value, 0, True)])
        seen: set[ir.Value] = set()
        while queue and len(seen) < _STEPS:
            current, shift, exact = queue.popleft()
            if current in seen:
                continue
            seen.add(current)
            for node, position in current.uses():
                if exact:
                    self._note(node, position, shift)
                self._note_convolution(node, position)
                queue.extend(self._next(node, position, shift, exact))
        return self._use

    def _next(
        self, node: ir.Node, position: int, shift: int, exact: bool
    ) -> Iterator[tuple[ir.Value, int, bool]]:
        """Yield what the values become, by how much they are shifted and whether just that."""
        function = self._functions.get(node.op_identifier())
        if function is not None:
            self._arguments.update(zip(function.inputs, node.inputs, strict=False))
            yield function.inputs[position], shift, exact
            return
        if node.op_type == "Loop" and position >= 2:
            yield node.attributes["body"].as_graph().inputs[position], shift, exact
            return
        if hands_on(node, position) or (position == 0 and node.op_type in _CASTS):
            for output in node.outputs:
                yield output, shift, exact
        elif node.op_type in _CHANGES and (position == 0 or commutes(node.domain, node.op_type)):
            added = _shift(node, position)
            for output in node.outputs:
                yield output, shift + (added or 0), exact and added is not None

    def _note(self, node: ir.Node, position: int, shift: int) -> None:
        use = self._use
        use.consumers.add((node.op_type, position))
        if node.op_type == "Equal":
            use.equal_to += small_integers(node.inputs[1 - position]) or []
        table_at = _INDEXES.get(node.op_type, {}).get(position)
        rows = None
        if table_at is not None and table_at < len(node.inputs):
            rows = self._rows(node, node.inputs[table_at])
        elif node.op_type == "OneHot" and position == 0:
            depth = small_integers(node.inputs[1])
            rows = depth[0] if depth else None
        if rows is not None:
            limit = max(rows - shift, 1)
            use.bound = limit if use.bound is None else min(use.bound, limit)

    def _rows(self, node: ir.Node, table: ir.Value | None) -> int | None:
        """Return the length of the axis that a node indexes, if it is known."""
        shape = self._static_shape(table)
        axis = node.attributes.get_int("axis", 0)
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        return shape[axis]

    def _static_shape(self, value: ir.Value | None) -> list[int | None] | None:
        while value in self._arguments:
            value = self._arguments[value]
        if value is None:
            return None
        shape = value.const_value.shape if value.const_value is not None else value.shape
        if shape is None:
            producer = value.producer()
            keeps = producer is not None and producer.op_type in ("Cast", "DequantizeLinear")
            return self._static_shape(producer.inputs[0]) if producer and keeps else None
        return [dim if isinstance(dim, int) else None for dim in shape]

    def _note_convolution(self, node: ir.Node, position: int) -> None:
        use = self._use
        if use.stride is not None or position != 0 or node.op_type not in ("Conv", "ConvInteger"):
            return
        weight = self._static_shape(node.inputs[1]) if len(node.inputs) > 1 else None
        strides = node.attributes.get_ints("strides", [])
        if weight is None or len(weight) < 4:
            return
        across = [*strides, 1, 1][-2:] if len(strides) < 2 else list(strides[-2:])
        use.stride = (across[0], across[1])
        if weight[1] is not None:
            use.channels = weight[1] * node.attributes.get_int("group", 1)


def _shift(node: ir.Node, position: int) -> int | None:
    """Return the integer that a node adds to the values; None where it does something else."""
    if node.op_type not in ("Add", "Sub") or len(node.inputs) != 2:
        return None
    number = small_integers(node.inputs[1 - position])
    if number is None or len(number) != 1:
        return None
    return number[0] if node.op_type == "Add" else -number[0]
