"""A wrong rule, planted, is named, with the nodes that it changed and a model that shows it."""

import json
import shlex
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import PipelineError, VerifyError
from vlmpass.ir_tools.rewrite import all_rules
from vlmpass.ir_tools.run import read_inputs
from vlmpass.passes import PassManager, parse
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.replacing import Sources
from vlmpass.reproducer_folder import ReproducerFolder

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"
PIPELINE = "infer,simplify,fuse"


def planted(monkeypatch, name):
    """Let a rule give twice what it should."""
    rule = next(each for each in all_rules() if each.name == name)
    real = rule.function

    def wrong(op, **captures):
        new = real(op, **captures)
        float_like = isinstance(new, ir.Value) and new.producer() is not None
        return op.Add(new, new) if float_like else new

    monkeypatch.setitem(vars(rule), "function", wrong)


def firing(model):
    """The rules that a pipeline applies to a model."""
    work = vlmpass.load(model)
    PassManager(parse(PIPELINE)).run(work, in_place=True)
    made = [node.metadata_props.get("vlmpass.rule") for node in work.graph]
    return sorted({name for name in made if name})


@pytest.mark.parametrize("name", ["decoder.float32.ts17.onnx", "text.float32.ts14.onnx"])
def test_the_planted_rule_is_named(tmp_path, name):
    wrong = []
    for rule in firing(EXPORTS / name)[:3]:
        with pytest.MonkeyPatch.context() as patch:
            planted(patch, rule)
            found = vlmpass.bisect(EXPORTS / name, PIPELINE)
        if found.found:
            wrong.append((rule, found.rule))
            assert found.rule == rule
            assert found.before
            assert "Add" in found.after
            assert f"--limit {found.number}" in found.replay
    assert wrong


def test_the_reproducer_is_small_and_fails_with_its_inputs(tmp_path, monkeypatch):
    name = EXPORTS / "text.float32.ts14.onnx"
    rule = firing(name)[0]
    planted(monkeypatch, rule)
    found = vlmpass.bisect(name, PIPELINE, folder=tmp_path)
    assert found.rule == rule
    small = vlmpass.load(found.reproducer)
    assert len(small.graph) < len(vlmpass.load(name).graph) / 4
    again = vlmpass.bisect(found.reproducer, found.pass_text, inputs=found.inputs)
    assert again.rule == rule


def test_of_a_pass_that_is_one_change_the_node_is_named(monkeypatch):
    real = ConvertOpset.run

    def run(self, model):
        done = real(self, model)
        for node in model.graph:
            if node.op_type == "Softmax":
                node.attributes["axis"] = ir.AttrInt64("axis", 1)
        return done

    monkeypatch.setattr(ConvertOpset, "run", run)
    found = vlmpass.bisect(EXPORTS / "text.float32.ts14.onnx", "infer,convert-opset{to=18}")
    assert found.pass_text == "convert-opset{to=18}"
    assert found.rule == ""
    assert "(Softmax)" in found.node
    assert found.before.count(" = Softmax") == 1


def test_what_is_right_is_said_to_be(door, tmp_path):
    code, out, err = door("bisect", EXPORTS / "text.float32.ts14.onnx", "--passes", PIPELINE)
    assert (code, err) == (0, "")
    assert "nothing is wrong" in out


def test_a_check_decides_and_the_screen_tells_all(door, tmp_path, monkeypatch):
    script = tmp_path / "check.py"
    script.write_text(
        "import sys, onnx\n"
        "model = onnx.load(sys.argv[1])\n"
        "sys.exit(any(node.op_type == 'LayerNormalization' for node in model.graph.node))\n"
    )
    check = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{}}"
    source = EXPORTS / "text.float32.ts14.onnx"
    words = ("bisect", source, "--passes", "convert-opset{to=18},infer,simplify,fuse")
    code, out, err = door(*words, "--check", check, "--json")
    assert (code, err) == (1, "")
    data = json.loads(out)
    assert "LayerNormalization" in data["after"]
    assert "LayerNormalization" not in data["before"]
    assert data["pass_text"].startswith("fuse")
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = door(*words, "--check", check)
    assert code == 1
    assert data["rule"] in out


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "is ended by SIGSEGV"),
        ("time.sleep(300)", "takes more than 5 s"),
    ],
)
def test_a_check_that_dies_or_hangs_fails(tmp_path, end, told):
    script = tmp_path / "check.py"
    script.write_text(
        f"import os, signal, sys, time\nif b'Double' in open(sys.argv[1], 'rb').read(): {end}\n"
    )
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
            a = Identity(x) b = Neg(a) y = Neg(b) }"""
    )

    found = vlmpass.bisect(
        model,
        f"foreign{{class={__name__}:Renames}}",
        check=f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{}}",
        check_time=5,
    )
    assert found.found
    assert found.why == f"the check {told}"


class Renames(ir.passes.InPlacePass):
    """Gives a node another name."""

    def call(self, model):
        """Rename it."""
        next(node for node in model.graph if node.op_type == "Neg").name = "Double"
        return ir.passes.PassResult(model, modified=True)


def test_what_cannot_be_bisected_is_refused():
    source = EXPORTS / "text.float32.ts14.onnx"
    with pytest.raises(PipelineError, match="where the model goes"):
        vlmpass.bisect(source, PIPELINE, check="true")
    with pytest.raises(PipelineError, match="no program"):
        vlmpass.bisect(source, PIPELINE, check="no-such-program {}")
    with pytest.raises(VerifyError, match="fails itself: the check ends with code 1"):
        vlmpass.bisect(source, PIPELINE, check="test ! -e {}")
    with pytest.raises(PipelineError, match="no check is to be timed"):
        vlmpass.bisect(source, PIPELINE, check_time=3)
    with pytest.raises(PipelineError, match="no time"):
        vlmpass.bisect(source, PIPELINE, check="test -e {}", check_time=0)
    with pytest.raises(PipelineError, match="no pass named 'simplfy'"):
        vlmpass.bisect(source, "simplfy")


def test_inputs_of_any_name_and_type_are_read_as_they_were_written(tmp_path):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[2] file, bfloat16[2] b, string[2] allow_pickle) => (float[2] y) {
            y = Neg(file)
        }"""
    )
    model.graph.inputs[1].name = "a/b"
    feed = {
        "file": np.array([1, 2], np.float32),
        "a/b": np.array([1, 2], ml_dtypes.bfloat16),
        "allow_pickle": np.array(["a", "é"], object),
    }
    written = ReproducerFolder(tmp_path / "found", Sources(), False).write(model, feed)
    found = read_inputs(written[1], vlmpass.load(written[0]))
    assert list(found) == list(feed)
    for name, value in feed.items():
        assert list(found[name]) == list(value)
        assert found[name].dtype.kind in (value.dtype.kind, "U")
