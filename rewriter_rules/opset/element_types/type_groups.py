"""Which values have their element type together, and which of them must keep it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import holds_graphs, subgraphs
from vlmpass.ir_tools.operators import Kind, is_exact, named
from vlmpass.ir_tools.operators.schema import history

__all__ = ["NAMES_ITS_TYPE", "READING", "ROUNDING", "TypeGroups", "computes"]

_D = ir.DataType

ROUNDING = frozenset({"Cast", "CastLike", "QuantizeLinear"})
"""Operators that may have to round, to make values of a type."""

READING = ROUNDING | {"DequantizeLinear"}
"""Operators that make values of other types out of those of one."""

NAMES_ITS_TYPE = ("to", "dtype", "output_dtype", "output_datatype", "value", "type")
"""Attributes that say of what type an operator's first output is."""

_TIED: Mapping[str, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = {
    "Cast": (),
    "CastLike": (((1,), (0,)),),
    "QuantizeLinear": (((2,), (0,)),),
    "DequantizeLinear": (((0, 2), ()), ((1,), (0,))),
}
"""Inputs and outputs of one type, of operators that lead from one type to another."""

_HOLDS = named(Kind.CONTROL, Kind.SEQUENCE) | {"Constant", "ConstantOfShape"}


def computes(node: ir.Node) -> bool:
    """Whether a standard node does more than hold, move or compare, so that its type matters."""
    if node.op_type in ("CastLike", "NonMaxSuppression"):
        return True
    return node.op_type not in _HOLDS and not is_exact(node)


class TypeGroups:
    """Values of types to be replaced, in groups that are replaced together or not at all.

    Args:
        model: The model.
        kinds: The element type of each such value; None where there is more than one.
        unclear: Those of them on whose type calls of a function disagree.
    """

    def __init__(
        self,
        model: ir.Model,
        kinds: Mapping[ir.Value, ir.DataType | None],
        unclear: Container[ir.Value],
    ) -> None:
        self._unclear = unclear
        self._model = model
        self._kinds = kinds
        self._parent: dict[ir.Value, ir.Value] = {}
        self._pinned: list[ir.Value] = []

    def keep(self, values: Iterable[ir.Value | None]) -> None:
        """Say that values, and all that have their type with them, stay as they are."""
        self._pinned += self._known(values)

    def add(self, node: ir.Node) -> bool:
        """Take in what a node ties together and what it keeps; say whether it has to do with it."""
        present = self._known((*node.inputs, *node.outputs))
        if holds_graphs(node):
            for graph in subgraphs(node):
                present += self._known((*graph.inputs, *graph.outputs))
        if not present:
            return False
        for group in self._groups(node, present):
            for value in group[1:]:
                self._parent[self._root(value)] = self._root(group[0])
        self.keep(self._kept(node, present))
        return True

    def _known(self, values: Iterable[ir.Value | None]) -> list[ir.Value]:
        return [value for value in values if value is not None and value in self._kinds]

    def stays(self) -> set[ir.Value]:
        """Return all values that keep their type."""
        roots = {self._root(value) for value in self._pinned}
        return {value for value in self._kinds if self._root(value) in roots}

    def _root(self, value: ir.Value) -> ir.Value:
        root = value
        while (above := self._parent.get(root)) is not None and above is not root:
            root = above
        while value is not root:
            value, self._parent[value] = self._parent[value], root
        return root

    def _groups(self, node: ir.Node, present: list[ir.Value]) -> Iterator[list[ir.Value]]:
        function = self._model.functions.get(node.op_identifier())
        if function is not None:
            sides = ((node.inputs, function.inputs), (node.outputs, function.outputs))
            for outer, inner in sides:
                for pair in zip(outer, inner, strict=False):
                    yield self._known(pair)
        elif node.domain == "" and node.op_type in _TIED:
            for inputs, outputs in _TIED[node.op_type]:
                taken = [node.inputs[index] for index in inputs if index < len(node.inputs)]
                yield self._known((*taken, *(node.outputs[index] for index in outputs)))
        else:
            yield present

    def _kept(self, node: ir.Node, present: list[ir.Value]) -> list[ir.Value]:
        """Return the values of a node that it needs to be of their very type."""
        operator = node.op_type
        if node.op_identifier() in self._model.functions:
            return []
        if node.domain != "" or not history(operator) or operator == "BitCast":
            return present
        named = [node.attributes.get(name) for name in NAMES_ITS_TYPE]
        if any(given is not None and given.is_ref() for given in named):
            return present
        if operator == "Cast" and ir.DataType(node.attributes["to"].as_int()) == _D.STRING:
            return [value for value in present if not _is_whole(self._kinds[value])]
        if operator in READING and operator != "Cast":
            return [value for value in present if value in self._unclear]
        if operator == "Constant" and "value" not in node.attributes:
            return present
        if operator == "Cast" or not computes(node) or _does_nothing(node):
            return []
        return [value for value in present if self._kinds[value] != _D.BFLOAT16]


def _is_whole(kind: ir.DataType | None) -> bool:
    return kind is not None and kind.is_integer()


def _does_nothing(node: ir.Node) -> bool:
    """Say whether a node is a Dropout that never trains."""
    return node.op_type == "Dropout" and len(node.inputs) < 3
