"""The matcher against a plain one that tries everything, on random patterns and graphs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.operators import commutes
from vlmpass.ir_tools.rewrite import P, Pattern, Rule, Tape, refuse, rule
from vlmpass.ir_tools.rewrite.alignment import MatchContext
from vlmpass.ir_tools.rewrite.constant_values import Constants
from vlmpass.ir_tools.rewrite.index import Index
from vlmpass.ir_tools.rewrite.match import Match
from vlmpass.ir_tools.rewrite.pattern import Capture, Either, Number, Op, Through

OPSETS = {"": 20}
FLOAT = ir.DataType.FLOAT
Env = dict[object, ir.Value]


# ----------------------------------------------------------------------------------- plain matcher
def plain(pattern: Pattern, value: ir.Value, env: Env) -> Iterator[Env]:
    """Yield every way to match a pattern at a value, by trying all orders and alternatives."""
    match pattern:
        case Capture():
            if env.get(pattern.name, value) is value:
                yield {**env, pattern.name: value}
        case Number():
            tensor = constant_of(value)
            if tensor is not None and float(tensor.numpy()) == pattern.value:
                yield env
        case _ if env.get(pattern, value) is value:
            # A part that stands in several places is one value.
            env = {**env, pattern: value}
            for part, where in _ways(pattern, value):
                yield from _inputs(list(zip(part, where, strict=True)), env)


def _ways(
    pattern: Pattern, value: ir.Value
) -> Iterator[tuple[Sequence[Pattern], Sequence[ir.Value | None]]]:
    """Yield parts of a pattern with the values that they have to match."""
    node = value.producer()
    match pattern:
        case Either():
            yield from (((option,), (value,)) for option in pattern.options)
        case Through():
            yield (pattern.inner,), (value,)
            while node is not None and node.op_type in pattern.ops:
                yield (pattern.inner,), (node.inputs[0],)
                node = node.inputs[0].producer() if node.inputs[0] is not None else None
        case Op() if node is not None and ("", node.op_type) in pattern.ops:
            yield pattern.inputs, node.inputs
            if commutes("", node.op_type):
                yield pattern.inputs[::-1], node.inputs


def _inputs(pairs: list[tuple[Pattern, ir.Value | None]], env: Env) -> Iterator[Env]:
    if not pairs:
        yield env
        return
    (pattern, value), *rest = pairs
    assert value is not None
    for found in plain(pattern, value, env):
        yield from _inputs(rest, found)


# ------------------------------------------------------------------------------------ random things
@st.composite
def patterns(draw: st.DrawFn) -> Op:
    """Draw a pattern; parts of it may stand in several places."""
    parts: list[Pattern] = [P("a"), P("b"), P(0.5), P(2.0)]
    for _ in range(draw(st.integers(1, 6))):
        part = st.sampled_from(parts)
        kind = draw(st.sampled_from(["Add", "Mul", "Sub", "Neg", "Exp", "either", "through"]))
        if kind == "either":
            parts.append(P.either(draw(part), draw(part)))
        elif kind == "through":
            parts.append(P.through(draw(part), "Identity"))
        elif kind in ("Neg", "Exp"):
            parts.append(getattr(P, kind)(draw(part)))
        else:
            parts.append(getattr(P, kind)(draw(part), draw(part)))
    inner = st.sampled_from(parts[2:])
    return draw(st.sampled_from([P.Add, P.Mul, P.Sub]))(draw(inner), draw(inner))


def grow(draw: st.DrawFn, graph: ir.Graph, values: list[ir.Value], count: int) -> None:
    """Add random nodes."""
    for _ in range(count):
        kind = draw(st.sampled_from(["Add", "Mul", "Sub", "Neg", "Exp", "Identity"]))
        size = 1 if kind in ("Neg", "Exp", "Identity") else 2
        put(graph, values, kind, [draw(st.sampled_from(values)) for _ in range(size)])


def put(graph: ir.Graph, values: list[ir.Value], kind: str, inputs: list[ir.Value]) -> ir.Value:
    node = ir.Node("", kind, inputs)
    node.outputs[0].name = f"v{len(values)}"
    graph.append(node)
    values.append(node.outputs[0])
    return node.outputs[0]


def instance(
    draw: st.DrawFn, graph: ir.Graph, values: list[ir.Value], pattern: Pattern, made: Env
) -> ir.Value:
    """Add nodes that a pattern matches, now and then with one part made a second time."""
    if pattern in made and draw(st.integers(0, 9)):
        return made[pattern]
    match pattern:
        case Capture():
            value = made.setdefault(pattern.name, draw(st.sampled_from(values)))
        case Number():
            value = values[2 if pattern.value == 0.5 else 3]
        case Either():
            value = instance(draw, graph, values, draw(st.sampled_from(pattern.options)), made)
        case Through():
            value = instance(draw, graph, values, pattern.inner, made)
            for _ in range(draw(st.integers(0, 2))):
                value = put(graph, values, "Identity", [value])
        case Op():
            inputs = [instance(draw, graph, values, part, made) for part in pattern.inputs]
            kind = pattern.ops[0][1]
            if commutes("", kind) and draw(st.booleans()):
                inputs.reverse()
            value = put(graph, values, kind, inputs)
        case _:
            raise AssertionError(pattern)
    made[pattern] = value
    return value


@st.composite
def cases(draw: st.DrawFn) -> tuple[Op, ir.Graph]:
    """Draw a pattern and a graph in which it, or nearly it, stands among other nodes."""
    pattern = draw(patterns())
    values = [ir.Value(name=f"x{i}", type=ir.TensorType(FLOAT)) for i in range(2)]
    graph = ir.Graph(list(values), [], nodes=[], opset_imports=OPSETS, name="g")
    for number in (0.5, 2.0):
        tensor = ir.tensor(np.array(number, np.float32), name=str(number))
        value = ir.Value(name=str(number), const_value=tensor, shape=ir.Shape([]))
        graph.register_initializer(value)
        values.append(value)
    grow(draw, graph, values, draw(st.integers(0, 5)))
    instance(draw, graph, values, pattern, {})
    grow(draw, graph, values, draw(st.integers(0, 3)))
    return pattern, graph


def as_rule(pattern: Op) -> Rule:
    """Return a rule of a pattern; every capture is any value, and may be missing."""

    def anything(op: Tape, **captured: object) -> object:
        """Pattern -> refused."""
        return refuse("never")

    names = [name for name in ("a", "b") if _names(pattern, name)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("op", kind)]
    for name in names:
        parameters.append(inspect.Parameter(name, kind, annotation=ir.Value | None))
    anything.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return rule(pattern)(anything)


def _names(pattern: Pattern, name: str) -> bool:
    match pattern:
        case Capture():
            return pattern.name == name
        case Op():
            return any(_names(part, name) for part in pattern.inputs)
        case Either():
            return any(_names(part, name) for part in pattern.options)
        case Through():
            return _names(pattern.inner, name)
    return False


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(case=cases())
def test_the_matcher_finds_what_trying_everything_finds(case: tuple[Op, ir.Graph]) -> None:
    pattern, graph = case
    one = as_rule(pattern)
    around = MatchContext(OPSETS, Constants())
    index = Index([one], around)
    for node in graph:
        wanted = list(plain(pattern, node.outputs[0], {}))
        match = Match(one, around, {})
        found = match.run(node)
        assert found == bool(wanted)
        if found:
            assert one in [candidate.rule for candidate in index.rules_at(node)]
            bound = {name: value for name, value in match.captured.items() if value is not None}
            assert any(
                all(env.get(name) is value for name, value in bound.items()) for env in wanted
            )
