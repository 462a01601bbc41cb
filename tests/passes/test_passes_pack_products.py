"""Products of one input become one: seeded graphs, before and after, and what has to stay apart."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from vlmpass import Pipeline
from vlmpass.ir_tools.load import load

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
KINDS = {"float32": FLOAT, "float16": HALF, "float64": DOUBLE}


def drawn(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray], int]:
    """Return a graph, a feed, and how many products are left when it is packed."""
    rng = np.random.default_rng(seed)
    kind, opset = str(rng.choice(list(KINDS))), int(rng.choice([8, 11, 13, 17, 18, 21, 23]))
    inner, rank = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    shape = [*(int(size) for size in rng.integers(1, 4, rank - 1)), inner]
    nodes, weights, outputs, own = [], [], [], 0
    shared = rng.standard_normal((inner, 3)).astype(kind)
    weights.append(numpy_helper.from_array(shared, "shared"))
    for number in range(int(rng.integers(2, 5))):
        name, width = f"w{number}", int(rng.integers(1, 6))
        if rng.random() < 0.2:
            name, width = "shared", 3
        else:
            array = rng.standard_normal((inner, width)).astype(kind)
            weights.append(numpy_helper.from_array(array, name))
            own += 1
        nodes.append(helper.make_node("MatMul", ["x", name], [f"m{number}"], f"/product{number}"))
        result = f"m{number}"
        if rng.random() < 0.6:
            result = f"y{number}"
            nodes.append(helper.make_node("Relu", [f"m{number}"], [result], f"/relu{number}"))
        outputs.append(helper.make_tensor_value_info(result, KINDS[kind], [*shape[:-1], width]))
    nodes.append(helper.make_node("MatMul", ["x", "shared"], ["once_more"], "/once_more"))
    outputs.append(helper.make_tensor_value_info("once_more", KINDS[kind], [*shape[:-1], 3]))
    nodes.append(helper.make_node("Identity", ["shared"], ["given"], "/given"))
    outputs.append(helper.make_tensor_value_info("given", KINDS[kind], [inner, 3]))
    axes = [f"n{axis}" for axis in range(rank - 1)] if rng.random() < 0.5 else shape[:-1]
    x = helper.make_tensor_value_info("x", KINDS[kind], [*axes, inner])
    graph = helper.make_graph(nodes, "g", [x], outputs, weights)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    products = sum(node.op_type == "MatMul" for node in nodes)
    left = products - max(0, own - 1)
    return model, {"x": rng.standard_normal(shape).astype(kind)}, left


def results(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)


@pytest.mark.parametrize("seed", range(40))
def test_packed_products_compute_the_same(seed: int) -> None:
    model, feed, left = drawn(seed)
    packed = Pipeline("pack-products").run(load(model), verify=False).proto()
    onnx.checker.check_model(packed, full_check=True)
    assert sum(node.op_type == "MatMul" for node in packed.graph.node) == left
    for one, other in zip(results(model, feed), results(packed, feed), strict=True):
        bound = 2e-3 if one.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(one, other, rtol=bound, atol=bound)
    again = Pipeline("pack-products").run(load(packed), verify=False).proto()
    assert again.SerializeToString() == packed.SerializeToString()


APART = {
    "weights of others": "a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b) z = Relu(w)",
    "other inputs": "r = Relu(x) a = MatMul(x, w) b = MatMul(r, v) y = Add(a, b) z = Relu(x)",
    "no matrix": "a = MatMul(x, w) b = MatMul(x, u) y = Add(a, b) z = Relu(x)",
}


@pytest.mark.parametrize("what", APART)
def test_what_stays_apart(what: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[2,2] x) => (float[2,2] y, float[2,2] z)
    <float[2,2] w = {{1, 2, 3, 4}}, float[2,2] v = {{5, 6, 7, 8}},
     float[1,2,2] u = {{5, 6, 7, 8}}> {{ {APART[what]} }}"""
    report = Pipeline("pack-products").run(load(onnx.parser.parse_model(text)), verify=False)
    found = [node.op_type for node in report.proto().graph.node]
    assert found.count("MatMul") == 2


def test_inside_a_branch_and_around_it() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2,2] x, bool c) => (float[2,2] y)
    <float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {5, 6, 7, 8}> {
      a = MatMul(x, w)
      t = If (c) <
        then_branch = one () => (float[2,2] p) <float[2,1] q = {1, 2}, float[2,1] r = {3, 4}> {
            d = MatMul(x, q) e = MatMul(x, r) p = Concat<axis=1>(d, e) },
        else_branch = two () => (float[2,2] o) { o = MatMul(x, v) }>
      y = Add(a, t) }"""
    model = onnx.parser.parse_model(text)
    packed = Pipeline("pack-products").run(load(model), verify=False).proto()
    onnx.checker.check_model(packed, full_check=True)
    inside = packed.graph.node[1].attribute[0].g
    assert [node.op_type for node in inside.node] == ["MatMul", "Split", "Concat"]
    for condition in (True, False):
        feed = {"x": np.arange(4, dtype=np.float32).reshape(2, 2), "c": np.array(condition)}
        for one, other in zip(results(model, feed), results(packed, feed), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
