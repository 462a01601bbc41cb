"""Nodes that a rewrite takes out go many at a time, and only those that nothing uses."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.passes import PassManager, parse

LAYERS = 400


def chain() -> ir.Model:
    """As many outputs as layers, each with two Transposes that undo each other."""
    lines = [
        f"a{i} = Transpose<perm=[1,0]>(x) b{i} = Transpose<perm=[1,0]>(a{i}) y{i} = Relu(b{i})"
        for i in range(LAYERS)
    ]
    outputs = ", ".join(f"float[3,4] y{i}" for i in range(LAYERS))
    text = f"g (float[3,4] x) => ({outputs}) {{ {' '.join(lines)} }}"
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')


def test_calls_do_not_grow_with_the_rewrites(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = ir.Graph.remove

    def counted(graph: ir.Graph, nodes: object, /, safe: bool = False) -> None:
        nonlocal calls
        calls += 1
        real(graph, nodes, safe)  # type: ignore[arg-type]

    monkeypatch.setattr(ir.Graph, "remove", counted)
    model = chain()
    PassManager(parse("simplify")).run(model, in_place=True)
    assert [node.op_type for node in model.graph] == ["Relu"] * LAYERS
    assert calls < LAYERS / 10


def test_what_waits_is_off_its_values_at_once_and_gone_at_the_end() -> None:
    model = chain()
    removals = Removals()
    first, second, relu = list(model.graph)[:3]
    with pytest.raises(ValueError, match="still in use"):
        removals.remove(model.graph, [first])
    with pytest.raises(ValueError, match="still in use"):
        removals.remove(model.graph, [relu])
    relu.replace_input_with(0, model.graph.inputs[0])
    removals.remove(model.graph, [first, second])
    assert first in removals
    assert second in removals
    assert first.inputs == (None,)
    assert first.graph is model.graph
    removals.finish()
    assert first not in removals
    assert first.graph is None
    assert first not in list(model.graph)


def test_names_of_what_waits_are_free() -> None:
    model = chain()
    removals = Removals()
    names = Names.of(model, removals)
    first, second, relu = list(model.graph)[:3]
    relu.replace_input_with(0, model.graph.inputs[0])
    removals.remove(model.graph, [first, second])
    assert names.value("a0") == "a0"
    assert names.value("a1") != "a1"


def exposed(layers: int) -> ir.Model:
    """A chain of which every value is an output, with needless Casts and axes as attributes."""
    lines, outputs = [], []
    for i in range(layers):
        x = f"y{i - 1}" if i else "x"
        lines.append(
            f"m{i} = ReduceMean<axes=[1], keepdims=1>({x}) s{i} = Sub({x}, m{i})"
            f" n{i} = Cast<to=10>(s{i}) p{i} = Mul(n{i}, n{i}) h{i} = Cast<to=1>(p{i})"
            f" y{i} = Softplus(h{i})"
        )
        outputs += [f"float[3,4] {name}{i}" for name in ("s", "h", "y")]
    text = f"g (float[3,4] x) => ({', '.join(outputs)}) {{ {' '.join(lines)} }}"
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')


@pytest.mark.parametrize(
    "pipeline",
    [
        "convert-opset{to=18}",
        "unify-dtype{to=bfloat16}",
        "unify-dtype{to=float32}",
        "simplify",
        "infer,fold,cse,simplify",
    ],
)
def test_outputs_are_gone_over_a_few_times_and_not_for_each_node(
    pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of outputs, each look at all of them is what made passes quadratic."""
    looks = 0
    kind = type(exposed(1).graph.outputs)
    real = kind.__getitem__

    def counted(outputs: ir.Value, index: object) -> object:
        nonlocal looks
        looks += 1
        return real(outputs, index)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "__getitem__", counted)
    seen = []
    for layers in (40, 160):
        looks = 0
        PassManager(parse(pipeline)).run(exposed(layers), in_place=True)
        seen.append(looks)
    assert seen[1] <= 4.5 * seen[0]
