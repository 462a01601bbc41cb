"""What a target does with a node: one answer for the checker, the legaliser and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from vlmpass.ir_tools.operators.formal import Formal, Schema
from vlmpass.ir_tools.operators.schema import history, in_force, since
from vlmpass.ir_tools.targets.conditions import NodeView, type_of
from vlmpass.ir_tools.targets.operator_facts import Limit, Section, Types
from vlmpass.ir_tools.targets.support import Support, Verdict
from vlmpass.ir_tools.targets.toml_profile import Profile

__all__ = ["Context", "signature", "why_not"]

Signature = tuple["str | None", ...]
"""The types of a node's inputs, then of its outputs; empty text for one that is left out."""


@dataclass(frozen=True)
class Context:
    """What a node is judged for, and where it stands.

    Attributes:
        target: The target.
        opsets: Version of each domain where the node stands: those of the graph or function.
        ir_version: Of the model.
        functions: The model's own functions.
    """

    target: Profile
    opsets: Mapping[str, int]
    ir_version: int = 10
    functions: frozenset[ir.OperatorIdentifier] = frozenset()
    _known: dict[tuple[str, str], _Judge] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, model: ir.Model, target: Profile) -> Context:
        """Return the context of a model's main graph."""
        opsets = model.graph.opset_imports
        return cls(target, opsets, model.ir_version, frozenset(model.functions))

    def at(self, opsets: Mapping[str, int]) -> Context:
        """Return the context of another function or opset."""
        return replace(self, opsets=opsets, _known={})

    def judge(self, domain: str, op_type: str) -> _Judge:
        """Return what judges the nodes of an operator."""
        found = self._known.get((domain, op_type))
        if found is None:
            found = self._known[domain, op_type] = _judge_of(domain, op_type, self)
        return found

    def verdict(self, node: ir.Node, types: Signature) -> Verdict:
        """Return what the target does with a node, were its types others; see `why_not`.

        Args:
            node: The node.
            types: As `signature` gives them.
        """
        if self.functions and node.op_identifier() in self.functions:
            return _call(node, self)
        return self.judge(node.domain, node.op_type).verdict(node, types)


def why_not(node: ir.Node, context: Context) -> Verdict:
    """Return what a target does with a node, by its operator, types, shapes and constants.

    Nodes in its subgraphs are not looked at. A node need not be in a graph; its values should have
    types and shapes, since what is decided by those that are missing is unknown.

    Args:
        node: The node; neither it nor a large constant is read or changed.
        context: What for, and where.
    """
    return context.verdict(node, signature(node))


def signature(node: ir.Node) -> Signature:
    """Return the types of a node's inputs and outputs, as `_Judge.verdict` takes them."""
    return tuple(
        "" if value is None or (value.name == "" and not value.uses()) else type_of(value)
        for values in (node.inputs, node.outputs)
        for value in values
    )


def _call(node: ir.Node, context: Context) -> Verdict:
    support = context.target.functions
    said = {
        Support.NATIVE: "calls functions of the model",
        Support.AUTOMATIC: "inlines functions of the model",
        Support.UNKNOWN: "nothing says whether it calls functions of a model",
    }.get(support, "takes no functions of a model")
    name = ".".join(filter(None, (node.domain, node.op_type)))
    return Verdict(support, context.target.name, name, None, said, f"reads.functions: {said}")


@dataclass(frozen=True)
class _Judge:
    """Judges the nodes of one operator in one context.

    Attributes:
        always: The verdict where nothing of the node matters, and that of one that has no limits.
        section: What the profile says of the since-version; None where it says nothing.
        schema: The operator's schema; None where nobody knows it.
        opset: Version of the operator's domain.
        ir_version: Of the model.
        others: What holds for a type that a line does not name.
        every: What is said of types whatever the operator.
    """

    always: Verdict
    section: Section | None
    schema: Schema | None
    opset: int
    ir_version: int
    others: Support
    every: Types | None
    _typed: dict[tuple[int, Signature], Verdict] = field(default_factory=dict, compare=False)

    def verdict(self, node: ir.Node, types: Signature) -> Verdict:
        """Return what is done with a node of the operator with these types."""
        if self.section is None and self.every is None:
            return self.always
        key = len(node.inputs), types
        found = self._typed.get(key)
        if found is None:
            found = self._typed[key] = self._by_types(node, types)
        unless_empty: Verdict | None = None
        for limit in self.section.limits if self.section is not None else ():
            told = self._limited(limit, node, found) if limit.support > found.support else found
            if told.open:
                unless_empty = unless_empty or told
            else:
                found = told
        return unless_empty if unless_empty is not None and found.runs else found

    def _limited(self, limit: Limit, node: ir.Node, found: Verdict) -> Verdict:
        view = NodeView(node, self.schema, self.opset, self.ir_version)
        unknown = []
        for each in limit.conditions:
            holds = each.holds(view)
            if holds is False:
                return found
            if holds is None:
                unknown.append(each)
        if not unknown:
            reason = limit.text.partition(" if ")[2] or limit.reason or limit.text
            return self._said(limit.support, reason, limit.text)
        if found.support >= Support.UNKNOWN:
            return found
        open_ = next((each for each in unknown if each.is_open(view)), None)
        why = "which is not known here" if open_ is None else "and an axis is open"
        reason = f"it is {limit.support.word} if {(open_ or unknown[0]).text}, {why}"
        told = self._said(Support.UNKNOWN, reason, limit.text, missing=True)
        return replace(told, open=open_ is not None)

    def _by_types(self, node: ir.Node, types: Signature) -> Verdict:
        each = map(self._of_any, filter(None, types))
        worst = max((self.always, *each), key=_support)
        if self.section is None:
            return worst
        named = [line.name for line in self.section.types]
        bound = list(self._bound(len(node.inputs), types))
        known = {formal.parameter for formal, kind in bound if kind is not None}
        for line in self.section.types:
            name = line.name or self._first()
            for formal, kind in bound:
                if kind is None and formal.parameter in known:
                    continue  # another operand says what the parameter is
                # A line about a formal goes before one about its type parameter.
                typed = formal.parameter == name and formal.name not in named
                if typed or formal.name == name:
                    worst = max(worst, self._of_type(line, formal, kind), key=_support)
        return worst

    def _of_any(self, kind: str) -> Verdict:
        """Return what is done with an operand of a type, whatever the operator."""
        if self.every is None:
            return self.always
        others = self.others if self.every.others is None else self.every.others
        support = self.every.kinds.get(kind, others)
        if support is Support.NATIVE:
            return self.always
        told = {Support.AUTOMATIC: "casts {}", Support.UNSUPPORTED: "takes no {}"}
        reason = told.get(support, "may not take {}").format(_plain(kind))
        return self._said(support, reason, f"reads.types: {self.every.text}")

    def _first(self) -> str:
        """Return the type parameter that a line without a name is about."""
        if self.schema is None:
            return ""
        first = (*self.schema.inputs, *self.schema.outputs)
        return first[0].parameter if first else ""

    def _bound(self, inputs: int, types: Signature) -> Iterable[tuple[Formal, str | None]]:
        if self.schema is None:
            return
        for index, kind in enumerate(types):
            taken = index < inputs
            formal = self.schema.input_at(index) if taken else self.schema.output_at(index - inputs)
            if kind != "" and formal is not None:
                yield formal, kind

    def _of_type(self, line: Types, formal: Formal, kind: str | None) -> Verdict:
        if kind is None:
            reason = f"the type of {formal.name} is not known here"
            return self._said(Support.UNKNOWN, reason, line.text, missing=True)
        others = self.others if line.others is None else line.others
        support = line.kinds.get(kind, others)
        if support == Support.NATIVE:
            return self.always
        what = f"{formal.name} in {_plain(kind)}"
        told = {
            Support.AUTOMATIC: f"casts or inlines for {what}",
            Support.UNKNOWN: f"nothing says whether it takes {what}",
            Support.WRONG: f"takes {what} and computes something else",
            Support.UNSUPPORTED: f"has no {self._spelled()} for {what}",
        }
        return self._said(support, told[support], line.text)

    def _spelled(self) -> str:
        return f"{self.always.operator}-{self.always.since}"

    def _said(self, support: Support, reason: str, line: str, *, missing: bool = False) -> Verdict:
        fact = f"{self.always.operator}: {line}"
        return replace(self.always, support=support, reason=reason, fact=fact, missing=missing)


def _plain(kind: str) -> str:
    """Return a type as profiles spell it."""
    return kind.replace("tensor(", "").replace(")", "", 1)


def _support(verdict: Verdict) -> Support:
    return verdict.support


def _judge_of(domain: str, op_type: str, context: Context) -> _Judge:
    domain = "" if domain == "ai.onnx" else domain
    target = context.target
    opset = context.opsets.get(domain, context.opsets.get("ai.onnx", 1) if not domain else 1)
    schema = in_force(domain, op_type, opset)
    version = None if schema is None else schema.version
    name = f"{domain}.{op_type}" if domain else op_type
    facts = target.operators.get((domain, op_type))
    section = None if facts is None else facts.at(version or 1)

    def judged(support: Support, reason: str, found: Section | None = None) -> _Judge:
        always = Verdict(support, target.name, name, version, reason, "")
        others = target.without_facts("types")
        return _Judge(always, found, schema, opset, context.ir_version, others, target.types)

    if not domain and since(op_type, opset) is None and (schema is None or facts is None):
        return judged(Support.UNSUPPORTED, _absent(op_type, opset))
    if section is not None:
        return judged(Support.NATIVE, "has a kernel", section)
    if facts is not None:
        known = ", ".join(_versions(each) for each in facts.sections)
        return judged(*_unlisted(target, "versions", f"{name}-{version} (listed: {known})"))
    is_listed = not domain or any(each == domain for each, _ in target.operators)
    if is_listed:
        return judged(*_unlisted(target, "operators", name))
    return judged(*_unlisted(target, "domains", f"{name}, nor anything of its domain"))


def _unlisted(target: Profile, what: str, name: str) -> tuple[Support, str]:
    support = target.without_facts(what)
    told = {Support.UNKNOWN: f"nothing says whether it has {name}", Support.NATIVE: f"has {name}"}
    return support, told.get(support, f"has no {name}")


def _versions(section: Section) -> str:
    if section.last is None:
        return f"{section.first} and later"
    return (
        str(section.first) if section.first == section.last else f"{section.first}-{section.last}"
    )


def _absent(op_type: str, opset: int) -> str:
    versions = history(op_type)
    if not versions:
        return f"onnx has no operator {op_type}"
    if since(op_type, opset) is None:
        return f"opset {opset} has no {op_type}, which is from opset {versions[0]} on"
    return f"opset {opset} has {op_type} no more"
