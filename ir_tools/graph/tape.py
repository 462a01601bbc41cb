"""New nodes recorded off the graph, and the one place where they are spliced into it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import constant_node, constant_value, is_used, replace_value
from vlmpass.ir_tools.graph.infer_alike import infer_new
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.operators.schema import in_force

__all__ = ["NO_AXES", "Axes", "Tape", "splice"]

Attribute = (
    "int | float | str | bool | ir.DataType | ir.TensorProtocol | ir.Graph | ir.Attr"
    " | Sequence[int] | Sequence[float] | Sequence[str] | None"
)


def _attribute(name: str, value: object) -> ir.Attr | None:
    """Return an attribute of the fitting type; None for None, which means absent."""
    if value is None:
        return None
    if isinstance(value, ir.Attr):
        if value.name == name:
            return value
        if value.ref_attr_name is not None:
            return ir.RefAttr(name, value.ref_attr_name, value.type, value.doc_string)
        return ir.Attr(name, value.type, value.value, doc_string=value.doc_string)
    if isinstance(value, ir.DataType):
        return ir.AttrInt64(name, value.value)
    if isinstance(value, (bool, np.integer)):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, np.floating):
        return ir.AttrFloat32(name, float(value))
    if isinstance(value, (tuple, list)) and not value:
        return ir.AttrInt64s(name, ())  # as empty lists are: axes, pads, sizes
    return ir.convenience.convert_attribute(name, value)  # type: ignore[arg-type]


def _tensor(value: npt.ArrayLike, dtype: ir.DataType | None) -> ir.TensorProtocol:
    """Return a tensor of numbers or strings; nothing at all is an empty list of integers."""
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        texts = [each if isinstance(each, bytes) else str(each).encode() for each in array.flat]
        return ir.StringTensor(texts, shape=ir.Shape(array.shape))
    if dtype is None and array.size == 0 and not isinstance(value, np.ndarray):
        dtype = ir.DataType.INT64
    if dtype is None and array.dtype == np.int64:
        return ir.Tensor(array)
    return ir.tensor(value, dtype=dtype)


def _node_name(hint: str, op_type: str) -> str:
    """Return the name of a new node: what was taken apart and is one again is named as it was."""
    found = hint.find(f"/{op_type}/")
    return f"{hint}/{op_type}" if found < 0 else hint[: found + 1 + len(op_type)]


Remove: TypeAlias = "Callable[[ir.Graph, Sequence[ir.Node]], None]"
Axes: TypeAlias = "tuple[int | str | None, ...]"
"""Sizes of axes, names of sizes, None for one that is not known."""

NO_AXES: Final[Mapping[ir.Value, Axes]] = MappingProxyType({})


class Tape:
    """Records nodes and constants; the graph is not touched before `splice`.

    `tape.Cast(x, to=ir.DataType.FLOAT)` records a node and returns its output value. Keywords are
    attributes, None meaning absent; one that the imported opset has as an input, such as `axes` of
    Unsqueeze from 13 on, becomes a constant. `_domain` is the operator's domain. Every new value
    gets its type and shape at once.

    Args:
        names: Where fresh names come from.
        opsets: Imported opset version by domain, as it will be when the nodes are in place.
        hint: What names of new nodes and values start with, usually the replaced node's name.
        emits: Domains beyond the standard one whose operators are welcome.
        in_function: Whether the nodes will stand in a function.
        last_axes: The last axes of values whose rank is not known.
    """

    def __init__(
        self,
        names: Names,
        opsets: Mapping[str, int],
        hint: str,
        emits: Collection[str] = (),
        in_function: bool = False,
        last_axes: Mapping[ir.Value, Axes] = NO_AXES,
    ) -> None:
        self.last_axes = last_axes
        self.emits = emits
        self.in_function = in_function
        self.names = names
        self.opsets = opsets
        self.hint = hint
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        """Return a function that records a node of this type with one output."""
        if op_type.startswith("_"):
            raise AttributeError(op_type)

        def record(*inputs: ir.Value | None, _domain: str = "", **attributes: object) -> ir.Value:
            return self.node(op_type, inputs, attributes, domain=_domain)[0]

        return record

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        """Record a node and return its outputs.

        Args:
            op_type: The operator.
            inputs: Values of the graph or of this tape; None for an absent optional input.
            attributes: Python values, `ir.Attr` or None for absent.
            domain: The operator's domain.
            outputs: How many outputs it has.
        """
        inputs, attributes = self._as_this_version_has_it(op_type, domain, inputs, attributes or {})
        kept = [_attribute(name, value) for name, value in attributes.items()]
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        node = ir.Node(
            domain,
            op_type,
            inputs,
            [attribute for attribute in kept if attribute is not None],
            num_outputs=outputs,
            name=self.names.node(_node_name(self.hint, op_type)),
        )
        for index, value in enumerate(node.outputs):
            suffix = f"_{index}" if outputs > 1 else ""
            value.name = self.names.value(f"{self.hint}/{op_type}_output{suffix}")
        infer_new(node, self.opsets)
        self.nodes.append(node)
        return node.outputs

    def _as_this_version_has_it(
        self,
        op_type: str,
        domain: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object],
    ) -> tuple[Sequence[ir.Value | None], Mapping[str, object]]:
        """Turn attributes that the imported version has as inputs into constants."""
        schema = in_force(domain, op_type, self.opsets.get(domain, 1)) if attributes else None
        if schema is None:
            return inputs, attributes
        placed, kept = list(inputs), dict(attributes)
        for name in attributes:
            index = schema.input_named(name)
            if index is None:
                continue
            value = kept.pop(name)
            if value is not None:
                placed += [None] * (index + 1 - len(placed))
                placed[index] = self.const(value, name=name)  # type: ignore[arg-type]
        return placed, kept

    def const(
        self,
        value: npt.ArrayLike | ir.TensorProtocol,
        dtype: ir.DataType | None = None,
        name: str = "const",
    ) -> ir.Value:
        """Record a constant.

        Args:
            value: A number, nested sequence, array or tensor (lazy ones stay lazy).
            dtype: Element type; by default that of the array, with Python ints as int64 and
                Python floats as float32.
            name: Last part of its name.
        """
        # A protocol is slow to ask about, and most constants are lists of a few integers.
        plain = isinstance(value, (list, tuple, int, float, np.ndarray))
        if not plain and isinstance(value, ir.TensorProtocol):
            tensor = value
        else:
            tensor = _tensor(value, dtype)
        label = self.names.value(f"{self.hint}/{name}")
        constant = constant_value(tensor, label)
        self.constants.append(constant)
        return constant

    def discard(self) -> None:
        """Take back everything recorded: values of the graph lose the users they got here."""
        if not self.nodes and not self.constants:
            return
        for node in self.nodes:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        values = [value.name for node in self.nodes for value in node.outputs]
        values += [constant.name for constant in self.constants]
        self.names.forget(values=values, nodes=[node.name for node in self.nodes])
        self.nodes, self.constants = [], []


def _place_constants(tape: Tape, anchor: ir.Node, graph: ir.Graph, in_function: bool) -> None:
    for constant in tape.constants:
        tensor = constant.const_value
        if not constant.uses() or tensor is None:
            continue
        tensor.name = constant.name
        if not in_function:
            graph.register_initializer(constant)
            continue
        assert constant.name is not None
        name = tape.names.node(f"{constant.name}/Constant")
        node = constant_node(tensor, constant.name, name)
        constant.replace_all_uses_with(node.outputs[0])
        graph.insert_before(anchor, node)


def _inherit(new: ir.Node, old_nodes: Sequence[ir.Node]) -> None:
    for old in old_nodes:
        for key, text in old.metadata_props.items():
            new.metadata_props.setdefault(key, text)


def _take_over(anchor: ir.Node, old: ir.Value, new: ir.Value, tape: Tape) -> None:
    """Let `new` stand for `old` everywhere, and free the name that it had."""

    def copy(value: ir.Value) -> ir.Value:
        identity = ir.Node("", "Identity", [value], num_outputs=1)
        identity.name = tape.names.node(f"{tape.hint}/Identity")
        assert anchor.graph is not None
        anchor.graph.insert_before(anchor, identity)
        tape.nodes.append(identity)
        return identity.outputs[0]

    fresh, had, name = new.producer() in tape.nodes, new.name, old.name
    made = replace_value(old, new, fresh=fresh, copy=copy)
    if made is new and name and new.name == name:
        tape.names.forget(values=[had], nodes=[])


def _drop_needless(tape: Tape, wanted: Sequence[ir.Value]) -> None:
    """Take back nodes that only what is left out would have been computed by."""
    makers = {value.producer() for value in wanted}
    for node in reversed(list(tape.nodes)):
        if node not in makers and not any(map(is_used, node.outputs)):
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
            tape.nodes.remove(node)


def splice(
    tape: Tape,
    old_nodes: Sequence[ir.Node],
    replacements: Sequence[tuple[ir.Value, ir.Value]],
    *,
    in_function: bool,
    remove: Remove | None = None,
) -> None:
    """Put a tape's nodes in the place of old ones.

    Args:
        tape: The new nodes, in topological order.
        old_nodes: The nodes they replace, all of one graph; the last one marks the place. They
            must have no other users than each other once the replacements are made.
        replacements: Pairs of an old output and the value that stands for it from now on: an
            output of the tape, a constant of it, or any value already in the graph.
        in_function: Whether the graph is (in) a function's, so that constants become nodes.
        remove: Takes the old nodes out, at once by default.

    An output that is left out has nothing standing for it. Names of replaced values go to the new
    values where those are fresh; a graph output keeps its name in any case. Metadata of the old
    nodes is merged into the new ones.
    """
    anchor = old_nodes[-1]
    graph = anchor.graph
    assert graph is not None
    wanted = [(old, new) for old, new in replacements if old.name or is_used(old)]
    if len(wanted) < len(replacements):
        _drop_needless(tape, [new for _, new in wanted])
    graph.insert_before(anchor, tape.nodes)
    for old, new in wanted:
        if old is not new:
            _take_over(anchor, old, new, tape)
    _place_constants(tape, tape.nodes[0] if tape.nodes else anchor, graph, in_function)
    for node in tape.nodes:
        _inherit(node, old_nodes)
    if remove is None:
        graph.remove(old_nodes, safe=True)
    else:
        remove(graph, old_nodes)
