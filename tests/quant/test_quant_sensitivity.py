"""--sensitivity: what each product costs alone, and the fewest that stay float within a budget."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from quant_chains import chain, weight, within

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.passes.pipeline.text import parse
from vlmpass.passes.sensitivity import _Trial, stay_within
from vlmpass.pipeline import Pipeline

MODELS = int(os.environ.get("VLMPASS_QUANTISED", "8"))
"""More of them are drawn every night."""
WHOLE = "quantize-weights{bits=8 at-least=1}"


def ran(model: onnx.ModelProto, feed: dict) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)[0]


def rounded(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy in which some weights are rounded to 8 bits for each output, by definition."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    turned = {
        node.input[1]: any(each.name == "transB" and each.i for each in node.attribute)
        for node in model.graph.node if len(node.input) > 1
    }  # fmt: skip
    for tensor in made.graph.initializer:
        if tensor.name in names:
            w = numpy_helper.to_array(tensor)
            step = np.abs(w).max(1 if turned[tensor.name] else 0, keepdims=True) / np.float32(127)
            step = np.where(step > 0, step, np.float32(1))
            tensor.CopyFrom(numpy_helper.from_array(np.rint(w / step) * step, tensor.name))
    return made


@pytest.mark.parametrize("seed", range(MODELS))
def test_the_fewest_stay_and_errors_are_those(monkeypatch, tmp_path, seed):
    monkeypatch.setattr(_Trial, "_outputs", within)
    model = chain(seed, 17, "float")
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    feed = {"v0": np.random.default_rng(seed).standard_normal((5, size)).astype(np.float32)}
    np.savez(tmp_path / "a.npz", **feed)
    wanted = ran(model, feed).astype(np.float64)
    weights = list(dict.fromkeys(
        node.input[1] for node in model.graph.node if node.op_type in ("MatMul", "Gemm")
    ))  # fmt: skip

    def off(names) -> float:
        found = ran(rounded(model, set(names)), feed)
        return float(np.linalg.norm(found - wanted) / (np.linalg.norm(wanted) or 1))

    alone = {name: off([name]) for name in weights}
    order = sorted(weights, key=lambda name: -alone[name])
    budget = (off(weights) + off(order[-1:])) / 2
    source = ir.serde.from_proto(model)
    if not budget:
        assert stay_within(source, parse(WHOLE), 0.01, str(tmp_path)).left == 0
        return
    found = stay_within(source, parse(WHOLE), budget, str(tmp_path))
    assert [each.error for each in found.layers] == pytest.approx(list(alone.values()), rel=1e-3)
    assert found.whole == pytest.approx(off(weights), rel=1e-3)
    count = sum(each.stays for each in found.layers)
    assert found.left == pytest.approx(off(order[count:]), rel=1e-3)
    assert found.left <= budget < off(order[count - 1 :]) * 1.001
    result = Pipeline(WHOLE).run(source).proto()
    made = np.linalg.norm(ran(result, feed) - wanted) / np.linalg.norm(wanted)
    assert made == pytest.approx(found.left, rel=1e-3)
    again = ir.serde.from_proto(result)
    assert stay_within(again, parse(WHOLE), budget, str(tmp_path)) is None
    assert Pipeline(WHOLE).run(again).proto() == result


@pytest.fixture
def layers():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>\n'
        "g (float[n,32] x) => (float[n,32] y) { [one] a = MatMul(x, u) [two] y = MatMul(a, v) }"
    )
    dice = np.random.default_rng(0)
    model.graph.initializer.extend([weight(dice, "u", 32, 32), weight(dice, "v", 32, 32)])
    return model


def test_a_report_and_a_plot_tell_it(layers, tmp_path, monkeypatch):
    monkeypatch.setattr(_Trial, "_outputs", within)
    how = f"budget=10%,plot={tmp_path / 'plots'}"
    words = "quantize-weights{bits=4 block=32}"
    report = Pipeline(words, sensitivity=how).run(layers)
    first, second, *_ = report.notes
    assert first.startswith("sensitivity: 1 of 2 products stay float, so that outputs are ")
    assert first.endswith("of 10.00% at most")
    assert second.count("(stays float)") == 1
    drawn = (tmp_path / "plots" / "sensitivity.svg").read_text("utf-8")
    assert drawn.count("<circle") == 2
    assert "0: one," in drawn
    assert Pipeline(words, sensitivity=how).run(layers).proto() == report.proto()
    assert (tmp_path / "plots" / "sensitivity.svg").read_text("utf-8") == drawn


def test_a_budget_that_nothing_keeps_is_refused(layers):
    words = "quantize-weights{bits=4 block=32 exclude=[two]}"
    with pytest.raises(VlmpassError, match=r"no product can be rounded within 0\.10%: the least"):
        Pipeline(words, sensitivity="budget=0.1%").run(layers)


def test_a_model_of_no_floats_out_is_refused(layers, monkeypatch):
    monkeypatch.setattr(_Trial, "_outputs", lambda *_: [{}])
    with pytest.raises(VlmpassError, match="no output has floating-point numbers"):
        stay_within(ir.serde.from_proto(layers), parse(WHOLE), 0.01, "random")
