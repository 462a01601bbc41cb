"""Constants in another element type, cast before the model runs instead of by a node."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import constant_node, constant_value
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.ir_tools.operators.type_texts import dtype_of
from vlmpass.ir_tools.types.narrow import Narrowing, bounds_only

__all__ = ["Offline"]


class Offline:
    """Makes copies of constants in other types, each once.

    Args:
        names: Where fresh names come from.
        narrowing: Casts the tensors and keeps account of what is lost.
    """

    def __init__(self, names: Names, narrowing: Narrowing) -> None:
        self._names = names
        self._narrowing = narrowing
        self._made: dict[tuple[ir.Value, str], ir.Value] = {}

    def to(self, value: ir.Value, text: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Return a constant in another tensor type.

        Args:
            value: An initializer or the output of a Constant node.
            text: The type wanted.
            tensor: What it holds, in whatever type it was first.
        """
        made = self._made.get((value, text))
        if made is None:
            made = self._made[value, text] = self._make(value, text, tensor)
        return made

    def settle(self) -> None:
        """Let a copy take the place of a constant that nothing else uses, name included."""
        removals = Removals()
        for (value, _), made in self._made.items():
            if value.uses() or value.is_graph_output() or made.const_value is None:
                continue
            tensor = made.const_value
            tensor.name = value.name
            value.const_value, value.type = tensor, made.type
            made.replace_all_uses_with(value)
            node, copy = value.producer(), made.producer()
            if node is None or copy is None:
                assert made.graph is not None
                made.graph.initializers.pop(str(made.name))
                continue
            node.attributes.clear()
            node.attributes["value"] = ir.AttrTensor("value", tensor)
            assert copy.graph is not None
            removals.remove(copy.graph, [copy])
        removals.finish()

    def _make(self, value: ir.Value, text: str, tensor: ir.TensorProtocol) -> ir.Value:
        dtype = dtype_of(text)
        assert dtype is not None
        name = self._names.value(f"{value.name}/{dtype.name.lower()}")
        node = value.producer()
        where = f"constant {value.name}" if node is not None else f"initializer {value.name}"
        if tensor.dtype != dtype:
            tensor = self._narrowing.cast(tensor, dtype, where, bound=bounds_only(value))
        if node is None:
            made = constant_value(tensor, name)
            assert value.graph is not None
            value.graph.register_initializer(made)
            return made
        copy = constant_node(tensor, name, self._names.node(f"{name}/Constant"))
        (made,) = copy.outputs
        made.const_value = tensor
        assert node.graph is not None
        node.graph.insert_after(node, copy)
        return made
