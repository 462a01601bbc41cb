"""Which nodes stay in float32 when a model goes to half precision, as whole islands.

Some operators lose what matters in float16: statistics, exponentials, angles. Around them an island
grows over the elementwise nodes that tie their results together again (`x - mean`, `x * rsqrt`), so
that a normalisation is entered and left once, whatever its spelling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators import Kind, combining, named, rearranging, traits_of
from vlmpass.ir_tools.types.carried import carries
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["SENSITIVE", "divisors", "grow", "seeds"]

_NORM = "a normalisation sums squares"
_SOFTMAX = "a softmax exponentiates and sums"
_SUM = "a reduction adds many numbers"
_RANGE = "its results span more than half precision holds"
_ANGLE = "an angle of many turns needs its low bits"

_SUMS = {
    name
    for name in named(Kind.REDUCTION, Kind.CUMULATION)
    if (traits := traits_of("", name)) is not None and not traits.exact
}
SENSITIVE: Mapping[tuple[str, str], str] = {
    (domain, name): reason
    for domain, names, reason in (
        (
            "",
            "LayerNormalization RMSNormalization SimplifiedLayerNormalization GroupNormalization"
            " InstanceNormalization LpNormalization MeanVarianceNormalization",
            _NORM,
        ),
        (
            "com.microsoft",
            "SkipLayerNormalization SkipSimplifiedLayerNormalization EmbedLayerNormalization"
            " GroupNorm SkipGroupNorm",
            _NORM,
        ),
        ("", "Softmax LogSoftmax", _SOFTMAX),
        ("", " ".join(_SUMS | {"GlobalAveragePool", "GlobalLpPool"}), _SUM),
        ("", "Exp Log Pow Softplus Reciprocal Sqrt", _RANGE),
        ("", "Sin Cos Tan Range", _ANGLE),
    )
    for name in sorted(names.split())
}
"""Operators that compute in float32, with the reason."""

_SKIPPING = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})

_SCATTERS = frozenset({"ScatterElements", "ScatterND"})
_SCATTER = "ONNX Runtime's CPU adds up what is scattered in float32 only"

_CARRYING = rearranging() | {"Pow", "Reciprocal", "Sqrt"}
_TIES = combining() | {"Div", "Mean"}
_BRIDGES = _TIES | rearranging() | {"Abs", "Clip", "Neg"}


def seeds(
    model: ir.Model, typing: Typing, sensitive: Mapping[tuple[str, str], str], half: ir.DataType
) -> dict[ir.Node, str]:
    """Return the nodes of sensitive operators that compute in floats, with the reason.

    Not those that take and give the half precision and compute in float32 in between, as a fused
    normalisation does: that is an island already.

    Args:
        model: The model.
        typing: Its types.
        sensitive: Why an operator stays wide, by domain and name.
        half: FLOAT16 or BFLOAT16.
    """
    found = {}
    for scope in scopes(model):
        for node in scope.graph:
            reason = sensitive.get((node.domain, node.op_type), _scatters(node))
            if reason == _NORM and _is_wide_inside(node, typing, half):
                continue
            if reason is not None and any(_is_float(v, typing) for v in node.outputs):
                found[node] = f"{node.op_type} stays wide: {reason}"
    for node in list(found):
        for below in _below(node):
            found.setdefault(below, found[node])
    return found


def _is_wide_inside(node: ir.Node, typing: Typing, half: ir.DataType) -> bool:
    """Whether a normalisation of halves takes its statistics in float32."""
    if not node.inputs or node.inputs[0] is None or typing.dtype(node.inputs[0]) != half:
        return False
    if carries((node.domain, node.op_type)) != "stash_type":
        return node.domain == "com.microsoft" and node.op_type in _SKIPPING
    stash = node.attributes.get("stash_type")
    return stash is None or (not stash.is_ref() and stash.as_int() == ir.DataType.FLOAT)


def _scatters(node: ir.Node) -> str | None:
    if node.domain or node.op_type not in _SCATTERS:
        return None
    reduction = node.attributes.get("reduction")
    return None if reduction is None or reduction.value == "none" else _SCATTER


def _below(node: ir.Node) -> tuple[ir.Node, ...]:
    """Return what belongs to a sensitive node below it: a square, or a softmax's shift."""
    below = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if below is None or below.domain:
        return ()
    if below.op_type == "Mul" and below.inputs[0] is below.inputs[1]:
        return (below,) if node.op_type.startswith("Reduce") else ()
    if node.op_type != "Exp" or below.op_type != "Sub" or below.inputs[1] is None:
        return ()
    top = below.inputs[1].producer()
    return (below, top) if top is not None and top.op_type == "ReduceMax" else ()


def _is_float(value: ir.Value | None, typing: Typing) -> bool:
    dtype = typing.dtype(value) if value is not None else None
    return dtype is not None and dtype.is_floating_point()


def _is_constant(value: ir.Value) -> bool:
    """Whether a value is a constant, or one that is cast."""
    below = value.producer()
    if below is not None and (below.domain, below.op_type) == ("", "Cast"):
        source = below.inputs[0]
        return source is not None and constant_of(source) is not None
    return constant_of(value) is not None


def divisors(guarded: Mapping[ir.Node, str]) -> dict[ir.Node, str]:
    """Return what divides by a number that a tiny constant keeps from being zero, with the reason.

    Args:
        guarded: Nodes with a constant that half precision does not hold, such as ``x + 1e-12``.
    """
    found: dict[ir.Node, str] = {}
    for start, reason in guarded.items():
        waiting, passed = [start], {start: None}
        while waiting:
            node = waiting.pop()
            for user, index in (use for value in node.outputs for use in value.uses()):
                divides = user.op_type == "Log" or (user.op_type == "Div" and index == 1)
                if user.op_type == "Mul":
                    divides = any(each.op_type == "Reciprocal" for each in passed)
                if user.domain or user in passed or not (divides or user.op_type in _CARRYING):
                    continue
                passed[user] = None
                if divides:
                    found.update(dict.fromkeys(passed, reason))
                else:
                    waiting.append(user)
    return found


def _centred(quotient: ir.Node) -> bool:
    """Whether what a node divides is a difference, as what a LayerNormalization divides is."""
    above = quotient.inputs[0].producer() if quotient.inputs and quotient.inputs[0] else None
    return quotient.op_type == "Div" and above is not None and above.op_type == "Sub"


class _Growth:
    """The island nodes of one graph."""

    def __init__(self, scope: Scope, typing: Typing, kept: dict[ir.Node, str]) -> None:
        self.nodes = list(scope.graph)
        self.typing = typing
        self.kept = kept
        self.entering = {
            value for node in self.nodes if node in kept for value in self._varying(node)
        }

    def run(self) -> None:
        for node in self.nodes:
            if node not in self.kept and not node.domain and node.op_type in _TIES:
                self._tie(node)
                self._scale(node)
        self._bridge()
        for node in self.nodes:
            self._weigh(node)

    def _varying(self, node: ir.Node) -> Iterator[ir.Value]:
        for value in node.inputs:
            if value is None or _is_constant(value):
                continue
            if _is_float(value, self.typing):
                yield value

    def _base(self, value: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
        """Look back through nodes with one varying input; return where they start, and them."""
        passed: list[ir.Node] = []
        while not self._is_inside(value) and value not in self.entering:
            node = value.producer()
            if node is None or node.domain or node.op_type not in _BRIDGES:
                break
            varying = list(self._varying(node))
            if len(varying) != 1:
                break
            passed.append(node)
            value = varying[0]
        return value, passed

    def _is_inside(self, value: ir.Value) -> bool:
        return value.producer() in self.kept

    def _tie(self, node: ir.Node) -> None:
        """Take in a node that ties results of the island to each other or to what enters it."""
        varying = list(self._varying(node))
        bases = [self._base(value) for value in varying]
        if len(bases) < 2 or not any(self._is_inside(base) for base, _ in bases):
            return
        if not all(self._is_inside(base) or base in self.entering for base, _ in bases):
            return
        inside = next(base for base, _ in bases if self._is_inside(base)).producer()
        assert inside is not None
        for each in (node, *(one for _, passed in bases for one in passed)):
            self.kept.setdefault(each, self.kept[inside])
        self.entering.update(varying)

    def _scale(self, node: ir.Node) -> None:
        """Take in what scales a result by a number: a sum divided by how many there were."""
        if node.op_type not in ("Mul", "Div") or None in node.inputs:
            return
        varying = list(self._varying(node))
        numbers = [constant_of(value) for value in node.inputs if value is not None]
        scalar = any(each is not None and each.size == 1 for each in numbers)
        if scalar and len(varying) == 1 and self._is_inside(varying[0]):
            inside = varying[0].producer()
            assert inside is not None
            self.kept.setdefault(node, self.kept[inside])

    def _weigh(self, node: ir.Node) -> None:
        """Take in weight and bias of a LayerNormalization that is spelled out.

        ONNX Runtime fuses it over a Cast between; where its input is no half, that has two types.
        """
        users = [user for value in node.outputs for user, _ in value.uses()]
        varying = list(self._varying(node)) if node.op_type == "Mul" and not node.domain else []
        if len(varying) != 1 or len(users) != 1 or node in self.kept:
            return
        quotient, (added,) = varying[0].producer(), users
        biased = (added.domain, added.op_type) == ("", "Add") and len(
            list(self._varying(added))
        ) == 1
        if biased and quotient in self.kept and _centred(quotient):
            self.kept[node] = self.kept[added] = self.kept[quotient]

    def _bridge(self) -> None:
        """Take in what lies between nodes of the island and nowhere else."""
        candidates: dict[ir.Node, str] = {}
        for node in self.nodes:
            if node in self.kept or node.domain or node.op_type not in _BRIDGES:
                continue
            varying = list(self._varying(node))
            sources = [value.producer() for value in varying]
            reasons = [self.kept.get(s) or candidates.get(s) for s in sources if s is not None]
            if varying and len(reasons) == len(varying) and all(reasons):
                candidates[node] = str(reasons[0])
        for node in reversed(self.nodes):
            if node not in candidates:
                continue
            users = [user for value in node.outputs for user, _ in value.uses()]
            leaves = any(value.is_graph_output() for value in node.outputs)
            if users and not leaves and all(user in self.kept for user in users):
                self.kept[node] = candidates[node]


def grow(model: ir.Model, typing: Typing, kept: Mapping[ir.Node, str]) -> dict[ir.Node, str]:
    """Return the nodes of whole islands around some nodes, each with the reason.

    Args:
        model: The model.
        typing: Its types.
        kept: The nodes to start from, with their reasons.
    """
    grown = dict(kept)
    for scope in scopes(model):
        _Growth(scope, typing, grown).run()
    return grown
