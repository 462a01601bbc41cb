"""Changes element types all over a model: weights, attributes, declarations, Casts at borders."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import all_nodes, all_values, scopes
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.operators.type_texts import dtype_of, spell
from vlmpass.ir_tools.types.carried import dtype_parameters, retyped_attributes
from vlmpass.ir_tools.types.cast_nodes import Casts, leave_well_typed, left_out_refusal
from vlmpass.ir_tools.types.conflict import label
from vlmpass.ir_tools.types.demand import Demand, Use
from vlmpass.ir_tools.types.integral import integer_arithmetic
from vlmpass.ir_tools.types.narrow import Narrowing, bounds_only
from vlmpass.ir_tools.types.saturate import Saturation
from vlmpass.ir_tools.types.typing import apply, retyped, solve

__all__ = ["retype"]


class _Retyping:
    """One change of types, from its plan."""

    def __init__(self, demand: Demand, request: str, reasons: Mapping[ir.Node, str]) -> None:
        self.model = demand.model
        self.demand = demand
        self.request = request
        self.reasons = reasons
        self.names = Names.of(demand.model)
        self.casts = Casts(self.names)
        self.narrowing = Narrowing()
        self.refusals = self.narrowing.refusals
        self.originals: dict[ir.Value, ir.TensorProtocol] = {}
        self.copies: dict[tuple[ir.Value, str], ir.Value] = {}
        self.saturation = Saturation(self.model, self.names)

    def run(self) -> bool:
        uses = list(self.demand.uses())
        changed = self._attributes()
        changed |= self._weights()
        changed |= self._declarations()
        for value, use in uses:
            if self.demand.have[value] != use.want:
                self._serve(value, use)
                changed = True
        if self.refusals:
            raise Refused(self.request, self.refusals)
        self.narrowing.report()
        return changed

    def _attributes(self) -> bool:
        changed = False
        parameters = dtype_parameters(self.model)
        for node in all_nodes(self.model):
            if node in self.demand.kept or self._stays(node):
                continue
            attributes = retyped_attributes(node, self.demand.mapping, parameters)
            attributes += self._tensors(node)
            for attribute in attributes:
                node.attributes[attribute.name] = attribute
                changed = True
        for identifier, names in parameters.items():
            changed |= self._defaults(self.model.functions[identifier], names)
        for function in self.model.functions.values():
            changed |= self._default_tensors(function)
        return changed

    def _default_tensors(self, function: ir.Function) -> bool:
        changed = False
        for name, attribute in function.attributes.items():
            if attribute.type != ir.AttributeType.TENSOR or attribute.value is None:
                continue
            tensor: ir.TensorProtocol = attribute.value
            if tensor.dtype in self.demand.mapping:
                where = f"attribute {name} of function {function.name}"
                made = self.narrowing.cast(tensor, self.demand.mapping[tensor.dtype], where)
                function.attributes[name] = ir.AttrTensor(name, made)
                changed = True
        return changed

    def _stays(self, node: ir.Node) -> bool:
        """Whether an output that changes with the mapping does not, since the schema forbids."""
        for value in node.outputs:
            have, text = self.demand.have.get(value), self.demand.typing.text_of(value)
            if have is not None and text is not None and have != self.demand.mapped(text):
                return True
        return False

    def _defaults(self, function: ir.Function, names: frozenset[str]) -> bool:
        changed = False
        for name in sorted(names):
            attribute = function.attributes.get(name)
            if attribute is None or attribute.type != ir.AttributeType.INT:
                continue
            if attribute.value is not None:
                dtype = ir.DataType(attribute.as_int())
                if dtype in self.demand.mapping:
                    value = self.demand.mapping[dtype].value
                    function.attributes[name] = ir.AttrInt64(name, value)
                    changed = True
        return changed

    def _tensors(self, node: ir.Node) -> list[ir.Attr]:
        """Return a node's tensor attributes in their new types, and what they are by default."""
        mapping = self.demand.mapping
        found: list[ir.Attr] = []
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            name = attribute.name
            if attribute.type == ir.AttributeType.TENSOR:
                old: ir.TensorProtocol = attribute.value
                if old.dtype in mapping:
                    found.append(ir.AttrTensor(name, self._cast(old, mapping[old.dtype], node)))
            elif attribute.type == ir.AttributeType.TENSORS:
                tensors = [
                    self._cast(t, mapping[t.dtype], node) if t.dtype in mapping else t
                    for t in attribute.as_tensors()
                ]
                found.append(ir.AttrTensors(name, tensors))
        if ir.DataType.FLOAT in mapping and not node.domain:
            found += self._float_forms(node, mapping[ir.DataType.FLOAT])
        for attribute in found:
            if node.op_type == "Constant" and attribute.name == "value":
                node.outputs[0].const_value = attribute.value
        return found

    def _cast(
        self, tensor: ir.TensorProtocol, dtype: ir.DataType, node: ir.Node
    ) -> ir.TensorProtocol:
        bound = node.op_type == "Constant" and bounds_only(node.outputs[0])
        return self.narrowing.cast(tensor, dtype, label(node), bound=bound)

    def _float_forms(self, node: ir.Node, dtype: ir.DataType) -> list[ir.Attr]:
        """Spell out what means FLOAT without saying so."""
        if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
            return [ir.AttrTensor("value", ir.tensor([0.0], dtype=dtype))]
        for name in ("value_float", "value_floats") if node.op_type == "Constant" else ():
            attribute = node.attributes.get(name)
            if attribute is not None and not attribute.is_ref():
                del node.attributes[name]
                wide = ir.tensor(attribute.value, dtype=ir.DataType.FLOAT)
                return [ir.AttrTensor("value", self._cast(wide, dtype, node))]
        return []

    def _weights(self) -> bool:
        changed = False
        for scope in scopes(self.model):
            for value in scope.initializers.values():
                text, weight = self.demand.have.get(value), value.const_value
                dtype = dtype_of(text) if text is not None else None
                if weight is None or dtype is None or weight.dtype == dtype:
                    continue
                self.originals[value] = weight
                where = f"initializer {value.name}"
                bound = bounds_only(value)
                value.const_value = self.narrowing.cast(weight, dtype, where, bound=bound)
                changed = True
        return changed

    def _declarations(self) -> bool:
        """Declare every value as it is to be; the solver settles what is not planned."""
        changed = False
        for value in all_values(self.model):
            declared = spell(value.type)
            if declared is None:
                continue
            text = self.demand.have.get(value, self.demand.mapped(declared))
            if text != declared:
                value.type = retyped(value.type, text)
                changed = True
        return changed

    def _serve(self, value: ir.Value, use: Use) -> None:
        """Give one use the type it wants."""
        if dtype_of(use.want) is None or dtype_of(self.demand.have[value]) is None:
            self._refuse(value, use)
            return
        if use.node is not None:
            use.node.replace_input_with(use.index, self._in_type(value, use))
            return
        foreign = value.graph is not use.graph
        new = self._cast_node(value, use, end_of=use.graph if foreign else None)
        if use.graph is self.model.graph and not new.is_graph_output():
            name = value.name
            value.name = self.names.value(f"{name}/{self.demand.have[value][7:-1]}")
            new.name = name
            new.shape = value.shape
        use.graph.outputs[use.index] = new

    def _in_type(self, value: ir.Value, use: Use) -> ir.Value:
        weight = self.originals.get(value, value.const_value)
        if weight is None or not value.is_initializer() or value.is_graph_input():
            return self._cast_node(value, use)
        made = self.copies.get((value, use.want))
        if made is None:
            dtype = dtype_of(use.want)
            assert dtype is not None
            name = self.names.value(f"{value.name}/{dtype.name.lower()}")
            tensor = weight
            if weight.dtype != dtype:
                where, bound = f"initializer {value.name}", bounds_only(value)
                tensor = self.narrowing.cast(weight, dtype, where, bound=bound)
            made = ir.Value(
                name=name, type=ir.TensorType(dtype), shape=value.shape, const_value=tensor
            )
            assert value.graph is not None
            value.graph.register_initializer(made)
            self.copies[value, use.want] = made
        return made

    def _cast_node(self, value: ir.Value, use: Use, end_of: ir.Graph | None = None) -> ir.Value:
        if value in self.demand.left_out:
            self.refusals.append(left_out_refusal(value))
        bounded = self.saturation.bounded(value, self.demand.have[value], use.want)
        return self.casts.to(bounded, use.want, self._reason(use, value), end_of=end_of)

    def _reason(self, use: Use, value: ir.Value) -> str:
        if use.node is not None and use.node in self.reasons:
            return self.reasons[use.node]
        producer = value.producer()
        if producer is not None and producer in self.reasons:
            return self.reasons[producer]
        if use.node is None or producer is None:
            return "graph inputs and outputs keep their types"
        wide = label(use.node) if self.demand.have[value] != use.want else label(producer)
        return f"{wide} admits {use.want} and not {self.demand.have[value]}"

    def _refuse(self, value: ir.Value, use: Use) -> None:
        where = label(use.node) if use.node is not None else f"output {value.name}"
        have = self.demand.have[value]
        reason = (
            f"'{value.name}' is {have} where {use.want} is wanted, and only tensors can be cast"
        )
        self.refusals.append(Refusal(where, reason))


def _referring_constants(model: ir.Model) -> dict[ir.Node, str]:
    """Return the Constants whose number is an attribute of the function they are in.

    Not those of tensors: a tensor changes its type where the function is called.
    """
    return {
        node: "the value is an attribute of the function"
        for node in all_nodes(model)
        if node.op_type == "Constant"
        and not node.domain
        and any(
            attribute.is_ref() and attribute.type != ir.AttributeType.TENSOR
            for attribute in node.attributes.values()
        )
    }


def _bit_patterns(model: ir.Model) -> dict[ir.Node, str]:
    return {
        node: "a bit pattern has a meaning in its own type only"
        for node in all_nodes(model)
        if (node.domain, node.op_type) == ("", "BitCast")
    }


def retype(
    model: ir.Model,
    mapping: Mapping[ir.DataType, ir.DataType],
    *,
    request: str,
    kept: Mapping[ir.Node, str] | None = None,
    keep_io: bool = False,
    wide: frozenset[ir.Value] = frozenset(),
) -> bool:
    """Let element types give way to others all over a model, and leave it well typed.

    Weights become lazy casts, attributes and declarations follow, and a Cast stands where a value
    crosses between nodes that change and nodes that do not. Casts that do nothing are removed.
    Integer arithmetic that is done in floats keeps its types where others would be narrower, and
    BitCast does in any case.

    Args:
        model: Any model; it may be ill typed in ways that the change cures.
        mapping: The types that give way, and to which.
        request: What was asked, for messages, such as ``unify-dtype to float32``.
        kept: Nodes that keep the types they have, each with the reason why.
        keep_io: Whether the main graph's inputs and outputs keep their types.
        wide: Values that keep their types where they enter or leave a function, too.

    Returns:
        Whether anything changed.

    Raises:
        Refused: The result is not well typed; the error lists every conflict.
    """
    typing = solve(model)
    narrowed = {old for old, new in mapping.items() if old != new and holds_all(old, new)}
    integral = integer_arithmetic(model, typing, narrowed)
    fixed = _referring_constants(model) | _bit_patterns(model)
    reasons = {**fixed, **integral, **(kept or {})}
    demand = Demand(model, typing, mapping, set(reasons), keep_io, wide)
    retyping = _Retyping(demand, request, reasons)
    changed = retyping.run()
    typing, removed = leave_well_typed(model, request, retyping.names)
    changed |= removed > 0
    if changed:
        apply(model, typing)
    return changed
