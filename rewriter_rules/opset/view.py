"""A model as adapters see it: values with the types they will have and the shapes that are proven.

Planning changes nothing in a model. What a plan says of a value in another way than the model does
lies in maps, and adapters are given nodes whose inputs and outputs carry what the maps say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import is_constant, node_tensor, source_of
from vlmpass.ir_tools.graph.edit import is_used
from vlmpass.ir_tools.types import Typing
from vlmpass.rewriter_rules.opset.queries import WANTED
from vlmpass.rewriter_rules.opset.seen import SeenValue

__all__ = ["ModelView", "Overlay", "SeenNode", "shape_within"]


class SeenNode(ir.Node):
    """A node of the model, of seen values.

    Attributes:
        original: The node of the model.
        view: What its values are seen through.
    """

    def __init__(self, original: ir.Node, attributes: Collection[ir.Attr], view: ModelView) -> None:
        super().__init__(
            original.domain,
            original.op_type,
            [None if value is None else view.value(value) for value in original.inputs],
            attributes,
            outputs=[view.output(value) for value in original.outputs],
            overload=original.overload,
            name=original.name,
            doc_string=original.doc_string,
        )
        self.original = original
        self.view = view


@dataclass
class Overlay:
    """What is said of values in place of what the model says.

    Attributes:
        types: Their types.
        shapes: Their shapes; None where not even the rank is known.
        tensors: The tensors that initializers hold.
        attributes: Attributes that nodes have in place of those of these names.
    """

    types: dict[ir.Value, ir.TypeProtocol] = field(default_factory=dict)
    shapes: dict[ir.Value, ir.Shape | None] = field(default_factory=dict)
    tensors: dict[ir.Value, ir.TensorProtocol] = field(default_factory=dict)
    attributes: dict[ir.Node, dict[str, ir.Attr]] = field(default_factory=dict)


class ModelView:
    """Shows a model through overlays, the first of which that speaks of something decides.

    Args:
        overlays: What is said of values and attributes.
        typing: Returns the solved types, asked for only where a value has none.
    """

    def __init__(self, overlays: Collection[Overlay], typing: Callable[[], Typing]) -> None:
        self._overlays = overlays
        self._typing = typing
        self._seen: dict[ir.Value, SeenValue] = {}

    def value(self, value: ir.Value) -> SeenValue:
        """Return a value as it is seen by those who read it; the same one each time."""
        if value not in self._seen:
            self._seen[value] = SeenValue(
                value, self.type_of(value), self.shape_of(value), self._tensor(value)
            )
        return self._seen[value]

    def output(self, value: ir.Value) -> SeenValue:
        """Return a value as an output of its node."""
        seen = SeenValue(value, self.type_of(value), self.shape_of(value))
        if is_used(value):
            seen.meta[WANTED] = True
        return seen

    def node(self, node: ir.Node) -> SeenNode:
        """Return a node of values that are seen, with the attributes that it will have."""
        changed: Mapping[str, ir.Attr] = {}
        for overlay in self._overlays:
            changed = overlay.attributes.get(node, changed)
        given = [changed.get(name, attribute) for name, attribute in node.attributes.items()]
        return SeenNode(node, given, self)

    def type_of(self, value: ir.Value) -> ir.TypeProtocol | None:
        """Return the type of a value; None where it is not known."""
        for overlay in self._overlays:
            if value in overlay.types:
                return overlay.types[value]
        return value.type if value.type is not None else self._typing().type_of(value)

    def shape_of(self, value: ir.Value) -> ir.Shape | None:
        """Return the shape of a value; None where not even its rank is known."""
        for overlay in self._overlays:
            if value in overlay.shapes:
                return overlay.shapes[value]
        return value.shape

    def _tensor(self, value: ir.Value) -> ir.TensorProtocol | None:
        """Return the tensor that a value always is; None if it varies."""
        value = source_of(value)
        producer = value.producer()
        if not is_constant(value):
            return None
        if producer is not None:
            return node_tensor(self.node(producer))
        held = (each.tensors[value] for each in self._overlays if value in each.tensors)
        return next(held, value.const_value)


def shape_within(node: ir.Node, value: ir.Value) -> ir.Shape | None:
    """Return the shape of a value in a subgraph of a node, as far as it may be believed."""
    return node.view.shape_of(value) if isinstance(node, SeenNode) else value.shape
