"""A node is said in the meaning of another version of its operator; the model's opset stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.load import load
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize

RECURRENT = """g (float[2,3,4] x, float[1,{rows},4] w, float[1,{rows},5] r) => (float[2,3,1,5] y)
  {{ y = {operator}<layout=1, hidden_size=5>(x, w, r) }}"""


def target(folder: Path, operator: str, line: str) -> str:
    path = folder / "target.toml"
    path.write_text(
        'inherits = "onnx-standard"\nabout = "lacks a feature"\nsource = "made up"\n'
        f'[operators]\n{operator} = ["native", "{line}"]\n'
    )
    return str(path)


def said(text: str, opset: int, name: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return a model, and the same made legal for a target."""
    source = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    model = load(source)
    Infer().run(model)
    Legalize(name).run(model)
    result = ir.to_proto(model)
    assert [each.version for each in result.opset_import] == [opset]
    return source, result


def computed(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, feeds)[0])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(("operator", "rows"), [("LSTM", 20), ("GRU", 15), ("RNN", 5)])
def test_recurrences_with_the_batch_first_run_on_onnx_runtime(operator: str, rows: int) -> None:
    text = RECURRENT.format(operator=operator, rows=rows)
    _, result = said(text, 22, "ort-cpu")
    assert operators(result) == ["Transpose", operator, "Transpose"]
    last = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 22]> g (float[3,2,4] x, float[1,{rows},4] w,'
        f" float[1,{rows},5] r) => (float[3,1,2,5] y) {{ y = {operator}<hidden_size=5>(x, w, r) }}"
    )
    draw = np.random.default_rng(1)
    x, w, r = (
        draw.normal(size=size).astype(np.float32)
        for size in ((2, 3, 4), (1, rows, 4), (1, rows, 5))
    )
    wanted = computed(last, {"x": x.transpose(1, 0, 2), "w": w, "r": r}).transpose(2, 0, 1, 3)
    np.testing.assert_array_equal(computed(result, {"x": x, "w": w, "r": r}), wanted)


@pytest.mark.parametrize(
    ("text", "opset", "line", "kept"),
    [
        (
            "g (float[a,3,4] x) => (int64[2] y) { y = Shape<start=1>(x) }",
            20,
            "unsupported if given(start)",
            "Shape",
        ),
        (
            "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax<axis=1>(x) }",
            12,
            "unsupported if axis != -1 2",
            "Softmax",
        ),
        (
            "g (float[2,3,4] x) => (int64[2,1,4] y) { y = ArgMax<axis=1, select_last_index=1>(x) }",
            13,
            "unsupported if select_last_index = 1",
            "ArgMax",
        ),
    ],
    ids=["older", "newer", "older with others"],
)
def test_the_operator_itself_stays(
    tmp_path: Path, text: str, opset: int, line: str, kept: str
) -> None:
    source, result = said(text, opset, target(tmp_path, kept, line))
    assert kept in operators(result)
    assert operators(result) != operators(source)
    x = np.random.default_rng(2).integers(-2, 2, [2, 3, 4]).astype(np.float32)
    np.testing.assert_array_equal(computed(result, {"x": x}), computed(source, {"x": x}))


def test_what_no_version_says_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    name = target(tmp_path, "Hardmax", "unsupported if given(axis)")
    with pytest.raises(Refused, match=r"y \(Hardmax-13\): given\(axis\).*no spelling in others"):
        said("g (float[2,3] x) => (float[2,3] y) { y = Hardmax<axis=1>(x) }", 18, name)
