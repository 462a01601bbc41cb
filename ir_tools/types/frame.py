"""One solving of a graph or of a function body, and the conflicts found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import named_type
from vlmpass.ir_tools.operators.type_texts import spell

__all__ = ["Frame", "Mismatch", "Use"]


@dataclass(frozen=True)
class Use:
    """One thing that binds a type.

    Attributes:
        slot: What it is to the node, such as ``input 1 (B)`` or ``declared``.
        value: The value whose type it is.
        type: The type's text.
        index: Position among the node's inputs; None if this is no input.
    """

    slot: str
    value: ir.Value
    type: str
    index: int | None = None


@dataclass(frozen=True)
class Mismatch:
    """A conflict as the solver finds it; `Conflict` adds names and origins for people.

    Attributes:
        kind: ``mixed``, ``unsupported``, ``declared``, ``branches`` or ``carried``.
        node: The node; None where a value's own declaration is wrong.
        variable: The type variable or formal parameter.
        uses: What disagrees, at least one.
        allowed: The admitted types, for ``unsupported``.
    """

    kind: str
    node: ir.Node | None
    variable: str
    uses: tuple[Use, ...]
    allowed: frozenset[str] = frozenset()


@dataclass
class Frame:
    """Types of all values below one owner, for one set of input types.

    Attributes:
        owner: The main graph or a function.
        attributes: What the call gives for the function's attributes, defaults included.
        types: Type text by value.
        origin: For a value, the other value it has its type from, if from one.
        mismatches: Conflicts in graph order.
        unknown: Nodes of operators without a schema, in graph order.
        open: Nodes with a value of unknown type, to be looked at again.
    """

    owner: ir.Graph | ir.Function
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    types: dict[ir.Value, str] = field(default_factory=dict)
    origin: dict[ir.Value, ir.Value] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)
    unknown: dict[ir.Node, None] = field(default_factory=dict)
    open: list[ir.Node] = field(default_factory=list)

    def attribute(self, node: ir.Node, name: str) -> ir.Attr | None:
        """Return an attribute of a node with references to the function's attributes resolved."""
        attribute = node.attributes.get(name)
        if attribute is None or not attribute.is_ref():
            return attribute
        return self.attributes.get(attribute.ref_attr_name or "")

    def integer(self, node: ir.Node, name: str, default: int | None = None) -> int | None:
        """Return an integer attribute of a node, or the default where it is absent.

        Args:
            node: A node of the frame.
            name: The attribute; ``to`` may name a type by a word.
            default: What an absent one means.
        """
        attribute = self.attribute(node, name)
        if attribute is None or attribute.type != ir.AttributeType.INT:
            # Below opset 6 a Cast names its type by a word.
            named = named_type(attribute) if attribute is not None and name == "to" else None
            return default if named is None else named.value
        return attribute.as_int()

    def give(self, value: ir.Value, text: str, source: ir.Value | None = None) -> None:
        """Set the type of a value, and report where its declaration says otherwise.

        Args:
            value: The value.
            text: Its type as the schemas spell it, ``tensor(float)``.
            source: The value that it has the type from; None if from none.
        """
        self.types[value] = text
        if source is not None:
            self.origin[value] = source
        declared = spell(value.type)
        if declared is not None and declared != text:
            uses = (Use("solved", value, text), Use("declared", value, declared))
            self.mismatches.append(Mismatch("declared", value.producer(), value.name or "", uses))
