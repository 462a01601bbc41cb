"""Weights that two ends of a decoder share: the same bits, as they are, reshaped or turned."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import parse, run

from vlmpass.passes.relayout import tie as tied_weights
from vlmpass.passes.relayout.tie import Tie

VOCABULARY, WIDTH = 24, 32


def _model(weights: dict[str, np.ndarray], nodes: list[ir.Node], out: ir.Value) -> ir.Model:
    ids = next(value for node in nodes for value in node.inputs if value and value.name == "ids")
    values = {value.name: value for node in nodes for value in node.inputs if value is not None}
    for name, array in weights.items():
        values[name].const_value = ir.tensor(array, name=name)
        values[name].type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        values[name].shape = ir.Shape(array.shape)
    held = [values[name] for name in weights]
    imports = {"": 21, "com.microsoft": 1}
    graph = ir.Graph([ids], [out], nodes=nodes, initializers=held, opset_imports=imports, name="g")
    return ir.Model(graph, ir_version=10)


def decoder(rng: np.random.Generator, form: str, differs: int) -> ir.Model:
    """Return a model of a table and a head, which may differ in one place."""
    ids = ir.val("ids", dtype=ir.DataType.INT64, shape=["b", "s"])
    table = rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
    if form == "quantised":
        return _quantised(rng, ids, differs)
    other = table.copy()
    if differs:
        other.flat[int(rng.integers(other.size))] += 1
    turned = form == "turned"
    names = [ir.Value(name="table"), ir.Value(name="head")]
    nodes = [ir.node("Gather", [names[0], ids])]
    x = nodes[0].outputs[0]
    x.name, head = "x", names[1]
    if not turned:
        nodes.append(ir.node("Transpose", [head], {"perm": [1, 0]}))
        head = nodes[-1].outputs[0]
    nodes.append(ir.node("MatMul", [x, head]))
    out = nodes[-1].outputs[0]
    out.name, out.type = "out", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["b", "s", VOCABULARY])
    weights = {"table": table, "head": np.ascontiguousarray(other.T) if turned else other}
    return _model(weights, nodes, out)


def _quantised(rng: np.random.Generator, ids: ir.Value, differs: int) -> ir.Model:
    """Rows of 4 bits, looked up by GatherBlockQuantized and multiplied by MatMulNBits."""
    bits = rng.integers(0, 256, (VOCABULARY, WIDTH // 2)).astype(np.uint8)
    scales = rng.uniform(0.5, 1, (VOCABULARY, 1)).astype(np.float32)
    zeros = np.full((VOCABULARY, 1), 8, np.uint8)
    other = [bits.reshape(VOCABULARY, 1, WIDTH // 2).copy(), scales.ravel().copy()]
    if differs:
        other[differs % 2].flat[int(rng.integers(VOCABULARY))] += 1
    value = {name: ir.Value(name=name) for name in ("q", "s", "z", "head", "factors")}
    given = {"gather_axis": 0, "quantize_axis": 1, "block_size": 32, "bits": 4}
    nodes = [
        ir.node("GatherBlockQuantized", [value["q"], ids, value["s"], value["z"]], given,
                domain="com.microsoft"),
    ]  # fmt: skip
    nodes[0].outputs[0].name = "x"
    sizes = {"K": WIDTH, "N": VOCABULARY, "bits": 4, "block_size": 32}
    operands = [nodes[0].outputs[0], value["head"], value["factors"]]
    nodes.append(ir.node("MatMulNBits", operands, sizes, domain="com.microsoft"))
    out = nodes[-1].outputs[0]
    out.name, out.type = "out", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["b", "s", VOCABULARY])
    weights = {"q": bits, "s": scales, "z": zeros, "head": other[0], "factors": other[1]}
    return _model(weights, nodes, out)


def tied(seed: int) -> tuple[bool, bool]:
    """Return whether weights are shared, and whether the result is wrong."""
    rng = np.random.default_rng(seed)
    form = ("turned", "alike", "quantised")[seed % 3]
    model = decoder(rng, form, int(rng.integers(0, 3)))
    before = ir.serde.from_proto(ir.to_proto(model))
    held = sum(value.const_value.nbytes for value in model.graph.initializers.values())  # type: ignore[union-attr]
    Tie().run(model)
    left = sum(value.const_value.nbytes for value in model.graph.initializers.values())  # type: ignore[union-attr]
    feed = {"ids": rng.integers(0, VOCABULARY, (2, 3))}
    (wanted,), (got,) = run(before, feed), run(model, feed)
    assert not Tie().run(model)
    return left < 0.7 * held, not np.allclose(wanted, got, atol=1e-4)


def test_weights_are_shared_where_they_are_the_same() -> None:
    found = [tied(seed) for seed in range(60)]
    assert not any(wrong for _, wrong in found)
    assert 15 <= sum(shared for shared, _ in found) <= 45


def test_weights_that_are_taken_for_the_same_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied_weights, "_equal", lambda one, two: True)
    assert any(tied(seed)[1] for seed in range(12))


def test_only_the_first_tile_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = tied_weights._tiles
    monkeypatch.setattr(tied_weights, "_tiles", lambda weight: [next(tiles(weight))])
    assert any(tied(seed)[1] for seed in range(30))


def test_a_table_that_another_replaced_is_not_shared_again() -> None:
    text = """g(int64[b,s] ids) => (float[b,s,2] y, float[b,s,3] z) <float[3,2] A = {1,2,3,4,5,6},
        float[3,2] B = {1,2,3,4,5,6}> { y = Gather(A, ids) e = Gather(B, ids)
        T = Transpose<perm=[1,0]>(B) z = MatMul(e, T) }"""
    before, model = parse(text, 20), parse(text, 20)
    assert Tie().run(model)
    feed = {"ids": np.array([[0, 2]])}
    for wanted, got in zip(run(before, feed), run(model, feed), strict=True):
        assert np.array_equal(wanted, got)
