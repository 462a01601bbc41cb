"""quantize-weights{tied=true}: a table of embeddings and the head stay one tensor of 8 bits."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from quant_chains import weight, within

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.passes.pipeline.text import parse
from vlmpass.passes.sensitivity import _Trial, stay_within
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant.tied import TiedTable
from vlmpass.rewriter_rules.quant.tied_blocks import TiedBlocks

PASS = "quantize-weights{tied=true at-least=1}"
TURNED = """[look] e = Gather(t, i)  u = Transpose<perm=[1,0]>(t)  r = Relu(e)  m = MatMul(r, w)
    [head] y = MatMul(m, u)"""
GEMM = """[look] e = Gather(t, i)  s = Squeeze(e, zero) m = MatMul(s, w)
    [head] g = Gemm<transB=1>(m, t)  y = Unsqueeze(g, zero)"""


def model(
    seed: int, body: str, dtype: str = "float", opset: int = 21, width: int = 24
) -> onnx.ModelProto:
    dice = np.random.default_rng(seed)
    made = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]>\n'
        f"g (int64[1,n] i) => ({dtype}[1,n,50] y) <int64[1] zero = {{0}}> {{ {body} }}"
    )
    rows = dice.gamma(1, 1, (50, 1))
    table = numpy_helper.to_array(weight(dice, "t", 50, width, dtype=dtype)) * rows
    table[3] = 0
    kind = np.float16 if dtype == "float16" else np.float32
    made.graph.initializer.append(numpy_helper.from_array(table.astype(kind), "t"))
    made.graph.initializer.append(weight(dice, "w", width, width, dtype=dtype))
    return made


def ran(given: onnx.ModelProto, ids: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(given.SerializeToString(), options)
    return session.run(None, {"i": ids})[0]


def rounded(array: np.ndarray, axis: int) -> np.ndarray:
    """A weight of 8 bits with a scale for each row or column, by definition."""
    step = np.abs(array.astype(np.float32)).max(axis, keepdims=True) / np.float32(127)
    step = np.where(step > 0, step.astype(array.dtype).astype(np.float32), 1)
    return (np.rint(array / step) * step).astype(array.dtype)


@pytest.mark.parametrize("seed", range(8))
def test_both_use_the_same_numbers(seed):
    body, dtype = (TURNED, GEMM)[seed % 2], ("float", "float16")[seed // 2 % 2]
    given = model(seed, body, dtype, opset=(21, 19)[seed // 4])
    report = Pipeline(PASS).run(given)
    made = report.proto()
    tables = [each for each in made.graph.initializer if list(each.dims) == [50, 24]]
    assert [each.data_type for each in tables] == [onnx.TensorProto.INT8]
    users = [node.op_type for node in made.graph.node if tables[0].name in node.input]
    assert sorted(users) == ["DequantizeLinear", "Gather"]
    assert Pipeline(PASS).run(report.model).proto() == made
    wanted = onnx.ModelProto()
    wanted.CopyFrom(given)
    for tensor in wanted.graph.initializer:
        if tensor.name in "tw":
            numbers = rounded(numpy_helper.to_array(tensor), 1 if tensor.name == "t" else 0)
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    ids = np.array([[0, 3, 49, -1, 7]])
    (made_pass,) = parse(PASS)
    likewise = ir.serde.from_proto(given)
    made_pass.round_likewise(likewise, set())
    # Of float16 ONNX Runtime computes some in float32, and rounds once less.
    off = 0 if dtype == "float" else 2e-3 * np.abs(ran(wanted, ids)).max()
    for held in (wanted, ir.to_proto(likewise)):
        assert np.abs(ran(made, ids).astype(np.float64) - ran(held, ids)).max() <= off


def test_a_wrong_scale_is_found(monkeypatch):
    real = TiedTable.looked_up
    monkeypatch.setattr(
        TiedTable, "looked_up", lambda self, tape, *given: tape.Neg(real(self, tape, *given))
    )
    with pytest.raises(VlmpassError, match="does not compute what the source computes"):
        Pipeline(PASS).run(model(0, TURNED), verify=True)


@pytest.mark.parametrize(
    "body",
    [
        TURNED.replace("Gather", "Gather<axis=1>"),
        TURNED.replace("r = Relu(e)", "r = Relu(e)  k = ReduceMax<keepdims=0>(t)"),
        TURNED.replace("[head] y = MatMul(m, u)", "v = Neg(u)  [head] y = MatMul(m, v)"),
        TURNED.replace("[1,0]", "[0,1]"),
        GEMM.replace("transB=1", "transB=0"),
        GEMM.replace("Gemm<transB=1>(m, t)", "Gemm<transB=1>(t, t)"),
    ],
)
def test_a_table_with_other_users_stays(body):
    (made,) = parse(PASS)
    given = ir.serde.from_proto(model(0, body))
    made.run(given)
    assert "t" in given.graph.initializers


def test_what_is_excluded_or_not_asked_for_stays():
    for words in ("at-least=1", "at-least=1 tied=true exclude=[head]"):
        report = Pipeline(f"quantize-weights{{{words}}}").run(model(0, TURNED))
        assert "t" in report.model.graph.initializers


def test_a_sensitive_table_stays(monkeypatch):
    monkeypatch.setattr(_Trial, "_outputs", within)
    (made,) = parse(PASS)
    given = ir.serde.from_proto(model(0, TURNED))
    found = stay_within(given, [made], 0.006, "random")
    assert found.layers[0].name == "look"
    assert [each.stays for each in found.layers] == [True, False]
    made.run(given)
    assert "t" in given.graph.initializers


@pytest.mark.parametrize(
    ("words", "opset", "says"),
    [
        ("tied=true bits=4", 21, "is dequantised has 8 bits and a scale for each row; say form"),
        ("tied=true block=32", 21, "that is dequantised has 8 bits"),
        ("tied=true form=matmul-nbits bits=2", 21, "in blocks has 4 or 8 bits, and zero in the"),
        ("tied=true form=matmul-nbits symmetric=false bits=4", 21, "has 4 or 8 bits, and zero in"),
        ("tied=true form=matmul-nbits bits=4 at-least=1", 21, "rows of 24 numbers are not filled"),
    ],
)
def test_what_cannot_be_is_refused(words, opset, says):
    with pytest.raises(VlmpassError) as raised:
        Pipeline(f"quantize-weights{{{words}}}").run(model(0, TURNED, opset=opset))
    assert says in str(raised.value)


def blocks_case(seed: int):
    """A model, the pass, and the type it computes in."""
    choose = random.Random(seed)
    block, dtype = choose.choice([16, 32]), choose.choice(["float", "float", "float16"])
    body, bits = choose.choice([TURNED, GEMM, LOST, AT_ONCE]), choose.choice([4, 8])
    if choose.random() < 0.5:
        body = body.replace("(m, t)", "(m, t, b)")
    given = model(seed, body, dtype, choose.choice([17, 21]), choose.choice([32, 64, 96]))
    given.graph.initializer.append(weight(np.random.default_rng(seed), "b", 50, dtype=dtype))
    words = f"bits={bits} block={block} search={choose.choice(['true', 'false'])}"
    return given, f"quantize-weights{{tied=true at-least=1 form=matmul-nbits {words}}}", dtype


LOST = """n = Shape(i)  j = Reshape(i, n)  [look] e = Gather(t, j)  k = Shape(e)  r = Reshape(e, k)
    m = MatMul(r, w)  u = Transpose<perm=[1,0]>(t)  [head] y = MatMul(m, u)"""
"""Ids of whose rank nothing is known."""
AT_ONCE = """u = Transpose<perm=[1,0]>(t)  [look] e = Gather(t, i)  [head] y = MatMul(e, u)"""
"""A head that takes what was looked up, with nothing between."""


@pytest.mark.parametrize("seed", range(12))
def test_blocks_are_one_tensor_for_both(seed):
    given, words, dtype = blocks_case(seed)
    result, likewise = ir.serde.from_proto(given), ir.serde.from_proto(given)
    (made_pass,) = parse(words)
    made_pass.run(result)
    made_pass.round_likewise(likewise, set())
    made = ir.to_proto(result)
    onnx.checker.check_model(made)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in made.graph.node:
        for name in node.input[:2]:
            users.setdefault(name, []).append(node)
    (rows,) = (node for node in made.graph.node if node.op_type == "GatherBlockQuantized")
    assert sorted(node.op_type for node in users[rows.input[0]]) == [
        "GatherBlockQuantized", "MatMulNBits"
    ]  # fmt: skip
    held = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    (head,) = (node for node in users[rows.input[0]] if node is not rows)
    numbers, scales, bits = held[rows.input[0]], held[head.input[2]], made_pass.bits
    parts = (numbers[..., None] >> np.arange(0, 8, bits, dtype=np.uint8)) & ((1 << bits) - 1)
    whole = parts.reshape(*scales.shape, -1).astype(np.float32) - (1 << (bits - 1))
    table = (whole * scales[..., None].astype(np.float32)).reshape(len(scales), -1)
    (was,) = (numpy_helper.to_array(x) for x in given.graph.initializer if x.name == "t")
    far = np.linalg.norm(table - was) / np.linalg.norm(was)
    assert far < (0.15 if bits == 4 else 0.01)
    assert not table[3].any()
    (seen,) = (x for x in ir.to_proto(likewise).graph.initializer if x.name == "t")
    np.testing.assert_allclose(numpy_helper.to_array(seen), table, rtol=2e-3 * (dtype != "float"))
    for ids in ([[0, 3, 49, -1, 7]], [[5]]):
        found, wanted = (ran(each, np.array(ids)) for each in (made, ir.to_proto(likewise)))
        off = (2e-5 if dtype == "float" else 2e-2) * np.abs(wanted).max()
        assert np.abs(found.astype(np.float64) - wanted).max() <= off


@pytest.mark.parametrize("wrong", ["looked_up", "multiplied"])
def test_a_wrong_use_of_blocks_is_found(monkeypatch, wrong):
    real = getattr(TiedBlocks, wrong)
    monkeypatch.setattr(TiedBlocks, wrong, lambda self, tape, *given: tape.Neg(
        real(self, tape, *given)))  # fmt: skip
    with pytest.raises(AssertionError):
        test_blocks_are_one_tensor_for_both(0)


def test_a_head_with_factors_is_refused():
    body = GEMM.replace("transB=1", "transB=1, alpha=2.0")
    with pytest.raises(VlmpassError, match="MatMulNBits has no factors, and the Gemm has; leave"):
        Pipeline("quantize-weights{tied=true at-least=1 bits=4 form=matmul-nbits}").run(
            model(0, body, width=32)
        )
