"""The twin of a model that computes in float32 what the model computes in a narrower type.

ONNX Runtime's CPU has no bfloat16 arithmetic, and a model converted to float32 is to be judged by
what the source's weights say, not by the source's rounding. Narrow values enter a graph at few
places (inputs, tensors, casts and operators with a dtype attribute); a Cast at each of them makes
everything behind them wide, and single numbers become wide themselves. This is written apart from
the passes that convert models, because it judges them.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.weights import as_weight, cast

__all__ = ["widen"]

_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "precision", "stash_type")
_FLOAT = ir.DataType.FLOAT


def widen(model: ir.Model, narrow: frozenset[ir.DataType]) -> None:
    """Make a model compute in float32 wherever it computes in a narrow type, in place.

    Inputs keep their type and are cast behind it; outputs become float32; functions are inlined;
    no weight is read.

    Args:
        model: A model of its own, such as one just loaded.
        narrow: The types to widen, such as bfloat16.
    """
    ir.passes.common.InlinePass()(model)
    names = Names.of(model)
    for scope in list(scopes(model)):
        _Widener(scope, names, narrow).run()
    model.opset_imports.setdefault("", 13)


class _Widener:
    """Widens one graph; the graphs below it are scopes of their own."""

    def __init__(self, scope: Scope, names: Names, narrow: frozenset[ir.DataType]) -> None:
        self._graph = scope.graph
        self._is_main = scope.depth == 0
        self._initializers = list(scope.initializers.values())
        self._names = names
        self._narrow = narrow

    def run(self) -> None:
        nodes = list(self._graph)
        entering = dict.fromkeys(self._initializers)
        for value in self._graph.inputs:
            if self._is_main:
                entering[value] = None
            else:
                self._retype(value)
        for value in entering:
            if self._is_narrow(value) and not self._is_number(value):
                node = self._cast(value)
                if nodes:
                    self._graph.insert_before(nodes[0], node)
                else:
                    self._graph.append(node)
        for node in nodes:
            self._widen(node)

    def _is_narrow(self, value: ir.Value) -> bool:
        dtype = value.const_value.dtype if value.const_value is not None else value.dtype
        return dtype in self._narrow and isinstance(value.type, (ir.TensorType, type(None)))

    def _is_number(self, value: ir.Value) -> bool:
        """Make an initializer of one element wide itself, if it is one that nothing overrides."""
        tensor = value.const_value
        if tensor is None or tensor.size != 1 or value.is_graph_input():
            return False
        value.const_value, value.type = cast(as_weight(tensor), _FLOAT), ir.TensorType(_FLOAT)
        return True

    def _cast(self, value: ir.Value) -> ir.Node:
        """Return a Cast of the value that all its users take instead."""
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", _FLOAT.value)], num_outputs=1)
        node.name = self._names.node(f"{value.name}/wide")
        wide = node.outputs[0]
        wide.name = self._names.value(f"{value.name}/wide")
        wide.type, wide.shape = ir.TensorType(_FLOAT), value.shape
        for user, index in list(value.uses()):
            if user is not node:
                user.replace_input_with(index, wide)
        return node

    def _widen(self, node: ir.Node) -> None:
        value = node.attributes.get("value")
        if value is not None and value.type == ir.AttributeType.TENSOR:
            tensor = value.as_tensor()
            narrow = tensor.dtype in self._narrow
            if narrow and node.op_type == "Constant" and tensor.size != 1:
                self._graph.insert_after(node, self._cast(node.outputs[0]))
                return
            if narrow:
                wide = cast(as_weight(tensor), _FLOAT)
                node.attributes["value"] = ir.AttrTensor("value", wide)
                if node.op_type == "Constant":
                    node.outputs[0].const_value = wide
        for name in _DTYPE_ATTRIBUTES:
            attribute = node.attributes.get(name)
            if attribute is None or attribute.type != ir.AttributeType.INT:
                continue
            if ir.DataType(attribute.as_int()) in self._narrow:
                node.attributes[name] = ir.AttrInt64(name, _FLOAT.value)
        for output in node.outputs:
            self._retype(output)

    def _retype(self, value: ir.Value) -> None:
        if value.type is not None and value.type.dtype in self._narrow:
            value.type.dtype = _FLOAT
