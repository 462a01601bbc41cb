"""quant-linear wherever a layer may stand: functions, subgraphs, Gemm, shared and typed parts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from quant_places import (
    FEEDS,
    QWEIGHT,
    QZEROS,
    SCALE,
    SCALE_INITIALIZER,
    SCALES,
    UNPACK,
    WEIGHTS,
    K,
    N,
    called,
    constants,
    model,
    packed,
    single,
)
from quant_tools import nbits_weight, numbers, run

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes.inline_functions import InlineFunctions
from vlmpass.passes.quant_linear import QuantLinear


def test_quant_function_with_its_own_weights() -> None:
    qweight, qzeros = packed(0)
    inner = model(f"""<ir_version: 10, opset_import: ["": 21, "local": 1]>
    g (float[m,{K}] x) => (float[m,{N}] y, float[m,{N}] z) {{
        y = local.linear(x) xx = Mul(x, x) z = local.linear(xx) }}
    <domain: "local", opset_import: ["": 21]>
    linear (x) => (y) {{
        qweight = Constant<value = {QWEIGHT} {qweight}>()
        qzeros = Constant<value = {QZEROS} {qzeros}>()
        scales = Constant<value = {SCALE} {numbers(SCALES)}>()
        bias = Constant<value = float[{N}] {numbers(np.arange(N))}>()
        {UNPACK} p = MatMul(x, u) y = Add(p, bias) }}""")
    wanted = run(inner, FEEDS)
    assert QuantLinear().run(inner)
    check(inner)
    (function,) = inner.functions.values()
    count = Counter(node.op_type for node in function)
    assert count == {"MatMulNBits": 1, "Constant": 4}
    for result, reference in zip(run(inner, FEEDS), wanted, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-3)


def test_quant_function_given_the_same_weights_by_every_call() -> None:
    outer = called(0, 0)
    for node in outer.graph:
        if node.op_type == "linear":
            for index, name in enumerate(("qweight", "qzeros"), 1):
                node.replace_input_with(index, outer.graph.initializers[name])
    wanted = run(outer, FEEDS)
    assert QuantLinear().run(outer)
    check(outer)
    (function,) = outer.functions.values()
    assert [node.op_type for node in function if node.op_type != "Constant"] == ["MatMulNBits"]
    assert [each.name for each in function.inputs] == ["x"]
    assert [len(node.inputs) for node in outer.graph if node.op_type == "linear"] == [1, 1]
    assert not {"qweight", "qzeros", "scales"} & set(outer.graph.initializers)
    for result, reference in zip(run(outer, FEEDS), wanted, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-3)


def test_quant_function_given_other_weights_by_each_call_is_refused() -> None:
    outer = called(0, 1)
    before = ir.to_proto(outer).SerializeToString()
    with pytest.raises(Refused, match="calls pass different ones; put inline-functions before it"):
        QuantLinear().run(outer)
    assert ir.to_proto(outer).SerializeToString() == before


def test_quant_function_after_inlining() -> None:
    outer = called(0, 1)
    wanted = run(outer, FEEDS)
    InlineFunctions().run(outer)
    assert QuantLinear().run(outer)
    assert Counter(node.op_type for node in outer.graph) == {"MatMulNBits": 2, "Mul": 1}
    nodes = [node for node in outer.graph if node.op_type == "MatMulNBits"]
    for node, weight in zip(nodes, WEIGHTS, strict=True):
        np.testing.assert_array_equal(nbits_weight(node), weight)
    for result, reference in zip(run(outer, FEEDS), wanted, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-3)


def test_quant_function_whose_calls_pass_something_computed_is_no_weight() -> None:
    outer = called(0, 0)
    call = next(node for node in outer.graph if node.op_type == "linear")
    scale = ir.Node("", "ReduceMean", [outer.graph.inputs[0]], num_outputs=1)
    scale.outputs[0].name = "varies"
    outer.graph.insert_before(call, scale)
    call.replace_input_with(3, scale.outputs[0])
    assert not QuantLinear().run(outer)


def test_quant_function_given_an_unpacked_weight_is_refused() -> None:
    outer = model(f"""<ir_version: 10, opset_import: ["": 21, "local": 1]>
    g (float[m,{K}] x) => (float[m,{N}] y)
    <{constants(0)}, {SCALE_INITIALIZER}> {{ {UNPACK} y = local.linear(x, u) }}
    <domain: "local", opset_import: ["": 21]>
    linear (x, weight) => (y) {{ y = MatMul(x, weight) }}""")
    with pytest.raises(Refused, match="unpacked outside of its function; put inline-functions"):
        QuantLinear().run(outer)


def test_quant_subgraph_with_the_weight_outside() -> None:
    branches = single(
        f"""y = If (flag) <then_branch = t () => (float[m,{N}] y1) {{ y1 = MatMul(x, u) }},
        else_branch = e () => (float[m,{N}] y2) {{ xx = Neg(x) y2 = MatMul(xx, u) }}>""",
        inputs=", bool flag",
    )
    assert QuantLinear().run(branches)
    check(branches)
    count = Counter(node.op_type for node in all_nodes(branches))
    assert count == {"If": 1, "MatMulNBits": 2, "Neg": 1}
    for flag, sign in ((True, 1), (False, -1)):
        (result,) = run(branches, {**FEEDS, "flag": np.array(flag)})
        np.testing.assert_allclose(result, sign * FEEDS["x"] @ WEIGHTS[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("to", ["matmul-nbits", "dequantize-linear", "float"])
def test_quant_gemm(to: str, turned: bool) -> None:
    middle = "v = Transpose(u) y = Gemm<transB=1>(x, v, bias)" if turned else "y = Gemm(x, u, bias)"
    gemm = single(middle, f", float[{N}] bias = {numbers(np.arange(N))}")
    assert QuantLinear(to=to).run(gemm)
    check(gemm)
    expected = {
        "matmul-nbits": ["MatMulNBits"],
        "dequantize-linear": ["DequantizeLinear", "Gemm"],
        "float": ["Gemm"],
    }
    assert [node.op_type for node in gemm.graph] == expected[to]
    wanted = FEEDS["x"] @ WEIGHTS[0] + np.arange(N)
    np.testing.assert_allclose(run(gemm, FEEDS)[0], wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("to", ["matmul-nbits", "dequantize-linear"])
def test_quant_gemm_of_an_activation_shaped_for_it(to: str) -> None:
    shaped = model(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,4,{K}] x) => (float[m,4,{N}] y)
    <{constants(0)}, {SCALE_INITIALIZER}, float[{N}] bias = {numbers(np.arange(N))},
     int64[2] flat = {{-1, {K}}}, int64[3] back = {{-1, 4, {N}}}> {{
        {UNPACK} r = Reshape(x, flat) p = Gemm(r, u, bias) y = Reshape(p, back) }}""")
    feeds = {"x": np.stack([FEEDS["x"]] * 4, 1)}
    (wanted,) = run(shaped, feeds)
    assert QuantLinear(to=to).run(shaped)
    expected = ["DequantizeLinear", "MatMul", "Add"] if to != "matmul-nbits" else ["MatMulNBits"]
    assert [node.op_type for node in shaped.graph] == expected
    np.testing.assert_allclose(run(shaped, feeds)[0], wanted, rtol=1e-4, atol=1e-3)


def test_quant_gemm_that_adds_a_matrix_is_refused() -> None:
    gemm = single("y = Gemm(x, u, matrix)", inputs=f", float[m,{N}] matrix")
    with pytest.raises(Refused, match="does more than multiply and add a bias"):
        QuantLinear().run(gemm)


def test_quant_gemm_with_a_factor_is_refused() -> None:
    gemm = single("y = Gemm<alpha=0.5>(x, u)")
    with pytest.raises(Refused, match="does more than multiply and add a bias"):
        QuantLinear().run(gemm)


@pytest.mark.parametrize(
    ("bias", "taken"),
    [
        (f"float[{N}] bias = {numbers(np.arange(N))}", True),
        (f"float[1,{N}] bias = {numbers(np.arange(N))}", True),
        ("float bias = {2}", True),
        (f"float[1,1,{N}] bias = {numbers(np.arange(N))}", False),
    ],
)
def test_quant_bias_of_any_shape_that_broadcasts_to_the_outputs(bias: str, taken: bool) -> None:
    added = single("p = MatMul(x, u) y = Add(bias, p)", f", {bias}")
    if not taken:
        added.graph.outputs[0].shape = ir.Shape([1, None, N])
    (wanted,) = run(added, FEEDS)
    assert QuantLinear().run(added)
    assert [node.op_type for node in added.graph] == ["MatMulNBits", *["Add"] * (not taken)]
    np.testing.assert_allclose(run(added, FEEDS)[0], wanted, rtol=1e-4, atol=1e-3)


def test_quant_bias_that_varies_or_is_seen_elsewhere_stays() -> None:
    varies = single("p = MatMul(x, u) y = Add(p, bias)", inputs=f", float[{N}] bias")
    assert QuantLinear().run(varies)
    assert [node.op_type for node in varies.graph] == ["MatMulNBits", "Add"]
    seen = single("p = MatMul(x, u) q = Add(p, bias) y = Mul(q, p)", ", float bias = {2}")
    (wanted,) = run(seen, FEEDS)
    assert QuantLinear().run(seen)
    assert [node.op_type for node in seen.graph] == ["MatMulNBits", "Add", "Mul"]
    np.testing.assert_allclose(run(seen, FEEDS)[0], wanted, rtol=1e-4, atol=1e-2)


def test_quant_bias_of_another_type_is_cast_offline() -> None:
    added = single(
        "wide = Cast<to=1>(bias) p = MatMul(x, u) y = Add(p, wide)",
        f", float16[{N}] bias = {numbers(np.arange(N, dtype=np.float16).view(np.uint16))}",
    )
    assert QuantLinear().run(added)
    (node,) = added.graph
    assert (node.op_type, node.inputs[5].dtype) == ("MatMulNBits", ir.DataType.FLOAT)
    wanted = FEEDS["x"] @ WEIGHTS[0] + np.arange(N)
    np.testing.assert_allclose(run(added, FEEDS)[0], wanted, rtol=1e-4, atol=1e-3)


def test_quant_bias_before_the_shape_comes_back() -> None:
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,4,{K}] x) => (float[m,4,{N}] y)
    <{constants(0)}, {SCALE_INITIALIZER}, float[{N}] bias = {numbers(np.arange(N))},
     int64[2] flat = {{-1, {K}}}, int64[3] back = {{-1, 4, {N}}}> {{
        {UNPACK} r = Reshape(x, flat) p = MatMul(r, u) q = Add(p, bias) y = Reshape(q, back) }}"""
    flat = model(text)
    feeds = {"x": np.stack([FEEDS["x"]] * 4, 1)}
    (wanted,) = run(flat, feeds)
    assert QuantLinear().run(flat)
    assert [node.op_type for node in flat.graph] == ["MatMulNBits"]
    np.testing.assert_allclose(run(flat, feeds)[0], wanted, rtol=1e-4, atol=1e-3)
    text = text.replace(f"-1, 4, {N}", f"4, -1, {N}").replace(f"[m,4,{N}] y", f"[4,m,{N}] y")
    other = model(text)
    assert QuantLinear().run(other)
    assert [node.op_type for node in other.graph] == ["Reshape", "MatMulNBits", "Reshape"]
    feeds = {"x": np.stack([FEEDS["x"]] * 4, 1)[:2]}
    result = run(other, feeds)[0]
    np.testing.assert_allclose(result.reshape(2, 4, N), wanted[:2], rtol=1e-4, atol=1e-3)


def test_quant_initializers_that_are_inputs_are_refused() -> None:
    open_ended = single("y = MatMul(x, u)")
    open_ended.graph.inputs.append(open_ended.graph.initializers["qweight"])
    with pytest.raises(Refused, match="'qweight' is an input as well, so that callers may replace"):
        QuantLinear().run(open_ended)


def test_quant_a_shared_weight_is_stored_once() -> None:
    twice = single("p = MatMul(x, u) n = Neg(x) q = MatMul(n, u) y = Mul(p, q)")
    assert QuantLinear().run(twice)
    nodes = [node for node in twice.graph if node.op_type == "MatMulNBits"]
    assert [value.name for value in nodes[0].inputs[1:4]] == [
        value.name for value in nodes[1].inputs[1:4]
    ]
    assert len(twice.graph.initializers) == 3
    (result,) = run(twice, FEEDS)
    product = FEEDS["x"] @ WEIGHTS[0]
    np.testing.assert_allclose(result, -product * product, rtol=1e-3, atol=1e-1)
