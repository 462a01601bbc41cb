"""What cannot be joined is refused, whatever a manifest or a part has become."""

import json
import random

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import ModelError, SaveError, VlmpassError
from vlmpass.ir_tools.run import Runner

HEAD = '<ir_version: 8, opset_import: ["": 17]> g '
CHAIN = """(float[2, 4] x, float[4, 4] w, float[4, 4] v) => (float[2, 4] y) {
    a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) y = Tanh(c)
}"""


def text(body):
    """Return a model whose inputs `v` and `w` are weights."""
    model = ir.from_onnx_text(HEAD + body)
    rng = np.random.default_rng(0)
    for value in [value for value in model.graph.inputs if value.name in "vw"]:
        array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


@pytest.fixture
def parts(tmp_path):
    report = vlmpass.split(text(CHAIN), tmp_path, budget=64)
    return tmp_path, [vlmpass.load(part.saved.path) for part in report.parts], report


def saved(report, index, model):
    vlmpass.save(model, report.parts[index].saved.path)


def test_two_parts_that_give_one_value_are_refused(parts):
    folder, models, report = parts
    first = next(iter(models[0].graph.outputs)).name
    graph = models[1].graph
    graph[0].outputs[0].name = first
    graph.outputs.append(graph[0].outputs[0])
    saved(report, 1, models[1])
    before = sorted(folder.iterdir())
    with pytest.raises(VlmpassError, match=first):
        vlmpass.compose(folder, folder / "whole.onnx")
    assert sorted(folder.iterdir()) == before


def test_what_a_part_gives_too_many_is_refused_if_another_gives_it(tmp_path):
    report = vlmpass.split(text(CHAIN), tmp_path, budget=64)
    last = vlmpass.load(report.parts[-1].saved.path)
    node = ir.node("Neg", [last.graph.inputs[0]])
    node.outputs[0].name, node.outputs[0].type = "x", ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape([2, 4])
    last.graph.append(node)
    last.graph.outputs.append(node.outputs[0])
    vlmpass.save(last, report.parts[-1].saved.path)
    with pytest.raises(ModelError, match="gives 'x', which the whole takes too"):
        vlmpass.compose(tmp_path, tmp_path / "whole.onnx")


def test_an_input_may_be_handed_through_besides(parts):
    folder, models, report = parts
    graph = models[1].graph
    graph.outputs.append(graph.inputs[0])
    saved(report, 1, models[1])
    vlmpass.compose(folder, folder / "whole.onnx")
    assert vlmpass.diff(text(CHAIN), folder / "whole.onnx").ok


def test_nothing_inside_hides_what_another_part_makes(tmp_path):
    branches = """(float[2, 4] x, bool c, float[4, 4] w, float[4, 4] v) => (float[2, 4] y) {
        a = MatMul(x, w)
        b = If (c) <
            then_branch = t () => (float[2, 4] t) { i = Relu(a) t = Neg(i) },
            else_branch = e () => (float[2, 4] e) { i = Exp(a) e = Neg(i) }
        >
        d = MatMul(b, v) y = Tanh(d)
    }"""
    source = text(branches)
    report = vlmpass.split(source, tmp_path, budget=64)
    place = next(
        index
        for index, part in enumerate(report.parts)
        if any(node.op_type == "If" for node in vlmpass.load(part.saved.path).graph)
    )
    model = vlmpass.load(report.parts[place].saved.path)
    branch = next(node for node in model.graph if node.op_type == "If").attributes
    for name, new in (("then_branch", "d"), ("else_branch", "x")):
        branch[name].as_graph()[0].outputs[0].name = new
    vlmpass.save(model, report.parts[place].saved.path)
    vlmpass.compose(tmp_path, tmp_path / "whole.onnx")
    feed = {"x": np.ones((2, 4), np.float32), "c": np.array(True)}
    with Runner(source) as one, Runner(tmp_path / "whole.onnx") as other:
        np.testing.assert_array_equal(one.run(feed)["y"], other.run(feed)["y"])


@pytest.mark.parametrize("what", ["element", "opset", "default"])
def test_functions_of_one_name_are_one_only_if_they_are_equal(tmp_path, what):
    """A difference that no printed form of a large tensor shows is one."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 17, "m": 1]>
        g (float[64, 64] x) => (float[64, 64] y) { a = m.f(x) b = Relu(a) y = m.f(b) }
        <domain: "m", opset_import: ["": 17]> f <alpha: float = 1.0> (a) => (c) {
            k = Constant <value = float[1] {1.0}> () c = Mul(a, k)
        }"""
    )
    function = next(iter(model.functions.values()))
    array = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    function[0].attributes["value"] = ir.AttrTensor("value", ir.tensor(array))
    calls = [node for node in model.graph if node.op_type != "Constant"]
    for node, scope in zip(calls, "aab", strict=True):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', '{scope}', 'n']"
    report = vlmpass.split(model, tmp_path, scopes=["a", "b"])
    vlmpass.compose(tmp_path, tmp_path / "whole.onnx")
    last = vlmpass.load(report.parts[1].saved.path)
    changed = next(iter(last.functions.values()))
    if what == "element":
        array = array.copy()
        array[32, 32] += 1
        changed[0].attributes["value"] = ir.AttrTensor("value", ir.tensor(array))
    elif what == "opset":
        changed.opset_imports[""] = 16
    else:
        changed.attributes["alpha"] = ir.AttrFloat32("alpha", np.nextafter(np.float32(1), 2))
    saved(report, 1, last)
    with pytest.raises(ModelError, match=r"m\.f is another one"):
        vlmpass.compose(tmp_path, tmp_path / "again.onnx")


def test_no_part_is_written_over(parts):
    folder, _, report = parts
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for target in (*(part.saved.path for part in report.parts), folder / "manifest.json"):
        for force in (False, True):
            with pytest.raises(SaveError, match="which stays as it is"):
                vlmpass.compose(folder, target, force=force)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_has_nothing_to_split_is_refused(tmp_path):
    for body in ("(float[2] x) => (float[2] x) { }", "(float[4, 4] w) => (float[4, 4] w) { }"):
        with pytest.raises(ModelError, match="nothing to split"):
            vlmpass.split(text(body), tmp_path / "parts", budget=1)
    assert not (tmp_path / "parts").exists()


STRANGE = (
    None, True, 0, -1, 1.5, 10**40, "", "x", "..", "a/b", "a\\b", "a\0b", "\ud800", [], {},
    [[]], [1], ["x", "x"], [None], {"x": 1}, "manifest.json", "y" * 300, ["nothing"],
)  # fmt: skip


def mutated(rng, data):
    """Change one thing somewhere in a manifest."""
    data = json.loads(json.dumps(data))
    places = [data, *data["parts"], *(part["types"] for part in data["parts"])]
    place = rng.choice(places)
    key = rng.choice([*place])
    what = rng.randrange(4)
    if what == 0:
        del place[key]
    elif what == 1 and isinstance(place[key], list) and place[key]:
        place[key].insert(rng.randrange(len(place[key]) + 1), rng.choice(place[key]))
    elif what == 2:
        other = rng.choice(data["parts"])
        place[key] = other.get(key, rng.choice(STRANGE))
    else:
        place[key] = rng.choice(STRANGE)
    return data


@pytest.mark.parametrize("seed", range(4))
def test_a_manifest_of_any_kind_is_read_right_or_refused(tmp_path, seed):
    """What is joined all the same computes what the source does."""
    rng, source = random.Random(seed), text(CHAIN)
    vlmpass.split(source, tmp_path, budget=64)
    path = tmp_path / "manifest.json"
    whole = json.loads(path.read_text())
    texts = [json.dumps(mutated(rng, whole)) for _ in range(60)]
    texts += ["", "[", "[" * 100_000, "3", "null", '{"format": "vlmpass-parts"}']
    for each in texts:
        path.write_text(each)
        try:
            vlmpass.compose(tmp_path, tmp_path / "whole.onnx")
        except VlmpassError:
            continue
        read = json.loads(each)
        graph = vlmpass.load(tmp_path / "whole.onnx").graph
        ends = [[value.name for value in values] for values in (graph.inputs, graph.outputs)]
        assert ends == [read["inputs"], read["outputs"]], each
        if ends == [["x"], ["y"]]:
            assert vlmpass.diff(source, tmp_path / "whole.onnx").ok, each
