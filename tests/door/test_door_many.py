"""Thousands of files and names: screens and messages name the first few and count the rest."""

import json

import numpy as np
import onnx
import pytest
from door_tools import mlp_model
from onnx import TensorProto, helper

from vlmpass.ir_tools.system.listed import listed

FILES = 2000
LONGEST = 8000


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A sum of weights, each in a file of its own."""
    folder = tmp_path_factory.mktemp("many")
    names = [f"w{index}" for index in range(FILES)]
    nodes = [helper.make_node("Sum", ["x", *names], ["y"], name="sum")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, ["n"])], [value("y", 1, ["n"])],
        [onnx.numpy_helper.from_array(np.ones(1, np.float32), name) for name in names],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for tensor in graph.initializer:
        del tensor.float_data[:]
    for tensor in model.graph.initializer:
        (folder / f"{tensor.name}.data").write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, f"{tensor.name}.data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def test_names_in_a_sentence():
    assert listed([]) == ""
    assert listed("abc") == "a, b, c"
    assert listed(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7, 8"
    assert listed(range(20_000), 2) == "0, 1 and 19,998 more"


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("check",),
        ("convert", "o.onnx", "--opset", 18, "--no-verify", "--weights", "keep"),
        ("convert", "o.onnx", "--opset", 18, "--no-verify", "--weights", "copy"),
        ("convert", "o.onnx", "--opset", 18, "--no-verify", "--weights", "keep", "--layout", "hf"),
        ("convert", "o.onnx", "--passes", "set-dims{q=1}"),
    ],
)
def test_thousands_of_files(door, many, monkeypatch, arguments):
    monkeypatch.chdir(many.parent)
    code, out, err = door(arguments[0], many, *arguments[1:])
    assert code in (0, 2)
    assert "Traceback" not in err
    assert len(out) + len(err) < LONGEST
    assert (code == 2) == bool(err)


def test_the_json_has_them_all(door, many):
    data = json.loads(door("inspect", many, "--json")[1])
    assert len(data["files"]) == FILES


def test_thousands_of_inputs(door, tmp_path):
    names = [f"x{index}" for index in range(FILES)]
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Sum", names, ["y"])]
    graph = helper.make_graph(
        nodes, "g", [value(name, 1, [f"n_{name}"]) for name in names], [value("y", 1, ["n"])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    np.savez(tmp_path / "in.npz", q=np.ones(1))
    for arguments in (
        ("verify", path, path, "--inputs", tmp_path / "in.npz"),
        ("inspect", path, "--at", "q=1"),
        ("convert", path, "--passes", "set-dims{q=1}"),
        ("convert", path, "--passes", "name-dims{q:1=n}"),
    ):
        code, out, err = door(*arguments)
        assert (code, out) == (2, "")
        assert "more" in err
        assert len(err) < 600, err[:300]


def test_a_cycle_is_named_by_every_verb(door, tmp_path):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n] x) => (float[n] y) {
            ["p"] a = Add(x, b)  ["q"] b = Relu(a)  ["r"] y = Relu(b)
        }"""
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    whole = mlp_model(tmp_path)
    for arguments in (
        ("check", path),
        ("convert", path, "--opset", 18),
        ("convert", path, "--simplify"),
        ("convert", path, "--dtype", "float16"),
        ("verify", path, path),
    ):
        code, out, err = door(*arguments)
        assert code == (1 if arguments[0] == "check" else 2)
        assert "the graph has a cycle through node 'q' (Relu), node 'p' (Add)" in out + err or (
            "the graph has a cycle through node 'p' (Add), node 'q' (Relu)" in out + err
        )
        assert "topological-sort" not in out + err
        assert "export it again" in " ".join((out + err).split())
    assert door("check", whole)[0] == 0
