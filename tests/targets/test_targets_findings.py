"""What keeps a model from its targets: causes once, remedies, partitions, remarks, screens."""

import json
import random
import time
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from vlmpass.cli.app import run
from vlmpass.ir_tools.targets import Support, profile, profiles
from vlmpass.ir_tools.targets.findings import Assessment, assess
from vlmpass.ir_tools.targets.lint import lint
from vlmpass.ir_tools.targets.partition import partition
from vlmpass.passes import PassManager, parse

HEAD = '<ir_version: 8, opset_import: ["" : {}, "com.acme" : 1]>'


def loaded(text: str, opset: int = 18) -> ir.Model:
    model = ir.serde.deserialize_model(parser.parse_model(HEAD.format(opset) + text))
    PassManager(parse("infer"), ()).run(model, in_place=True)
    return model


def assessed(text: str, target: str, opset: int = 18) -> Assessment:
    return assess(loaded(text, opset), [profile(target)])[0]


def test_a_cause_is_told_once_with_all_its_nodes() -> None:
    found = assessed(
        """g (bfloat16[2] x) => (bfloat16[2] y) {
        [first] a = Add(x, x) [second] b = Add(a, x) [third] y = Mul(b, x) }""",
        "ort-cpu",
    )
    assert [(f.operator, f.since, len(f.nodes)) for f in found.findings] == [
        ("Add", 14, 2),
        ("Mul", 14, 1),
    ]
    assert found.findings[0].nodes[1] == ("node 'second' (Add)", "")
    assert found.findings[0].remedy == "--dtype float32"
    assert not found.ok


def test_what_follows_from_a_cause_is_no_finding() -> None:
    """Nobody knows the type of what an unknown operator makes, nor what runs behind it."""
    found = assessed(
        """g (float[2] x) => (float[2] y) {
        a = com.acme.Op(x) b = Transpose(a) c = Add(b, b) y = Relu(x) }""",
        "ort-cpu",
    )
    assert [f.operator for f in found.findings] == ["com.acme.Op"]
    assert found.findings[0].remedy == "none known"
    assert found.consequences == 2


def test_a_remedy_is_one_that_the_facts_bear_out() -> None:
    drawn = "g (float[2] x) => (float[2] y) { y = RandomNormalLike(x) }"
    (finding,) = assessed(drawn, "ort-cpu", 22).findings
    assert finding.remedy == "--opset 21"
    assert assessed(drawn, "ort-cpu", 21).ok


def test_branches_and_functions_are_looked_at() -> None:
    text = """g (bool b, bfloat16[2] x) => (bfloat16[2] y) {
        y = If(b) <then_branch = t () => (bfloat16[2] u) { u = Add(x, x) },
                   else_branch = e () => (bfloat16[2] v) { v = Identity(x) }> }"""
    (finding,) = assessed(text, "ort-cpu").findings
    assert (finding.operator, finding.nodes[0][1]) == ("Add", "subgraph t")


@pytest.mark.parametrize("target", sorted(profiles()))
def test_a_clean_model_is_clean(target: str) -> None:
    found = assessed("g (float[2] x) => (float[2] y) { a = Add(x, x) y = Relu(a) }", target)
    assert found.ok
    assert not found.findings
    assert found.unknown == 0


def test_unknown_is_never_clean_without_saying_so(tmp_path: Path, capsys) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        "about = 'a'\nsource = 's'\n[reads]\nopset = [9, 21]\nir-version = 9\n"
        "[operators]\nAdd = 'native'",
        encoding="utf-8",
    )
    path = tmp_path / "m.onnx"
    text = "g (float[2] x) => (float[2] y) { a = Add(x, x) y = Relu(a) }"
    onnx.save(parser.parse_model(HEAD.format(18) + text), path)
    assert run(["check", str(path), "--target", str(mine)]) == 0
    assert "nothing is known of 1 of 2 nodes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("g (float[2] x) => (float[2] y) { y = Relu(x) }", []),
        ("g (float[b,4] x) => (float[1,n] y) <int64[2] s = {1,-1}> { y = Reshape(x, s) }",
         ["baked-batch"]),
        ("g (float[b,4] x) => (float[b,n] y) <int64[2] s = {0,-1}> { y = Reshape(x, s) }", []),
        ("g (float[2] x) => (float[2] y) <float m = {-3.4e38}> { y = Add(x, m) }",
         ["unsafe-constant"]),
        ("g (float[2] x) => (float[2] y) <float m = {-65504.0}> { y = Add(x, m) }", []),
        ("g (float16[2] x) => (float16[1] y) { a = Mul(x, x) y = ReduceMean(a) }", ["half-norm"]),
        ("g (float[2] x) => (float[1] y) { a = Mul(x, x) y = ReduceMean(a) }", []),
        ("g (float[2] x, float[2] s) => (float[2] y) { y = SimplifiedLayerNormalization(x, s) }",
         ["misplaced-operator"]),
        ("g (float[2] x) => (float[2] y) { y = Gelu(x) }", ["newer-operator"]),
    ],
)  # fmt: skip
def test_remarks(text: str, kinds: list[str]) -> None:
    model = loaded(text)
    assert [each.kind for each in lint(model)] == kinds


def written(folder: Path) -> str:
    path = folder / "m.onnx"
    text = """g (float[1,3,8,8] x) => (float[1,3,4,4] y) <int64[4] s = {1,3,4,4}> {
        [small] y = Resize<antialias=1, mode="linear">(x,,,s) }"""
    onnx.save(parser.parse_model(HEAD.format(18) + text), path)
    return str(path)


def test_several_targets_as_json(tmp_path: Path, capsys) -> None:
    path = written(tmp_path)
    targets = "ort-cpu,openvino,tensorrt-10.15"
    assert run(["check", path, "--target", targets, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [each["ok"] for each in said["targets"]] == [True, False, False]
    assert said["targets"][1]["findings"][0]["support"] == "wrong"
    assert "antialias = 1" in said["targets"][1]["findings"][0]["fact"]
    assert said["targets"][2]["operators"] == {"Resize-18": {"unsupported": 1}}
    assert said["ok"] is False
    assert run(["check", path, "--target", "ort-cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["loaded"] is True


def test_sarif(tmp_path: Path, capsys) -> None:
    path = written(tmp_path)
    assert run(["check", path, "--target", "openvino", "--sarif"]) == 1
    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    (result,) = log["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("openvino/Resize", "error")
    place = result["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == path
    assert place["logicalLocations"] == [{"fullyQualifiedName": "node 'small' (Resize)"}]


@pytest.mark.parametrize("columns", ["60", "100"])
def test_the_screens_are_narrow_enough(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    path = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["check", "m.onnx", "--target", "ort-cpu,openvino,tensorrt-10.15"]) == 1
    out = capsys.readouterr().out
    assert str(path) not in out
    assert max(map(len, out.splitlines())) <= int(columns)
    words = " ".join(out.split())
    for part in ("ort-cpu: loads it", "openvino: does not take it: 1 of 1 nodes", "Resize-18"):
        assert part in words


@pytest.mark.parametrize(
    ("target", "text", "share"),
    [
        ("coreml", "g (float[2,4] x, float[4,4] w) => (float[2,4] y) {"
         " a = MatMul(x, w) b = Mod<fmod=1>(a, x) y = MatMul(b, w) }", 0.0),
        ("ort-webgpu", "g (float[2,4] x, float[4,4] w) => (float[2,4] y) {"
         " a = MatMul(x, w) y = Mod<fmod=1>(a, x) }", 0.0),
        ("qnn", "g (int32[2,4] x, int32[4,4] w) => (int32[2,4] y) {"
         " a = Add(x, x) y = MatMul(a, w) }", 1.0),
        ("ort-cpu", "g (float[2] x) => (float[2] y) { y = Det(x) }", None),
    ],
)  # fmt: skip
def test_a_target_that_falls_back_says_with_what(
    target: str, text: str, share: float | None
) -> None:
    parts = assessed(text, target).parts
    assert (None if parts is None else parts.share) == share


def test_six_dimensions_are_too_many_for_some() -> None:
    text = "g (float[1,1,1,1,1,2] x) => (float[1,1,1,1,1,2] y) { y = Relu(x) }"
    assert assessed(text, "coreml").findings[0].reason == "rank(*) > 5: five dimensions at most"
    assert assessed(text, "qnn").findings
    assert not assessed(text, "tensorrt-10.15").findings


def test_open_shapes_where_none_may_be() -> None:
    (finding,) = assessed("g (float[n,4] x) => (float[n,4] y) { y = Relu(x) }", "qnn").findings
    assert finding.reason == "every shape must be known, and the inputs x are open"


def test_a_tensor_that_no_file_can_hold() -> None:
    """Of the largest tensors only the size is looked at."""
    model = loaded("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    shape = ir.Shape([2**15, 2**15])
    tensor = ir.LazyTensor(pytest.fail, dtype=ir.DataType.FLOAT, shape=shape, name="w")
    value = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    model.graph.initializers["w"] = value
    (finding,) = assess(model, [profile("ort-web-wasm")])[0].findings
    assert finding.reason == "initializer w has 4294967296 bytes, and a file has 2147483647 at most"
    assert not assess(model, [profile("ort-cpu")])[0].findings


def test_what_a_conversion_would_do_is_what_helps(tmp_path: Path, capsys) -> None:
    path = written(tmp_path)
    assert run(["check", path, "--target", "tensorrt-10.15", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["targets"][0]["findings"]
    assert finding["remedy"] == "vlmpass convert --target tensorrt-10.15"
    out = str(tmp_path / "out.onnx")
    assert run(["convert", path, out, "--target", "tensorrt-10.15"]) == 0
    assert run(["check", out, "--target", "tensorrt-10.15"]) == 0


def test_what_falls_back() -> None:
    """Two products of which one falls back, with an operator in the middle that does too."""
    text = """g (float[2,4] x, float[4,4] w) => (float[2,4] y) {
        a = MatMul(x, w) b = Det(w) c = Relu(a) d = Mod<fmod=1>(c, b) y = MatMul(d, w) }"""
    model = loaded(text)
    nodes = list(model.graph)
    found = partition(model, {node: node.op_type not in ("Det", "Mod") for node in nodes})
    assert (found.taken, found.fallen, found.fallen_nodes) == (2, 1, 2)
    assert found.share == 0.0
    last = partition(model, {node: node is not nodes[-1] for node in nodes})
    assert (last.taken, last.fallen, last.share) == (1, 1, 0.5)


def test_weights_count_once_in_each_part_that_is_taken() -> None:
    text = """g (float[2,4] x) => (float[2,4] y)
      <float[4,4] w = {0,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}> {
        a = MatMul(x, w) b = MatMul(a, w) c = Det(w) d = Mod<fmod=1>(b, c) y = MatMul(d, w) }"""
    nodes = list(loaded(text).graph)
    model = nodes[0].graph
    assert model is not None
    fallen = ("Det", "Mod")
    found = partition(ir.Model(model, ir_version=8), {n: n.op_type not in fallen for n in nodes})
    assert (found.taken, found.weights) == (2, 64)


def chain(count: int) -> ir.Model:
    generator = random.Random(0)
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 4]))
    nodes, last = [], value
    for index in range(count):
        name = generator.choice(["Relu", "Add", "Mul", "MatMul", "Softmax", "Transpose"])
        inputs = [last, last] if name in ("Add", "Mul", "MatMul") else [last]
        node = ir.Node("", name, inputs, name=f"n{index}")
        last = node.outputs[0]
        last.name, last.type, last.shape = f"v{index}", value.type, value.shape
        nodes.append(node)
    graph = ir.Graph([value], [last], nodes=nodes, opset_imports={"": 18}, name="chain")
    return ir.Model(graph, ir_version=8)


def test_many_nodes_take_no_time() -> None:
    """20 000 nodes against three targets in half a second on a free machine."""
    model = chain(20_000)
    targets = [profile(name) for name in ("ort-cpu", "openvino", "tensorrt-10.15")]
    started = time.process_time()
    found = assess(model, targets)
    assert time.process_time() - started < 2.0
    assert all(each.nodes == 20_000 and not each.findings for each in found)
    assert found[0].operators["Relu-14"][Support.NATIVE] > 0
