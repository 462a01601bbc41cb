"""quantize-dynamic: products in integers give what their definition says, and ORT's quantizer."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from quant_chains import chain, weight

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant import in_integers

MODELS = int(os.environ.get("VLMPASS_QUANTISED", "6"))
"""More of them are drawn every night; every fourth is compared by the pipeline, too."""
ALL = "quantize-dynamic{at-least=1}"
HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def ran(model: onnx.ModelProto, feeds: dict) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds)[0]


def rounded_input(x: np.ndarray) -> np.ndarray:
    """What DynamicQuantizeLinear leaves, by its definition."""
    low, high = min(0, x.min()), max(0, x.max())
    scale = np.float32(high - low) / np.float32(255) or np.float32(1)
    zero = np.clip(np.rint(np.float32(0 - low) / scale), 0, 255)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero).astype(np.float64) * scale


def by_definition(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What the chain computes where every product is of rounded numbers."""
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    values = {"v0": x}
    for node in model.graph.node:
        a = values[node.input[0]]
        if node.op_type in ("MatMul", "Gemm"):
            w = held[node.input[1]].astype(np.float32)
            turned = any(each.name == "transB" and each.i for each in node.attribute)
            w = w.T if turned else w
            scale = np.abs(w).max(0) / np.float32(127)
            scale = np.where(scale > 0, scale, 1)
            made = rounded_input(a.astype(np.float32)) @ (np.rint(w / scale) * np.float64(scale))
            made = made.astype(a.dtype)
            made = made + held[node.input[2]] if len(node.input) > 2 else made
        elif node.op_type == "Sub":
            made = a - values[node.input[1]]
        else:
            made = -a if node.op_type == "Neg" else np.maximum(a, 0)
        values[node.output[0]] = made
    return values["y"]


@pytest.mark.parametrize("seed", range(MODELS))
def test_products_of_rounded_numbers(seed):
    dtype = ("float", "float", "float16")[seed % 3]
    model = chain(seed, (13, 17, 21)[seed % 3], dtype)
    words = "at-least=1 weights=uint8" if seed % 2 else "at-least=1"
    compared = seed % 5 == 1
    report = Pipeline(f"quantize-dynamic{{{words}}}").run(model, verify=compared)
    if compared:
        assert max(each.max_abs for each in report.checked.numbers.outputs) == 0
    made = [node.op_type for node in report.model.graph]
    assert "MatMulInteger" in made
    assert not {"MatMul", "Gemm"} & set(made)
    again = Pipeline(ALL).run(report.model)
    assert again.proto() == report.proto()
    dice = np.random.default_rng(seed)
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = dice.standard_normal((5, size)).astype(np.float16 if dtype == "float16" else np.float32)
    wanted, found = by_definition(model, x), ran(report.proto(), {"v0": x})
    # A number half way between two may go either way after the first product.
    assert np.linalg.norm(found - wanted) <= 0.02 * np.linalg.norm(wanted) + 1e-6


def test_bit_by_bit_as_onnxruntime_quantizes(tmp_path):
    dice = np.random.default_rng(1)
    text = """g (float[n,64] x) => (float[n,48] y) {
        a = MatMul(x, u)  b = Relu(a)  c = MatMul(x, v)  d = Sub(b, c)  y = MatMul(d, w) }"""
    model = onnx.parser.parse_model(HEAD + text)
    for name, shape in (("u", (64, 80)), ("v", (64, 80)), ("w", (80, 48))):
        model.graph.initializer.append(weight(dice, name, *shape))
    onnx.save(model, tmp_path / "in.onnx")
    extra = {"WeightSymmetric": True, "MatMulConstBOnly": True}
    quantize_dynamic(
        tmp_path / "in.onnx", tmp_path / "theirs.onnx", ["MatMul"], per_channel=True,
        weight_type=QuantType.QInt8, extra_options=extra,
    )  # fmt: skip
    report = Pipeline(ALL).convert(
        tmp_path / "in.onnx", tmp_path / "ours.onnx", layout="inline", verify=False
    )
    made = [node.op_type for node in report.model.graph]
    assert made.count("DynamicQuantizeLinear") == 2
    x = {"x": dice.standard_normal((7, 64)).astype(np.float32)}
    ours, theirs = (onnx.load(tmp_path / f"{name}.onnx") for name in ("ours", "theirs"))
    assert np.array_equal(ran(ours, x), ran(theirs, x))


@pytest.mark.parametrize("spoilt", ["scales", "input"])
def test_a_wrong_part_is_found(monkeypatch, spoilt):
    """Of what a result is made of, and what it is held against is not."""
    real = in_integers.Integers._weight

    def wrong(self, tape, scope, weight):
        numbers, scales, middle = real(self, tape, scope, weight)
        return numbers, tape.Mul(scales, tape.const(np.float32(1.01))), middle

    if spoilt == "input":
        first = in_integers.Integers._input
        monkeypatch.setattr(
            in_integers.Integers, "_input",
            lambda *given: (first(*given)[0], first(*given)[1], given[1].const(np.uint8(3))),
        )  # fmt: skip
    else:
        monkeypatch.setattr(in_integers.Integers, "_weight", wrong)
    model = onnx.parser.parse_model(
        HEAD + "g (float[n,40] x) => (float[n,40] y) { y = MatMul(x, w) }"
    )
    model.graph.initializer.append(weight(np.random.default_rng(0), "w", 40, 40))
    with pytest.raises(VlmpassError, match="does not compute what the source computes"):
        Pipeline(ALL).run(model, verify=True)


def test_what_is_excluded_or_no_product_of_integers_stays():
    text = """g (float[n,64] x) => (float[n,64] y) {
        [first] a = MatMul(x, u)  [last] b = Gemm<alpha=0.5>(a, v)
        [third] c = MatMul(b, w) s = Softmax(c)  y = MatMul(s, u) }"""
    model = onnx.parser.parse_model(HEAD + text)
    for name in "uvw":
        model.graph.initializer.append(weight(np.random.default_rng(0), name, 64, 64))
    report = Pipeline("quantize-dynamic{exclude=[third Softmax Nothing]}").run(model)
    assert [node.op_type for node in report.model.graph].count("MatMulInteger") == 2
    (note,) = (each for each in report.notes if "in integers" in each)
    assert note.endswith("of 1 weights are in integers now; 1 stay, excluded; 1 stay, "
                         "of a Gemm with factors")  # fmt: skip
    assert any("no node is named like 'Nothing'" in each for each in report.notes)
    assert not any("'Softmax'" in each for each in report.notes)
    kept = Pipeline("quantize-dynamic{exclude=[MatMul]}").run(model)
    assert "no product has a float weight to round" in " ".join(kept.notes)


def test_products_in_branches_take_their_own_input():
    text = """g (float[n,32] x, bool c) => (float[n,32] y) {
        y = If (c) <
            then_branch = t () => (float[n,32] p) { p = MatMul(x, w) },
            else_branch = e () => (float[n,32] q) { r = MatMul(x, w)  q = Neg(r) }
        > }"""
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.append(weight(np.random.default_rng(0), "w", 32, 32))
    report = Pipeline(ALL).run(model, verify=True)
    assert any("rounding weights and what they multiply changes output 'y' by" in note
               for note in report.checked.numbers.notes)  # fmt: skip


@pytest.mark.parametrize(
    ("passes", "says"),
    [
        ("quantize-dynamic{at-least=0}", "has an element at least"),
        ("quantize-dynamic{exclude=['(']}", "exclude"),
        (ALL, "DynamicQuantizeLinear is there from opset 11 on; put convert-opset{to=11}"),
    ],
)
def test_what_cannot_be_is_refused(passes, says):
    with pytest.raises(VlmpassError) as raised:
        Pipeline(passes).run(chain(0, 10, "float"))
    assert says in str(raised.value)


def test_a_constant_is_not_needed_where_zero_is_in_the_middle():
    model = helper.make_model(
        onnx.parser.parse_graph("g (float[n,32] x) => (float[n,32] y) { y = MatMul(x, w) }"),
        opset_imports=[helper.make_opsetid("", 21)], ir_version=10,
    )  # fmt: skip
    model.graph.initializer.append(weight(np.random.default_rng(0), "w", 32, 32))
    (node,) = (n for n in Pipeline(ALL).run(model).model.graph if n.op_type == "MatMulInteger")
    assert len(node.inputs) == 3
