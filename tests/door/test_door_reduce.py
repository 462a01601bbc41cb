"""What is left of a model that fails is the node that fails, and little else."""

import random
import shlex
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

import vlmpass
from vlmpass.ir_tools.errors import PipelineError, VerifyError
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.parts.reduction import Reducer, smallest

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"
MODELS = (
    "decoder.float32.ts17.onnx",
    "text.float32.dyn18.onnx",
    "vision.float32.dyn18.onnx",
    "decoder.bfloat16.dyn18.onnx",
)


def engines(number, seed):
    """Yield a model and an engine that fails on some node of it, whatever else is there.

    Engines fail on an operator, on one with a certain rank or attribute, or on two in a row.
    """
    draw = random.Random(seed)
    for index in range(number):
        model = vlmpass.load(EXPORTS / MODELS[index % len(MODELS)])
        nodes = [n for n in model.graph if n.op_type not in ("Constant", "Identity", "Cast")]
        node = draw.choice(nodes)
        kind = draw.choice(("operator", "attribute", "chain"))
        makers = [v.producer().op_type for v in node.inputs if v is not None and v.producer()]
        makers = [each for each in makers if each not in ("Constant", "Cast", "Identity")]

        def fails(tried, node=node, kind=kind, makers=makers):
            for each in tried.graph:
                if each.op_type != node.op_type:
                    continue
                if kind == "attribute" and {*each.attributes} != {*node.attributes}:
                    continue
                before = [
                    v.producer().op_type for v in each.inputs if v is not None and v.producer()
                ]
                if kind == "chain" and makers and makers[0] not in before:
                    continue
                return True
            return False

        yield model, fails


def test_three_nodes_are_left_at_most():
    left = []
    for model, fails in engines(12, 2026):
        found = Reducer(model, fails).run()
        assert fails(found.model)
        vlmpass.check(found.model)
        real = [node for node in found.model.graph if node.op_type != "ConstantOfShape"]
        left.append(len(real))
        assert found.tried < 200
    assert sum(number <= 3 for number in left) >= 0.9 * len(left), left


def test_weights_and_sizes_that_do_not_matter_go(tmp_path):
    source = EXPORTS / "decoder.float32.ts17.onnx"

    def fails(model):
        return any(node.op_type == "MatMul" for node in model.graph)

    report = vlmpass.reduce(source, tmp_path / "small.onnx", check=fails)
    small = vlmpass.load(tmp_path / "small.onnx")
    vlmpass.check(small)
    assert weight_bytes(small) < 200
    assert report.nodes["end"] <= 3
    assert "MatMul" in report.text


def test_values_that_matter_stay(tmp_path):
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 100] x, float[100] w) => (float[2, 100] y) {
            a = Relu(x) b = Mul(a, w) c = Neg(b) y = Abs(c)
        }"""
    )
    weight = model.graph.inputs.pop()
    weight.const_value = ir.tensor([float(index) for index in range(100)], name="w")
    model.graph.register_initializer(weight)

    def fails(tried):
        tensor = tried.graph.initializers.get("w")
        return tensor is not None and float(tensor.const_value.numpy().max()) > 50

    report = vlmpass.reduce(model, tmp_path / "small.onnx", check=fails)
    assert report.replaced == ()
    assert report.told == ""
    assert report.nodes["end"] == 1


@pytest.mark.parametrize("number", [1, 2, 7, 40])
def test_delta_debugging_leaves_what_is_needed(number):
    items = list(range(number))
    for seed in range(20):
        needed = set(random.Random(seed).sample(items, min(number, 1 + seed % 4)))
        assert set(smallest(items, lambda some: needed <= {*some})) == needed  # noqa: B023


def test_a_command_decides(door, tmp_path):
    script = tmp_path / "engine.py"
    script.write_text(
        "import sys, onnx\n"
        "for node in onnx.load(sys.argv[1]).graph.node:\n"
        "    if node.op_type == 'Softmax':\n"
        "        sys.exit('no kernel for Softmax')\n"
    )
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{}}"
    source = EXPORTS / "text.float32.dyn18.onnx"
    out_path = tmp_path / "small.onnx"
    code, out, err = door("reduce", source, out_path, "--check", command, "--says", "no kernel")
    assert (code, err) == (0, "")
    assert "Softmax" in out
    assert "the check ends with code 1: no kernel for Softmax" in out
    assert [node.op_type for node in vlmpass.load(out_path).graph] == ["Softmax"]
    code, out, err = door("reduce", source, out_path, "--check", command, "--says", "nonsense")
    assert (code, out) == (2, "")
    assert "nothing to reduce" in err


def test_what_cannot_be_reduced_is_refused(tmp_path):
    source = EXPORTS / "text.float32.dyn18.onnx"
    with pytest.raises(VerifyError, match="nothing to reduce"):
        vlmpass.reduce(source, tmp_path / "o.onnx", check=lambda model: False)
    with pytest.raises(PipelineError, match="where the model goes"):
        vlmpass.reduce(source, tmp_path / "o.onnx", check="true")
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_is_tried_on_is_not_said_to_stand(door, tmp_path):
    code, _, err = door("reduce", EXPORTS / MODELS[0], tmp_path / "o.onnx", "--check", "true {}")
    assert code == 2
    assert "nothing to reduce" in err
    assert "stands" not in err
    assert "model.onnx" not in err
