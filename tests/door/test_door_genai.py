"""Folders of ONNX Runtime GenAI are converted as a set, or stay as they are."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from door_tools import listing

import vlmpass
from vlmpass.ir_tools.errors import ModelError, VlmpassError

EMBEDDING = """<ir_version: 8, opset_import: ["": 17]>
g (int64[b, s] input_ids, float[64, 32] table) => (float[b, s, 32] inputs_embeds) {
    found = Gather(table, input_ids)
    zero = Constant<value_float=0.0>()
    inputs_embeds = Add(found, zero)
}"""
DECODER = """<ir_version: 8, opset_import: ["": 17]>
g (float[b, s, 32] inputs_embeds, float[32, 64] head) => (float[b, s, 64] logits) {
    one = Constant<value_float=1.0>()
    same = Mul(inputs_embeds, one)
    logits = MatMul(same, head)
}"""


def write(path, text):
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(text)
    value = model.graph.inputs[-1]
    array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
    value.const_value = ir.tensor(array, name=value.name)
    model.graph.inputs.remove(value)
    model.graph.register_initializer(value)
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=0)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "embeddings.onnx", EMBEDDING)
    write(tmp_path / "model.onnx", DECODER)
    decoder = {"filename": "model.onnx", "inputs": {"inputs_embeds": "inputs_embeds"}}
    parts = {"embedding": {"filename": "embeddings.onnx"}, "decoder": decoder}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": parts}))
    return tmp_path


def test_every_model_that_is_named_is_converted_in_its_place(folder):
    config = (folder / "genai_config.json").read_bytes()
    reports = vlmpass.convert_genai(folder, vlmpass.Pipeline(simplify=True, opset=20))
    assert list(reports) == ["embeddings.onnx", "model.onnx"]
    for name, report in reports.items():
        model = vlmpass.load(folder / name)
        assert (model.opset_imports[""], len(model.graph)) == (20, 1)
        assert report.checked.numbers.ok
    assert (folder / "genai_config.json").read_bytes() == config
    assert sorted(listing(folder)) == sorted(
        ["genai_config.json", *reports, *(f"{name}.data" for name in reports)]
    )


def test_types_between_models_still_fit(folder):
    reports = vlmpass.convert_genai(folder, vlmpass.Pipeline(dtype="float16"))
    assert all(report.checked.numbers.ok for report in reports.values())
    given = vlmpass.load(folder / "embeddings.onnx").graph.outputs[0].dtype
    assert given == vlmpass.load(folder / "model.onnx").graph.inputs[0].dtype == ir.DataType.FLOAT16


class Half(ir.passes.InPlacePass):
    """Gives what one of the models gives in float16, and leaves the others as they are."""

    def call(self, model):
        graph = model.graph
        last = graph.outputs[0]
        if last.name == "inputs_embeds":
            made = ir.node("Cast", [last], attributes={"to": ir.DataType.FLOAT16})
            graph.append(made)
            last.name, made.outputs[0].name = "wide", "inputs_embeds"
            made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
            made.outputs[0].shape, graph.outputs[0] = last.shape, made.outputs[0]
        return ir.passes.PassResult(model, True)


class Rename(ir.passes.InPlacePass):
    """Names an input otherwise."""

    def call(self, model):
        model.graph.inputs[0].name = "renamed"
        return ir.passes.PassResult(model, True)


class Wrong(ir.passes.InPlacePass):
    """Makes a weight of the last model a little wrong."""

    def call(self, model):
        if (head := model.graph.initializers.get("head")) is not None:
            head.const_value = ir.tensor(head.const_value.numpy() * np.float32(1.01), name="head")
        return ir.passes.PassResult(model, True)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Half(), "would give 'inputs_embeds' as FLOAT16, and model.onnx takes FLOAT"),
        (Rename(), "input 'input_ids' is missing"),
        (Wrong(), "does not compute what the source computes"),
    ],
)
def test_what_no_longer_fits_changes_nothing(folder, broken, says):
    before = listing(folder)
    with pytest.raises(VlmpassError, match=says):
        vlmpass.convert_genai(folder, vlmpass.Pipeline([broken]))
    assert listing(folder) == before


def test_names_stay_where_nothing_is_compared(folder, monkeypatch):
    monkeypatch.setattr("vlmpass.acceptance.Acceptance._why_not", lambda self: "cannot be")
    before = listing(folder)
    with pytest.raises(VlmpassError, match="would have other inputs than"):
        vlmpass.convert_genai(folder, vlmpass.Pipeline([Rename()]))
    assert listing(folder) == before


def test_a_refusal_of_the_last_model_leaves_the_first(folder):
    (folder / "model.onnx").write_bytes(b"no model")
    before = listing(folder)
    with pytest.raises(ModelError):
        vlmpass.convert_genai(folder, vlmpass.Pipeline(opset=20))
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ("[]", "names no model"),
        ('{"filename": "../model.onnx"}', "outside its folder"),
        ('{"filename": "none.onnx"}', "does not exist"),
    ],
)
def test_a_configuration_that_is_none_is_refused(folder, text, says):
    (folder / "genai_config.json").write_text(text)
    with pytest.raises(ModelError, match=says):
        vlmpass.convert_genai(folder, vlmpass.Pipeline(opset=20))
    (folder / "genai_config.json").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        vlmpass.convert_genai(folder, vlmpass.Pipeline(opset=20))
