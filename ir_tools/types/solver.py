"""Element types of every value, solved from the operators' schemas in one sweep over the nodes.

A node's inputs bind the type variables of its schema, and these type its outputs. What a schema
leaves open is decided by an attribute (`outputs`), by a subgraph or a function (`nested`), or by
the value's own declaration. Values still untyped, below operators without a schema, get the type
that their users demand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import element, spell, tensor
from vlmpass.ir_tools.types.frame import Frame, Mismatch, Use
from vlmpass.ir_tools.types.outputs import DECIDED

__all__ = ["Solver"]

_BOOL, _INT64 = tensor(ir.DataType.BOOL), tensor(ir.DataType.INT64)
_Entry = tuple[ir.Value, str, "ir.Value | None"]
_Key = tuple[ir.OperatorIdentifier, tuple["str | None", ...], tuple[tuple[str, str], ...]]


class Solver:
    """Solves a model; `frames` holds the result: the main graph's frame first."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.frames: list[Frame] = []
        self._calls: dict[_Key, Frame] = {}
        self._nested: Mapping[tuple[str, str], Callable[[Frame, ir.Node], None]] = {
            ("", "If"): self._if,
            ("", "Loop"): self._loop,
            ("", "Scan"): self._scan,
            ("", "SequenceMap"): self._sequence_map,
        }

    def run(self) -> None:
        """Solve the main graph, every function once per distinct call, and uncalled functions."""
        self._solve(Frame(self.model.graph), {})
        called = {key[0] for key in self._calls}
        for identifier, function in self.model.functions.items():
            if identifier not in called:
                self._solve(Frame(function, dict(function.attributes)), {})

    def _solve(self, frame: Frame, given: Mapping[ir.Value, str]) -> None:
        """Solve an owner's body; `given` are the types of its inputs where a call decides them."""
        self.frames.append(frame)
        for value, text in given.items():
            frame.give(value, text)
        self._body(frame, frame.owner)
        self._settle(frame)

    def _body(self, frame: Frame, graph: ir.Graph | ir.Function) -> None:
        for value in graph.inputs:
            declared = spell(value.type)
            if declared is not None and value not in frame.types:
                frame.types[value] = declared
        if isinstance(graph, ir.Graph):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    frame.give(value, tensor(value.const_value.dtype))
                elif value not in frame.types and (declared := spell(value.type)):
                    frame.types[value] = declared
        for node in graph:
            self._node(frame, node)

    def _settle(self, frame: Frame) -> None:
        """Let users type what no producer could, back and forth until nothing changes."""
        pending = frame.open
        backwards = True
        while pending:
            frame.open, known = [], len(frame.types)
            found = frame.mismatches
            for node in reversed(pending) if backwards else pending:
                frame.mismatches = []
                self._node(frame, node)
                found.extend(m for m in frame.mismatches if m not in found)
            frame.mismatches = found
            if backwards:
                frame.open.reverse()
            backwards = not backwards
            pending = frame.open if len(frame.types) > known else []

    def _node(self, frame: Frame, node: ir.Node) -> None:
        function = self.model.functions.get(node.op_identifier())
        if function is not None:
            self._call(frame, node, function)
            return
        nested = self._nested.get((node.domain, node.op_type))
        if nested is not None:
            nested(frame, node)
        version = frame.owner.opset_imports.get(node.domain, 1)
        known = in_force(node.domain, node.op_type, version)
        if nested is not None:
            self._admit_nested(frame, node, known)
            return
        if known is None:
            frame.unknown[node] = None
            for value in node.outputs:
                self._declared(frame, node, value)
            return
        bound = self._bind(frame, node, known)
        self._type_outputs(frame, node, known, bound)

    def _bind(self, frame: Frame, node: ir.Node, known: Schema) -> dict[str, ir.Value]:
        """Bind the schema's type variables by the inputs; return the value that bound each."""
        bound: dict[str, ir.Value] = {}
        unbound = False
        for index, value in enumerate(node.inputs):
            formal = known.input_at(index)
            if value is None or formal is None:
                continue
            text = frame.types.get(value)
            if text is None:
                unbound = True
                continue
            variable = formal.parameter
            if text not in known.allowed[variable]:
                use = Use(f"input {index} ({formal.name})", value, text, index)
                kind = Mismatch("unsupported", node, variable, (use,), known.allowed[variable])
                frame.mismatches.append(kind)
            first = bound.setdefault(variable, value)
            if first is not value and frame.types[first] != text and formal.homogeneous:
                self._mixed(frame, node, known, variable)
        if unbound:
            self._demand(frame, node, known, bound)
        return bound

    @staticmethod
    def _mixed(frame: Frame, node: ir.Node, known: Schema, variable: str) -> None:
        last = frame.mismatches[-1] if frame.mismatches else None
        if last is not None and (last.kind, last.node, last.variable) == ("mixed", node, variable):
            return
        uses = tuple(
            Use(f"input {index} ({formal.name})", value, frame.types[value], index)
            for index, value in enumerate(node.inputs)
            if value in frame.types
            and (formal := known.input_at(index)) is not None
            and formal.parameter == variable
        )
        frame.mismatches.append(Mismatch("mixed", node, variable, uses))

    @staticmethod
    def _bound_by_outputs(frame: Frame, node: ir.Node, known: Schema) -> dict[str, ir.Value]:
        decided = DECIDED.get((node.domain, node.op_type), {})
        return {
            formal.parameter: value
            for index, value in enumerate(node.outputs)
            if index not in decided
            and value in frame.types
            and (formal := known.output_at(index)) is not None
            and formal.homogeneous
        }

    def _demand(
        self, frame: Frame, node: ir.Node, known: Schema, bound: Mapping[str, ir.Value]
    ) -> None:
        """Give untyped inputs the type that their variable has from elsewhere."""
        bound = {**self._bound_by_outputs(frame, node, known), **bound}
        for index, value in enumerate(node.inputs):
            formal = known.input_at(index)
            if value is None or formal is None or value in frame.types or not formal.homogeneous:
                continue
            if formal.parameter in known.fixed:
                frame.types[value] = known.fixed[formal.parameter]
            elif formal.parameter in bound:
                source = bound[formal.parameter]
                frame.types[value] = frame.types[source]
                frame.origin[value] = source
            elif node not in frame.open[-1:]:
                frame.open.append(node)

    def _type_outputs(
        self, frame: Frame, node: ir.Node, known: Schema, bound: Mapping[str, ir.Value]
    ) -> None:
        decided = DECIDED.get((node.domain, node.op_type), {})
        for index, value in enumerate(node.outputs):
            formal = known.output_at(index)
            if formal is None:
                self._declared(frame, node, value)
                continue
            text = decided[index](frame, node) if index in decided else None
            source = bound.get(formal.parameter) if formal.homogeneous else None
            if text is not None:
                self._admit(frame, node, known, index, text)
                frame.give(value, text)
            elif source is not None and index not in decided:
                frame.give(value, frame.types[source], source)
            elif formal.parameter in known.fixed:
                frame.give(value, known.fixed[formal.parameter])
            else:
                self._declared(frame, node, value)

    @staticmethod
    def _admit(frame: Frame, node: ir.Node, known: Schema, index: int, text: str) -> None:
        formal = known.output_at(index)
        assert formal is not None
        allowed = known.allowed[formal.parameter]
        if text not in allowed:
            use = Use(f"output {index} ({formal.name})", node.outputs[index], text)
            frame.mismatches.append(
                Mismatch("unsupported", node, formal.parameter, (use,), allowed)
            )

    def _admit_nested(self, frame: Frame, node: ir.Node, known: Schema | None) -> None:
        """Hold what bodies make and take to what the operator around them admits."""
        for index, value in enumerate(node.outputs if known is not None else ()):
            if known is not None and known.output_at(index) is not None and value in frame.types:
                self._admit(frame, node, known, index, frame.types[value])

    @staticmethod
    def _declared(frame: Frame, node: ir.Node, value: ir.Value) -> None:
        if value in frame.types:
            return
        declared = spell(value.type)
        if declared is not None:
            frame.types[value] = declared
        elif node not in frame.open[-1:]:
            frame.open.append(node)

    def _call(self, frame: Frame, node: ir.Node, function: ir.Function) -> None:
        """Solve a function's body for this call's types, or reuse an equal call's."""
        given = [frame.types.get(value) if value is not None else None for value in node.inputs]
        attributes = {**function.attributes}
        for name in function.attributes:
            resolved = frame.attribute(node, name)
            if resolved is not None:
                attributes[name] = resolved
        spelled = tuple((name, str(a.value)) for name, a in attributes.items() if a is not None)
        key = (function.identifier(), tuple(given), spelled)
        body = self._calls.get(key)
        if body is None:
            body = self._calls[key] = Frame(function, attributes)
            types = {v: t for v, t in zip(function.inputs, given, strict=False) if t is not None}
            self._solve(body, types)
        for value, inner in zip(node.outputs, function.outputs, strict=False):
            text = body.types.get(inner)
            if text is not None:
                frame.give(value, text, inner)
            else:
                self._declared(frame, node, value)

    def _if(self, frame: Frame, node: ir.Node) -> None:
        branches = [
            attribute.as_graph()
            for name in ("then_branch", "else_branch")
            if (attribute := node.attributes.get(name)) is not None
        ]
        for branch in branches:
            self._body(frame, branch)
        for index, value in enumerate(node.outputs):
            uses = [
                Use(name, branch.outputs[index], frame.types[branch.outputs[index]])
                for name, branch in zip(("then_branch", "else_branch"), branches, strict=False)
                if branch.outputs[index] in frame.types
            ]
            if len({use.type for use in uses}) > 1:
                frame.mismatches.append(Mismatch("branches", node, value.name or "", tuple(uses)))
            if uses:
                frame.give(value, uses[0].type, uses[0].value)
            else:
                self._declared(frame, node, value)

    def _enter(self, frame: Frame, body: ir.Graph, values: list[_Entry]) -> None:
        """Type a body's inputs and solve it."""
        for value, text, source in values:
            frame.give(value, text, source)
        self._body(frame, body)

    def _carried(
        self, frame: Frame, node: ir.Node, index: int, before: ir.Value | None, after: ir.Value
    ) -> None:
        """Check that a loop-carried value keeps its type, and type the node's output by it."""
        first = frame.types.get(before) if before is not None else None
        last = frame.types.get(after)
        if last is not None and first == f"optional({last})":
            first = last  # an optional may enter empty and is a plain value from then on
        if first is not None and last is not None and first != last and before is not None:
            uses = (Use("before the loop", before, first), Use("after the body", after, last))
            frame.mismatches.append(Mismatch("carried", node, after.name or "", uses))
        self._leave(frame, node, index, first or last, after)

    def _leave(
        self, frame: Frame, node: ir.Node, index: int, text: str | None, source: ir.Value
    ) -> None:
        if index >= len(node.outputs):
            return
        if text is not None:
            frame.give(node.outputs[index], text, source)
        else:
            self._declared(frame, node, node.outputs[index])

    def _loop(self, frame: Frame, node: ir.Node) -> None:
        body = node.attributes["body"].as_graph()
        carried = list(node.inputs[2:])
        entering: list[_Entry] = [
            (value, text, None)
            for value, text in zip(body.inputs[:2], (_INT64, _BOOL), strict=False)
        ]
        for value, outer in zip(body.inputs[2:], carried, strict=False):
            text = frame.types.get(outer) if outer is not None else None
            if text is not None:
                entering.append((value, text, outer))
        self._enter(frame, body, entering)
        for index, after in enumerate(body.outputs[1:]):
            if index < len(carried):
                self._carried(frame, node, index, carried[index], after)
            else:
                self._leave(frame, node, index, frame.types.get(after), after)

    def _scan(self, frame: Frame, node: ir.Node) -> None:
        body = node.attributes["body"].as_graph()
        batched = frame.owner.opset_imports.get("", 9) < 9  # input 0 is sequence_lens there
        given = list(node.inputs[1:] if batched else node.inputs)
        states = len(given) - (frame.integer(node, "num_scan_inputs") or 0)
        entering: list[_Entry] = []
        for value, outer in zip(body.inputs, given, strict=False):
            text = frame.types.get(outer) if outer is not None else None
            if text is not None:
                entering.append((value, text, outer))
        self._enter(frame, body, entering)
        for index, after in enumerate(body.outputs):
            if index < states:
                self._carried(frame, node, index, given[index], after)
            else:
                self._leave(frame, node, index, frame.types.get(after), after)

    def _sequence_map(self, frame: Frame, node: ir.Node) -> None:
        body = node.attributes["body"].as_graph()
        entering: list[_Entry] = []
        for value, outer in zip(body.inputs, node.inputs, strict=False):
            text = frame.types.get(outer) if outer is not None else None
            if text is not None:
                entering.append((value, element(text) or text, outer))
        self._enter(frame, body, entering)
        for index, after in enumerate(body.outputs):
            text = frame.types.get(after)
            self._leave(frame, node, index, f"seq({text})" if text is not None else None, after)
