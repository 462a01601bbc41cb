"""The iterations of a Loop or Scan, each a copy of the body in the graph around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import duplicate
from vlmpass.ir_tools.graph.edit import add_constant, is_used
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.passes.control.branches import Inliner

__all__ = ["Iterations", "write_out"]


@dataclass(frozen=True)
class Iterations:
    """A Loop or Scan that runs a number of times that is known.

    Attributes:
        node: The node.
        times: How often its body runs, more than once.
        scope: Where it stands.
    """

    node: ir.Node
    times: int
    scope: Scope


def write_out(model: ir.Model, found: Sequence[Iterations]) -> None:
    """Put copies of bodies in the place of nodes, none of which lies in another.

    Args:
        model: The model.
        found: The nodes.
    """
    names = Names.of(model)
    written = [_Writing(model, each, names) for each in found]
    for each in written:
        each.prepare()
    inliner = Inliner(model)
    for each in written:
        each.inline(inliner)


class _Writing:
    """One node that is written out."""

    def __init__(self, model: ir.Model, found: Iterations, names: Names) -> None:
        self._node, self._times, self._scope = found.node, found.times, found.scope
        self._as_node = found.scope.in_function or model.ir_version < 4
        self._names = names
        self._opset = found.scope.opsets.get("", 1)
        self._pieces: list[ir.Node] = []
        self._is_loop = found.node.op_type == "Loop"
        body = found.node.attributes["body"].as_graph()
        fixed = 2 if self._is_loop else found.node.attributes["num_scan_inputs"].as_int()
        self._states = len(body.inputs) - fixed
        self._results: list[ir.Value | None] = []

    def prepare(self) -> None:
        """Put a copy of the node for each iteration before it, each taking what one left."""
        first = 2 if self._is_loop else 0
        states = [value for value in self._node.inputs[first : first + self._states] if value]
        gathered: list[list[ir.Value]] = [[] for _ in self._node.outputs[self._states :]]
        for number in range(self._times):
            piece = duplicate(self._node)
            for value in piece.outputs:
                value.name = self._names.value(f"{value.name or 'v'}/{number}")
                value.shape = None  # the node's own: of the last state, of all parts
            piece.name = self._names.node(f"{self._node.name or self._node.op_type}/{number}")
            for place, value in enumerate(self._given(number, states)):
                piece.replace_input_with(place, value)  # a body takes as many as its node
            self._pieces.append(piece)
            self._insert(piece)
            states = list(piece.outputs[: self._states])
            for parts, value in zip(gathered, piece.outputs[self._states :], strict=True):
                parts.append(value)
        joined = [self._joined(place, parts) for place, parts in enumerate(gathered)]
        self._results = [*states[: len(self._node.outputs)], *joined]

    def inline(self, inliner: Inliner) -> None:
        """Let the copies be what stands in them, in the place of the node."""
        inliner.drop(self._node, self._results)
        for piece in self._pieces:
            body = piece.attributes["body"].as_graph()
            given = [value for value in piece.inputs if value is not None]
            inputs = dict(zip(body.inputs, given, strict=True))
            made = list(body.outputs)[1 if self._is_loop else 0 :]
            results: list[ir.Value | None] = [inputs.get(value, value) for value in made]
            inliner.inline(piece, body, inputs, results, in_function=self._scope.in_function)

    def _given(self, number: int, states: Sequence[ir.Value]) -> Iterator[ir.Value]:
        """Yield what a body takes in an iteration."""
        if self._is_loop:
            yield self._constant(np.array(number, np.int64))
            yield self._constant(np.array(True))
        yield from states
        count = 0 if self._is_loop else self._node.attributes["num_scan_inputs"].as_int()
        axes = self._ints("scan_input_axes", count)
        backwards = self._ints("scan_input_directions", count)
        for place, value in enumerate(self._node.inputs[len(self._node.inputs) - count :]):
            at = self._times - 1 - number if backwards[place] else number
            index = self._constant(np.array(at, np.int64))
            axis = ir.AttrInt64("axis", axes[place])
            assert value is not None
            yield self._made("Gather", [value, index], [axis], value.dtype)

    def _ints(self, name: str, count: int) -> Sequence[int]:
        return self._node.attributes.get_ints(name) or [0] * count

    def _joined(self, place: int, parts: Sequence[ir.Value]) -> ir.Value | None:
        """Return what all iterations left at a place, along an axis of its own."""
        output = self._node.outputs[self._states + place]
        if not is_used(output):
            return None
        count = len(self._node.outputs) - self._states
        axis = self._ints("scan_output_axes", count)[place]
        if self._ints("scan_output_directions", count)[place]:
            parts = parts[::-1]
        lines = [self._unsqueezed(value, axis) for value in parts]
        return self._made("Concat", lines, [ir.AttrInt64("axis", axis)], output.dtype)

    def _unsqueezed(self, value: ir.Value, axis: int) -> ir.Value:
        if self._opset < 13:
            return self._made("Unsqueeze", [value], [ir.AttrInt64s("axes", [axis])], value.dtype)
        axes = self._constant(np.array([axis], np.int64))
        return self._made("Unsqueeze", [value, axes], [], value.dtype)

    def _made(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        attributes: Sequence[ir.Attr],
        dtype: ir.DataType | None,
    ) -> ir.Value:
        name = f"{self._node.name or self._node.op_type}/{operator}"
        node = ir.Node("", operator, inputs, attributes, name=self._names.node(name))
        (made,) = node.outputs
        made.name = self._names.value(f"{name}_output")
        made.type = None if dtype is None else ir.TensorType(dtype)
        self._insert(node)
        return made

    def _insert(self, node: ir.Node) -> None:
        assert self._node.graph is not None
        self._node.graph.insert_before(self._node, node)

    def _constant(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        name = self._names.value(f"{self._node.name or self._node.op_type}/constant")
        return add_constant(ir.tensor(array), self._node, name, as_node=self._as_node)
