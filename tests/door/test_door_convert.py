"""`vlmpass convert` and `Pipeline.convert`: what is written, reported, verified and refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from door_tools import TINY, child, demo_model, listing, mlp_model

from vlmpass import Pipeline, Report, check, load, verify
from vlmpass.demo_model import build_demo_model
from vlmpass.ir_tools.errors import PassFailed, Refused, VerifyError, VlmpassError


class Scale(ir.passes.InPlacePass):
    """Makes one weight a little wrong."""

    def call(self, model):
        value = model.graph.initializers["b"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name="b")
        return ir.passes.PassResult(model, True)


class Break(ir.passes.InPlacePass):
    """Leaves a model that is not valid."""

    def call(self, model):
        next(iter(model.graph)).op_type = "Nonsense"
        return ir.passes.PassResult(model, True)


def test_the_result_lies_beside_the_source_under_a_telling_name(door, tmp_path):
    path = mlp_model(tmp_path)
    before = listing(tmp_path)
    code, out, err = door("convert", path, "--opset", 18)
    assert (code, err) == (0, "")
    made = tmp_path / "mlp.opset18.onnx"
    assert made.exists()
    assert load(made).opset_imports[""] == 18
    after = listing(tmp_path)
    assert {name: after[name] for name in before} == before
    assert "17" in out
    assert "full type check passed" in out
    assert "1 output equal" in out


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--dtype", "float32"), "tiny.float32.onnx"),
        (("--opset", "18", "--dtype", "float32"), "tiny.opset18.float32.onnx"),
        (("--passes", "remove-unused"), "tiny.passes.onnx"),
        (("--opset", "auto"), "tiny.opset-auto.onnx"),
        (("--simplify", "--fuse", "ort"), "tiny.simplified.fused.onnx"),
        (("--layout", "safetensors"), "tiny.safetensors.onnx"),
    ],
)
def test_names_of_results(door, tmp_path, arguments, name):
    path = demo_model(tmp_path)
    code, _, err = door("convert", path, *arguments, "--no-verify")
    assert code == 0, err
    assert (tmp_path / name).exists()


def test_the_report_as_json_is_read_off_the_result(door, tmp_path):
    path = demo_model(tmp_path)
    out_path = tmp_path / "out.onnx"
    code, out, err = door("convert", path, out_path, "--opset", 18, "--dtype", "float32", "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    written = load(out_path)
    assert data["after"]["facts"]["nodes"] == sum(1 for _ in written.graph)
    assert data["after"]["facts"]["opset"] == 18
    assert "bfloat16" not in data["after"]["facts"]["dtypes"]
    assert data["before"]["facts"]["opset"] == 17
    assert data["pipeline"].endswith("unify-dtype,convert-opset{to=18}")
    assert data["checked"]["types"] is True
    assert data["checked"]["numbers"]["ok"] is True
    sizes = {file["name"]: file["nbytes"] for file in data["saved"]["files"]}
    assert sizes == {name: (tmp_path / name).stat().st_size for name in sizes}
    assert data["after"]["nbytes"] == sum(sizes.values())
    assert data["peak_rss"] > 0
    assert [each["text"] for each in data["passes"]][-2:] == ["unify-dtype", "convert-opset{to=18}"]


def test_bfloat16_to_float32_runs_and_equals_its_source(tmp_path):
    path = demo_model(tmp_path)
    report = Pipeline(opset=18, dtype="float32", target="ort-cpu").convert(
        path, tmp_path / "out.onnx", verify=True
    )
    numbers = report.checked.numbers
    assert numbers is not None
    assert numbers.ok
    assert numbers.actual_ran == "ONNX Runtime"
    assert numbers.max_rel < 1e-4
    assert sum(not trial.hard for trial in numbers.trials) == 2
    assert verify(path, tmp_path / "out.onnx", changes=report.changes).ok
    assert report.model.ir_version == 8


def test_a_wrong_result_is_not_written(tmp_path):
    path = mlp_model(tmp_path)
    Pipeline(opset=18).convert(path, tmp_path / "out.onnx")
    before = listing(tmp_path)
    with pytest.raises(VerifyError, match=r"does not compute .* in output 'y', relative error 7"):
        Pipeline([Scale()]).convert(path, tmp_path / "out.onnx")
    assert listing(tmp_path) == before
    report = Pipeline([Scale()]).convert(path, tmp_path / "out.onnx", verify=False)
    assert report.checked.numbers is None
    assert report.checked.reason == "not asked for"


def test_an_invalid_result_is_not_written(tmp_path):
    path = mlp_model(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(VlmpassError, match="Nonsense"):
        Pipeline([Break()]).convert(path, tmp_path / "out.onnx", verify=False)
    assert listing(tmp_path) == before


def test_a_target_gets_what_it_loads(tmp_path):
    path = demo_model(tmp_path)
    # Without a target nobody said that ONNX Runtime is to run it.
    assert Pipeline(opset=18).convert(path, tmp_path / "out.onnx").checked.loaded.ok is False
    report = Pipeline(opset=18, target="ort-cpu").convert(path, tmp_path / "out.onnx")
    assert report.checked.loaded.ok
    assert report.checked.numbers.ok


def test_a_target_that_cannot_be_served_gets_nothing(tmp_path):
    text = "g (double[n] x) => (double[n] y) { y = Erf(x) }"
    path = tmp_path / "erf.onnx"
    ir.save(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 18]> {text}'), path)
    before = listing(tmp_path)
    with pytest.raises(Refused, match=r"y \(Erf-13\): has no Erf-13 for input in double"):
        Pipeline(target="ort-cpu").convert(path, tmp_path / "out.onnx")
    assert listing(tmp_path) == before


def test_what_was_verified_is_always_said(door, tmp_path, monkeypatch):
    path = mlp_model(tmp_path)
    assert "not compared: not asked for" in door("convert", path, "--opset", 18, "--no-verify")[1]
    out = " ".join(door("convert", path, "--opset", 18, "--verify-time", 0)[1].split())
    assert "verified loaded, not compared: ONNX Runtime was stopped on the model: it takes" in out
    assert out.endswith("--verify-time allows more, in seconds")
    assert "1 output equal" in door("convert", path, "--opset", 18, "--verify")[1]
    code, _, err = door("convert", path, "--opset", 18, "--verify", "--verify-time", 0)
    assert code == 2
    assert "--verify-time allows more" in err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ONNX Runtime is not installed" in door("convert", path, "--opset", 18)[1]
    code, _, err = door("convert", path, "--opset", 18, "--verify")
    assert code == 2
    assert 'pip install "vlmpass[runtime]"' in err


def test_a_source_that_nothing_runs_is_converted_unless_numbers_are_asked_for(door, tmp_path):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        g (float[n] x) => (float[n] y) { h = Relu(x) y = mine.Op(h) }"""
    )
    ir.save(model, tmp_path / "m.onnx")
    code, out, _ = door("convert", tmp_path / "m.onnx", "--opset", 18)
    assert code == 0
    assert "not compared: nothing here runs the model" in " ".join(out.split())
    code, _, err = door("convert", tmp_path / "m.onnx", "--opset", 18, "--verify")
    assert code == 2
    assert "mine" in err


def test_the_source_itself_can_be_replaced(tmp_path):
    path = mlp_model(tmp_path)
    expected = load(path).graph.initializers["b"].const_value.numpy()
    report = Pipeline(opset=18).convert(path, path)
    assert report.before.facts.opset == 17
    assert load(path).opset_imports[""] == 18
    np.testing.assert_array_equal(load(path).graph.initializers["b"].const_value.numpy(), expected)


def test_an_earlier_output_is_replaced_without_force(door, tmp_path):
    path = mlp_model(tmp_path)
    for opset in (18, 19):
        assert door("convert", path, tmp_path / "out.onnx", "--opset", opset)[0] == 0
    assert load(tmp_path / "out.onnx").opset_imports[""] == 19


def test_shards_and_a_weight_above_the_limit(tmp_path):
    path = demo_model(tmp_path)
    report = Pipeline(opset=18, dtype="float32").convert(
        path, tmp_path / "out.onnx", shard_size="96kB", verify=True
    )
    assert report.after.shards > 2
    for file in report.saved.files:
        assert file.nbytes <= 96_000
    assert report.checked.numbers.ok
    assert report.passes[-1].changed


def test_the_callers_model_stays_as_it_is():
    model = build_demo_model(TINY)
    text = ir.to_proto(model).SerializeToString(deterministic=True)
    report = Pipeline("unify-dtype,convert-opset{to=18}").run(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == text
    assert report.model is not model
    assert report.model.opset_imports[""] == 18
    assert report.saved is None
    check(report.model)


def test_run_can_compare_numbers():
    model = build_demo_model(TINY)
    report = Pipeline(dtype="float32").run(model, verify=True)
    assert report.checked.numbers.ok


def test_a_failing_pass_names_itself_and_the_replay(tmp_path):
    class Fail(ir.passes.InPlacePass):
        def call(self, model):
            raise RuntimeError("boom")

    path = mlp_model(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(PassFailed, match="boom") as caught:
        Pipeline([Fail()]).convert(path, tmp_path / "out.onnx")
    assert "replay: vlmpass convert" in str(caught.value)
    assert listing(tmp_path) == before


def test_a_target_brings_opset_and_ir_version_within_what_it_reads(tmp_path):
    model = load(mlp_model(tmp_path))
    model.opset_imports[""] = 27
    model.ir_version = 13
    report = Pipeline(target="ort-cpu").run(model)
    assert report.model.opset_imports[""] == 26
    assert report.model.ir_version <= 13
    report = Pipeline("remove-unused", target="ort-cpu").run(load(mlp_model(tmp_path)))
    assert report.model.ir_version == 8


def test_the_report_prints_without_a_terminal(tmp_path):
    report = Pipeline(opset=18).run(mlp_model(tmp_path))
    text = str(report)
    assert isinstance(report, Report)
    assert "convert-opset{to=18}" in text
    assert "\x1b" not in text
    assert all(len(line) <= 100 for line in text.splitlines() if str(tmp_path) not in line)
    json.dumps(report.to_json())


def test_progress_counts_up_to_all_bytes(tmp_path):
    seen = []
    Pipeline(dtype="float32").convert(
        demo_model(tmp_path),
        tmp_path / "out.onnx",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1][0] == seen[-1][1] > 0


def test_debugging_instruments(door, tmp_path):
    path = mlp_model(tmp_path)
    code, _, _ = door(
        "convert", path, "--opset", 18, "--dump", tmp_path / "dump", "--verify-each", "--limit", 5
    )
    assert code == 0
    assert list((tmp_path / "dump").glob("*convert-opset.onnxtxt"))
    code, out, _ = door("convert", path, "--opset", 18, "--limit", 0)
    assert code == 0
    assert "skipped" in out


def test_both_streams_of_a_real_process(tmp_path):
    path = mlp_model(tmp_path)
    result = child("convert", path, "--opset", 18, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["source"] == str(path)
    assert result.stderr == ""


def test_new_nodes_say_which_pass_made_them(tmp_path):
    path = demo_model(tmp_path)
    report = Pipeline(opset=18).convert(path, tmp_path / "out.onnx", verify=False)
    stamped = {
        node.metadata_props["vlmpass.pass"]
        for node in report.model.graph
        if "vlmpass.pass" in node.metadata_props
    }
    assert stamped <= {"convert-opset{to=18}", "split-tensor{limit=2000000000}"}


@pytest.mark.slow
def test_the_demo(door, tmp_path):
    code, out, err = door("demo", tmp_path / "demo")
    assert (code, err) == (0, "")
    assert "full type check passed" in out
    assert "5 outputs equal" in out
    files = {path.name: path.stat().st_size for path in (tmp_path / "demo").iterdir()}
    assert sum(name.startswith("tiny-vlm.float32") for name in files) > 3
    for name, nbytes in files.items():
        if name.startswith("tiny-vlm.float32"):
            assert nbytes <= 8_000_000
    code, out, _ = door("demo", tmp_path / "demo", "--json")
    assert code == 0
    assert json.loads(out)["after"]["facts"]["opset"] == 18


def test_a_long_refusal_is_grouped_and_debug_lists_every_node(door, tmp_path):
    path = demo_model(tmp_path)
    before = listing(tmp_path)
    code, out, err = door("convert", path, "--opset", 7)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("vlmpass: error: convert-opset to 7 is refused for ")
    assert len(lines) < 20
    assert " more" in err
    assert "replay: vlmpass convert" in err
    nodes = int(lines[0].split()[-2])
    _, _, err = door("--debug", "convert", path, "--opset", 7)
    assert len(err.splitlines()) > nodes
    assert listing(tmp_path) == before


def test_a_lower_opset_gets_the_ranks_it_needs(tmp_path):
    path = demo_model(tmp_path)
    report = Pipeline(opset=13).convert(path, tmp_path / "out.onnx")
    assert [each.text for each in report.passes] == ["infer", "convert-opset{to=13}", "infer"]
    assert report.checked.numbers.ok
    assert report.after.facts.opset == 13


EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"


def test_simplified_and_fused_in_one_go(door, tmp_path):
    source = EXPORTS / "vision.float32.ts14.onnx"
    out = tmp_path / "out.onnx"
    wanted = ("--simplify", "--opset", 20, "--fuse", "standard")
    code, text, err = door("convert", source, out, *wanted)
    assert (code, err) == (0, "")
    assert "equal" in text
    kinds = {node.op_type for node in load(out).graph}
    assert {"LayerNormalization", "Gelu"} <= kinds
    assert not kinds & {"Erf", "ReduceMean", "Constant", "Identity"}


def test_packed_layers_become_one_node_each(door, tmp_path):
    source = EXPORTS / "quant_mod.float16.ts17.onnx"
    out = tmp_path / "out.onnx"
    code, text, err = door("convert", source, out, "--quant", "matmul-nbits")
    assert (code, err) == (0, "")
    assert "equal" in text
    assert "MatMulNBits" in {node.op_type for node in load(out).graph}


def test_half_precision_inside_with_the_types_of_before_at_the_border(door, tmp_path):
    source, out = EXPORTS / "text.float32.ts17.onnx", tmp_path / "out.onnx"
    wanted = ("--dtype", "float16", "--keep-io", "--calibrate", "random")
    code, text, err = door("convert", source, out, *wanted)
    assert (code, err) == (0, "")
    assert "equal" in text
    made = load(out)
    assert ir.DataType.FLOAT16 not in {value.dtype for value in made.graph.outputs}
    assert ir.DataType.FLOAT16 in {value.dtype for value in made.graph.initializers.values()}


def test_an_output_named_twice_keeps_its_name(door, tmp_path):
    source, out = tmp_path / "twice.onnx", tmp_path / "out.onnx"
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }"""
    )
    model.graph.outputs.append(model.graph.outputs[0])
    ir.save(model, source)
    code, _, err = door("convert", source, out, "--dtype", "float16", "--keep-io")
    assert (code, err) == (0, "")
    outputs = load(out).graph.outputs
    assert [(value.name, value.dtype) for value in outputs] == [("y", ir.DataType.FLOAT)] * 2


@pytest.mark.parametrize(
    "text",
    [
        """<ir_version: 10, opset_import: ["": 23]> g (float[1,2,s,8] q, float[1,2,s,8] k,
        float[1,2,s,8] v) => (float[1,2,s,8] y) { y = Attention(q, k, v) }""",
        """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x, float[2,3] z) => (float[n,3] y)
        { s = SequenceConstruct(x, z)  t = SequenceInsert(s, x)
          y = ConcatFromSequence<axis=0>(t) }""",
    ],
)
def test_types_that_belong_together_change_together(door, tmp_path, text):
    source = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), source)
    code, out, err = door("convert", source, "--dtype", "float16", "--keep-io", "--verify")
    assert (code, err) == (0, "")
    assert "1 output equal" in out
