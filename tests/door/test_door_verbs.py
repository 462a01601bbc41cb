"""The verbs that look: inspect, check, verify, passes, rules."""

import json

import numpy as np
import onnx
from door_tools import demo_model, mlp_model

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.passes.pipeline.registry import PASSES, Registry


def test_inspect_says_what_the_model_is_made_of(door, tmp_path):
    path = demo_model(tmp_path)
    code, out, err = door("inspect", path)
    assert (code, err) == (0, "")
    for text in (
        "ai.onnx 17",
        "past_key_values.0.key",
        "[batch, 2, past, 4]",
        "batch, seq, past",
        "bfloat16",
        "lm_head.weight",
        "model.layers.0",
        "MatMul",
    ):
        assert text in out
    assert all(len(line) <= 100 for line in out.splitlines() if str(path) not in line)


def test_inspect_as_json(door, tmp_path):
    path = demo_model(tmp_path)
    code, out, _ = door(
        "inspect", path, "--json", "--at", "batch=1", "--at", "seq=2", "--at", "past=3"
    )
    assert code == 0
    data = json.loads(out)
    assert data["facts"]["opset"] == 17
    assert data["facts"]["nodes"] == sum(data["facts"]["operators"].values())
    assert data["dynamic"] == ["batch", "seq", "past"]
    assert {port["name"] for port in data["inputs"]} >= {"pixel_values", "input_ids"}
    assert data["macs"]["at"] > 50_000
    assert sum(file["used"] for file in data["files"]) <= data["facts"]["nbytes"]
    assert sum(module["nodes"] for module in data["modules"]) == data["facts"]["nodes"]
    weight = data["largest"][0]
    assert weight["nbytes"] == 2 * np.prod(weight["shape"])


def test_inspect_refuses_a_wrong_size(door, tmp_path):
    code, _, err = door("inspect", demo_model(tmp_path), "--at", "batch")
    assert code == 2
    assert "--at takes NAME=SIZE" in err


def test_check_finds_what_is_wrong(door, tmp_path):
    path = mlp_model(tmp_path)
    assert door("check", path) == (0, f"{path}: valid\n", "")
    model = onnx.load(path, load_external_data=False)
    model.graph.node[1].op_type = "Nonsense"
    path.write_bytes(model.SerializeToString())
    code, out, err = door("check", path)
    assert (code, err) == (1, "")
    assert "not valid" in out
    assert "Nonsense" in out
    code, out, _ = door("check", path, "--json")
    assert code == 1
    assert json.loads(out)["ok"] is False


def test_verify_tells_equal_from_different(door, tmp_path):
    a = mlp_model(tmp_path, "a.onnx")
    b = mlp_model(tmp_path, "b.onnx", scale=1.001)
    code, out, err = door("verify", a, a)
    assert (code, err) == (0, "")
    assert "equal within the tolerance" in out
    code, out, _ = door("verify", a, b)
    assert code == 1
    assert "not equal: 1 of 1 outputs" in out
    assert "error above the tolerance" in " ".join(out.split())
    assert door("verify", a, b, "--tolerance", "0.1")[0] == 0


def test_verify_as_json_and_with_own_inputs(door, tmp_path):
    a = mlp_model(tmp_path, "a.onnx")
    np.savez(tmp_path / "in.npz", x=np.ones((5, 32), np.float32))
    code, out, _ = door("verify", a, a, "--json", "--inputs", tmp_path / "in.npz")
    assert code == 0
    data = json.loads(out)
    assert data["ok"] is True
    (output,) = data["outputs"]
    assert output["expected"] == "float32[5,8]"
    np.savez(tmp_path / "in.npz", z=np.ones(3))
    assert door("verify", a, a, "--inputs", tmp_path / "in.npz")[0] == 2


def test_verify_refuses_an_unknown_level(door, tmp_path):
    a = mlp_model(tmp_path, "a.onnx")
    code, _, err = door("verify", a, a, "--optimization", "al")
    assert code == 2
    assert "did you mean 'all'?" in err


def test_verify_without_a_runtime_says_how_to_get_it(door, tmp_path, monkeypatch):
    a = mlp_model(tmp_path, "a.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = door("verify", a, a)
    assert code == 2
    assert 'pip install "vlmpass[runtime]"' in err


def test_passes_lists_them_all_and_shows_one(door):
    code, out, err = door("passes")
    assert (code, err) == (0, "")
    for name in PASSES:
        assert f"\n{name} " in f"\n{out}"
    code, out, _ = door("passes", "convert-opset")
    assert code == 0
    assert "required" in out
    data = json.loads(door("passes", "--json")[1])
    assert [each["name"] for each in data] == list(PASSES)
    options = json.loads(door("passes", "convert-opset", "--json")[1])["options"]
    assert {each["name"]: each["required"] for each in options} == {"to": True, "interface": False}


def test_a_broken_package_hides_nobody_elses_passes(door, monkeypatch):
    def broken(self, name):
        if name == "infer":
            raise PipelineError("pass 'infer' cannot be loaded")
        return original(self, name)

    original = Registry.__getitem__
    monkeypatch.setattr(Registry, "__getitem__", broken)
    code, out, _ = door("passes")
    assert code == 0
    assert "cannot be loaded" in out
    assert "convert-opset" in out
    assert {"name": "infer", "error": "pass 'infer' cannot be loaded"} in json.loads(
        door("passes", "--json")[1]
    )
    assert door("passes", "infer")[0] == 2


def test_strings_are_inspected_and_kept(door, tmp_path):
    text = """<ir_version: 9, opset_import: ["": 19]>
        g (string[n] x) => (bool[n] y) { y = Equal(x, k) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.helper.make_tensor("k", 8, [1], [b"cat"]))
    onnx.save(proto, tmp_path / "words.onnx")
    assert "string" in door("inspect", tmp_path / "words.onnx")[1]
    code, out, err = door(
        "convert", tmp_path / "words.onnx", tmp_path / "out.onnx", "--opset", "21", "--verify"
    )
    assert (code, err) == (0, "")
    assert "1 output equal bit for bit" in out
    kept = onnx.load(tmp_path / "out.onnx").graph.initializer[0]
    assert list(kept.string_data) == [b"cat"]


def test_rules_lists_shows_and_explains(door, tmp_path):
    from vlmpass.ir_tools.rewrite import all_rules

    code, out, err = door("rules", "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert [each["name"] for each in data] == [rule.name for rule in all_rules()]
    assert door("rules")[0] == 0
    name = data[0]["name"]
    code, out, _ = door("rules", name)
    assert code == 0
    assert name in out
    assert "source  rewriter_rules/" in out
    code, out, _ = door("rules", "explain", name, demo_model(tmp_path))
    assert code == 0
    assert "tried at" in out
    attempts = json.loads(door("rules", "explain", name, demo_model(tmp_path), "--json")[1])
    assert attempts["rule"] == name
    assert door("rules", name, "--near", "x")[0] == 2
    asked = ("rules", "explain", name, demo_model(tmp_path), "--near")
    assert door(*asked, "logits")[0] == 0
    code, _, err = door(*asked, "lgits")
    assert code == 2
    assert "there is no node or value 'lgits'; did you mean 'logits'?" in err


def test_what_is_not_loaded_is_a_node_of_the_model(door, tmp_path):
    """ONNX Runtime takes functions of operators apart, and speaks of what it finds in them."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (bfloat16[n, 2] x) => (bfloat16[n, 2] y) { ["soft"] y = Softmax(x) }"""
    )
    onnx.save(model, tmp_path / "m.onnx")
    code, out, _ = door("convert", tmp_path / "m.onnx", tmp_path / "o.onnx", "--opset", 18)
    assert code == 0
    line = " ".join(out.split())
    assert "not loaded by ONNX Runtime, nor is the source: node 'soft' (Softmax): " in line
    assert "onnxruntime" not in line
