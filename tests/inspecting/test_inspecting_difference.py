"""What is different between two models is told, and nothing else is."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from tests.run.run_models import mlp
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.inspecting.difference import difference

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"


@pytest.mark.parametrize("path", sorted(EXPORTS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_model_is_equal_to_itself_whatever_it_is_called(path):
    one, two = vlmpass.load(path), vlmpass.load(path)
    same = difference(one, two)
    assert same.ok
    assert same.renamed == {}
    for index, node in enumerate(two.graph):
        node.name = f"other{index}"
        for value in node.outputs:
            if value.name and not value.is_graph_output():
                value.name = f"other_{value.name}"
    found = difference(one, two)
    assert found.ok
    assert found.renamed
    assert found.same == len(list(all_nodes(one)))


def one_line(model):
    found = difference(mlp(ir.DataType.FLOAT), model)
    assert not found.ok
    return found


def test_every_kind_of_change_is_told():
    base = mlp(ir.DataType.FLOAT)
    model = clone(base)
    model.graph[1].op_type = "Sigmoid"
    found = one_line(model)
    assert [(c.what, c.before, c.after) for c in found.nodes] == [("operator", "Relu", "Sigmoid")]
    assert found.operators == {"Relu": (1, 0), "Sigmoid": (0, 1)}
    model = clone(base)
    weight = model.graph.initializers["b"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(2), name="b")
    found = one_line(model)
    assert [(c.name, c.after) for c in found.weights] == [("b", "float[32,8], other values")]
    assert not found.nodes
    model = clone(base)
    model.graph.initializers["b"].name = "c"
    found = difference(base, model)
    assert found.ok
    assert found.renamed == {"b": "c"}
    model = clone(base)
    model.graph.opset_imports[""] = 18
    assert [c.name for c in one_line(model).model] == ["opset ai.onnx"]
    model = clone(base)
    model.graph[2].replace_input_with(0, model.graph[0].outputs[0])
    assert [(c.what, c.before, c.after) for c in one_line(model).nodes] == [
        ("inputs", "r, b", "h, b")
    ]
    model = clone(base)
    model.graph.outputs[0].shape = ir.Shape(["m", 8])
    assert [(c.what, c.after) for c in one_line(model).interface] == [("output", "float[m,8]")]


def test_a_converted_model_is_told_apart(tmp_path):
    source = EXPORTS / "decoder.float32.ts17.onnx"
    vlmpass.Pipeline(simplify=True).convert(source, tmp_path / "o.onnx", verify=False)
    found = difference(vlmpass.load(source), vlmpass.load(tmp_path / "o.onnx"))
    assert not found.ok
    before, after = (sum(pair[side] for pair in found.operators.values()) for side in (0, 1))
    assert before > after
    assert found.removed
    assert found.same > 20


def test_weights_of_one_place_are_not_read(tmp_path, monkeypatch):
    vlmpass.save(mlp(ir.DataType.FLOAT), tmp_path / "a.onnx", weights="copy")
    one, two = (vlmpass.load(tmp_path / "a.onnx") for _ in range(2))

    def read(*_):
        raise AssertionError("a weight is read")

    monkeypatch.setattr("vlmpass.ir_tools.proto.onnx_text.Digests.of", read)
    if one.graph.initializers["a"].const_value.nbytes > 1024:
        assert difference(one, two).ok


def test_json_has_it_all():
    from vlmpass.report import to_data

    data = to_data(difference(mlp(ir.DataType.FLOAT), mlp(ir.DataType.FLOAT, scale=2)))
    assert json.loads(json.dumps(data))["weights"][0]["name"] == "b"
