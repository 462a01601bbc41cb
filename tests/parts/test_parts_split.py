"""Models cut out, cut up and joined again: what they compute, name and weigh stays."""

import json
import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import ModelError, PipelineError, Refused, SaveError
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.run import Runner, generate_inputs

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"
WAYS = {
    "layers": {"layers": 1},
    "budget": {"budget": "60KB"},
    "shared": {"budget": "60KB", "share": True},
}


def equal(expected, actual):
    return list(expected) == list(actual) and all(
        np.array_equal(np.asarray(expected[name]), np.asarray(actual[name])) for name in expected
    )


def interface(model):
    return [
        [(v.name, v.dtype, v.shape) for v in values]
        for values in (model.graph.inputs, model.graph.outputs)
    ]


def names(model):
    graph = model.graph
    return (
        {node.name for node in graph},
        {value.name for node in graph for value in node.outputs},
        set(graph.initializers),
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name",
    [
        "decoder.float32.ts17.onnx",
        "decoder.float32.dyn18.onnx",
        "text.float32.ts14.onnx",
        "vision.float32.dyn18.onnx",
    ],
)
def test_parts_compute_and_name_what_the_whole_does(tmp_path, name, way):
    source = vlmpass.load(EXPORTS / name)
    report = vlmpass.split(EXPORTS / name, tmp_path / "parts", **WAYS[way])
    assert len(report.parts) > 1
    feed = generate_inputs(source)
    with Runner(source) as whole:
        assert equal(whole.run(feed), vlmpass.run_parts(tmp_path / "parts", feed))
    vlmpass.compose(tmp_path / "parts", tmp_path / "whole.onnx")
    again = vlmpass.load(tmp_path / "whole.onnx")
    assert interface(again) == interface(source)
    assert names(again) == names(source)
    assert vlmpass.diff(source, again).ok
    assert again.metadata_props == source.metadata_props
    with Runner(source) as one, Runner(again) as other:
        assert equal(one.run(feed), other.run(feed))


def test_half_precision_is_joined_bit_for_bit(tmp_path):
    name = EXPORTS / "decoder.bfloat16.dyn18.onnx"
    vlmpass.split(name, tmp_path / "parts", layers=1)
    vlmpass.compose(tmp_path / "parts", tmp_path / "whole.onnx")
    found = vlmpass.verify(name, tmp_path / "whole.onnx")
    assert found.ok
    assert found.max_rel == 0


def test_borders_have_types_and_parts_their_own_weights_only(tmp_path):
    name = EXPORTS / "decoder.float32.ts17.onnx"
    report = vlmpass.split(name, tmp_path, layers=1)
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert [part["name"] for part in data["parts"]] == [part.name for part in report.parts]
    whole = sum(slot.tensor.nbytes for slot in tensor_slots(vlmpass.load(name)))
    for part in data["parts"]:
        assert all("[" in part["types"][each] for each in part["inputs"] + part["outputs"])
        assert part["nbytes"] < whole
        model = vlmpass.load(tmp_path / part["file"])
        vlmpass.check(model)
        assert all(value.uses() for value in model.graph.initializers.values())


def test_kept_weights_are_not_copied(tmp_path):
    vlmpass.save(
        vlmpass.load(EXPORTS / "decoder.float32.ts17.onnx"), tmp_path / "big.onnx", weights="copy"
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    report = vlmpass.split(tmp_path / "big.onnx", tmp_path, layers=1, weights="keep")
    made = sorted(path.name for path in tmp_path.iterdir() if path.name not in before)
    assert made == [*(Path(part.saved.path).name for part in report.parts), "manifest.json"]
    for part in report.parts:
        assert {file.how for file in part.saved.files[1:]} == {"kept"}
    with pytest.raises(SaveError, match="lies outside"):
        vlmpass.split(tmp_path / "big.onnx", tmp_path / "other", layers=1, weights="keep")
    assert not (tmp_path / "other").exists()


def test_a_shared_store_has_every_weight_once(tmp_path):
    report = vlmpass.split(EXPORTS / "text.float32.ts14.onnx", tmp_path, layers=1, share=True)
    data = [path.name for path in tmp_path.iterdir() if path.name.endswith(".data")]
    assert data == ["weights.onnx.data"]
    assert report.store is not None
    assert {f.how for part in report.parts for f in part.saved.files[1:]} == {"kept"}


def test_nothing_is_left_of_a_split_that_fails(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SaveError("the disk is full")

    monkeypatch.setattr("vlmpass.parts_folder.write_manifest", full)
    with pytest.raises(SaveError, match="full"):
        vlmpass.split(EXPORTS / "text.float32.ts14.onnx", tmp_path / "a", layers=1, share=True)
    left = [path.name for path in (tmp_path / "a").rglob("*") if "weights" in path.name]
    assert left == []


def test_one_part_converted_joins_with_the_others(tmp_path):
    name = EXPORTS / "decoder.float32.ts17.onnx"
    report = vlmpass.split(name, tmp_path / "parts", layers=1)
    first = report.parts[0].saved.path
    vlmpass.Pipeline(simplify=True).convert(first, first)
    vlmpass.compose(tmp_path / "parts", tmp_path / "whole.onnx")
    assert len(vlmpass.load(tmp_path / "whole.onnx").graph) < len(vlmpass.load(name).graph)
    assert vlmpass.verify(name, tmp_path / "whole.onnx").ok


def test_parts_that_no_longer_fit_are_refused(tmp_path):
    report = vlmpass.split(EXPORTS / "decoder.float32.ts17.onnx", tmp_path, layers=1)
    first = report.parts[0].saved.path
    model = vlmpass.load(first)
    model.graph.outputs[0].dtype = ir.DataType.DOUBLE
    vlmpass.save(model, first)
    with pytest.raises(ModelError, match=r"is double.* takes float"):
        vlmpass.compose(tmp_path, tmp_path / "whole.onnx")
    os.remove(first)
    with pytest.raises(ModelError, match="is not there"):
        vlmpass.compose(tmp_path, tmp_path / "whole.onnx")


def test_requests_that_make_no_sense_are_refused(tmp_path):
    name = EXPORTS / "decoder.float32.ts17.onnx"
    with pytest.raises(PipelineError, match="give one of them"):
        vlmpass.split(name, tmp_path, layers=1, budget="1MB")
    with pytest.raises(PipelineError, match="give one of them"):
        vlmpass.split(name, tmp_path)
    with pytest.raises(ModelError, match="no module 'nonsense'"):
        vlmpass.split(name, tmp_path, scopes=["nonsense"])
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(SaveError, match="--force"):
        vlmpass.split(name, tmp_path, layers=1)
    with pytest.raises(ModelError, match="no manifest of parts"):
        vlmpass.compose(tmp_path, tmp_path / "whole.onnx")


def text(body: str) -> ir.Model:
    return ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]>' + body)


BRANCHED = """g (float[n, 4] x, bool c) => (float[n, 4] y, float[n, 4] z, float[n, 4] x2) {
    a = Relu(x)
    b, d = Split <axis = 1> (a)
    e = Concat <axis = 1> (b, d)
    y = If (c) <
        then_branch = t () => (float[n, 4] i) { i = Add(a, e) },
        else_branch = f () => (float[n, 4] j) { j = Identity(e) }
    >
    z = Neg(e)
    x2 = Identity(x)
}"""


def extracted(model, tmp_path, **asked):
    vlmpass.extract(model, tmp_path / "piece.onnx", **asked)
    return vlmpass.load(tmp_path / "piece.onnx")


def test_a_submodel_has_what_its_branches_capture(tmp_path):
    piece = extracted(text(BRANCHED), tmp_path, inputs=["a", "e", "c"], outputs=["y"])
    assert [node.op_type for node in piece.graph] == ["If"]
    assert [value.name for value in piece.graph.inputs] == ["a", "e", "c"]
    assert str(piece.graph.inputs[1].shape) == "[n,4]"
    piece = extracted(text(BRANCHED), tmp_path, outputs=["z"])
    assert [value.name for value in piece.graph.inputs] == ["x"]
    assert [node.op_type for node in piece.graph] == ["Relu", "Split", "Concat", "Neg"]
    piece = extracted(text(BRANCHED), tmp_path, inputs=["e"], outputs=["z"])
    assert [node.op_type for node in piece.graph] == ["Neg"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"inputs": ["e"], "outputs": ["y"]}, "'y' also needs c, x; add c,x to the inputs"),
        ({"inputs": ["e", "x"], "outputs": ["z"]}, "'z' does not need 'x'; leave it out"),
        ({"inputs": ["b", "x"], "outputs": ["e"]}, "computed all the same, by the unnamed Split"),
        ({"inputs": ["ee"], "outputs": ["z"]}, "no value 'ee'"),
        ({"inputs": ["i"], "outputs": ["z"]}, "inside a subgraph"),
        ({"outputs": ["x"]}, "'x' is an input itself"),
        ({"inputs": ["z"]}, "no output depends on these"),
        ({"inputs": ["e"], "outputs": ["z"], "scope": "s"}, "leave --scope or the names out"),
        ({}, "nothing is asked for"),
        ({"scope": "s"}, "left no scopes"),
    ],
)
def test_borders_that_do_not_close_are_refused(tmp_path, asked, said):
    with pytest.raises(vlmpass.VlmpassError) as raised:
        extracted(text(BRANCHED), tmp_path, **asked)
    assert said in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_border_of_unknown_type_is_refused(tmp_path):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "odd": 1]>
        g (float[n] x) => (float[n] y) { a = odd.What(x) y = odd.What(a) }"""
    )
    with pytest.raises(Refused, match="no type is known of 'a'; declare it in the source"):
        extracted(model, tmp_path, inputs=["a"], outputs=["y"])


def test_a_submodel_has_the_functions_that_it_calls_and_a_weight_may_be_given(tmp_path):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "m": 1]>
        g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1.0, 2.0}> {
            a = m.outer(x, w) y = Neg(a) z = m.other(x)
        }
        <domain: "m", opset_import: ["": 17, "m": 1]> outer (a, b) => (c) { c = m.inner(a, b) }
        <domain: "m", opset_import: ["": 17]> inner (a, b) => (c) { c = Mul(a, b) }
        <domain: "m", opset_import: ["": 17]> other (a) => (c) { c = Exp(a) }"""
    )
    piece = extracted(model, tmp_path, outputs=["a"])
    assert [name for _, name, _ in piece.functions] == ["outer", "inner"]
    assert list(piece.graph.initializers) == ["w"]
    piece = extracted(model, tmp_path, inputs=["x", "w"], outputs=["a"])
    assert list(piece.graph.initializers) == []
    assert [str(value.shape) for value in piece.graph.inputs] == ["[2]", "[2]"]


def test_scopes_are_found_by_how_they_end(tmp_path):
    name = EXPORTS / "decoder.float32.dyn18.onnx"
    piece = extracted(name, tmp_path, scope="layers.0.self_attn")
    assert {"MatMul", "Softmax"} <= {node.op_type for node in piece.graph}
    with pytest.raises(ModelError, match="several modules 'self_attn'"):
        extracted(name, tmp_path, scope="self_attn")
