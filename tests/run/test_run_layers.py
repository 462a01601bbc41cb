"""The first value inside that differs is named, whatever else goes wrong behind it."""

import random

import numpy as np
import onnx_ir as ir
import pytest
from layer_faults import EXPORTS, KINDS, faults
from norm_pieces import OPERATORS, drawn, layer_faults_of

import vlmpass
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.run import Runner, compare_layers, generate_inputs, verify, verify_recorded
from vlmpass.ir_tools.run.kept_values import Kept
from vlmpass.ir_tools.run.matched import matched_values
from vlmpass.rewriter_rules.restore import restore
from vlmpass.rewriter_rules.unfuse.narrow_norms import narrow_norms


def test_planted_faults_are_found_and_named():
    number = 0
    for planted in faults(5, random.Random(1).randrange(1000)):
        number += 1
        assert not verify(planted.source, planted.model).ok, planted.kind
        found = compare_layers(planted.source, planted.model)
        assert found.layers[found.first].name == planted.first, planted.kind
    assert number >= 4
    assert len(KINDS) >= 20


def text(body):
    return ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]>' + body)


CHAIN = """g (float[n, 4] x) => (float[n, 4] y) {
    a = Exp(x) b = Neg(a) c = Sigmoid(b) d = Add(c, a) y = Tanh(d)
}"""


def test_growth_and_statistics_are_told_in_order():
    one = text(CHAIN)
    two = clone(one)
    two.graph[2].op_type = "Tanh"
    found = compare_layers(one, two)
    assert [layer.name for layer in found.layers] == ["a", "b", "c", "d", "y"]
    first = found.layers[found.first]
    assert (first.name, first.node) == ("c", "the unnamed Tanh that makes 'c'")
    assert first.expected.least > 0 > first.actual.least


def test_values_are_matched_whatever_they_are_called():
    one, two = text(CHAIN), text(CHAIN)
    for node in two.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"other_{value.name}"
    assert matched_values(one, two) == {
        "other_a": "a", "other_b": "b", "other_c": "c", "other_d": "d", "y": "y"
    }  # fmt: skip
    assert compare_layers(one, two).ok


def test_a_converted_model_has_no_layer_that_differs(tmp_path):
    source = EXPORTS / "decoder.bfloat16.dyn18.onnx"
    vlmpass.Pipeline(dtype="float32").convert(source, tmp_path / "o.onnx", verify=False)
    found = compare_layers(source, tmp_path / "o.onnx", restore=restore)
    assert found.ok
    assert len(found.layers) > 20


def test_where_half_precision_leaves_its_range():
    half = text("""g (float16[n, 4] x) => (float16[n, 4] y) {
        a = Abs(x) b = Exp(a) c = Exp(b) d = Log(c) y = Neg(d)
    }""")
    feed = {"x": np.full((2, 4), 3.0, np.float16)}
    found = compare_layers(half, half, inputs=feed, emulated="float16")
    assert found.leaving.name == "c"
    assert found.layers[found.first].name == "d"  # what takes it gets infinity


def test_of_models_that_share_nothing_nothing_is_told():
    other = text("g (float[n, 4] x) => (float[n, 4] z) { q = Floor(x) z = Ceil(q) }")
    found = compare_layers(text(CHAIN), other)
    assert (found.layers, found.first, found.unmatched) == ((), None, 2)


def test_recorded_outputs_are_a_reference():
    path = EXPORTS / "text.float32.ts14.onnx"
    model = vlmpass.load(path)
    feed = generate_inputs(model)
    with Runner(model) as runner:
        made = {name: np.array(value) for name, value in runner.run(feed).items()}
    assert verify_recorded(made, path, inputs=feed).ok
    name = next(iter(made))
    assert not verify_recorded({name: made[name] + 1}, path, inputs=feed).ok


def test_a_variance_that_overflows_inside_a_norm_is_named_though_all_is_finite():
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float16[batch, 64] x, float16 k, float16 two) => (float16[batch, 64] y) {
            big = Mul(x, k) squares = Pow(big, two) mean = ReduceMean<axes = [-1]>(squares)
            root = Sqrt(mean) y = Div(big, root)
        }"""
    )
    for name, number in (("k", 300), ("two", 2)):
        value = next(each for each in model.graph.inputs if each.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.array(number, np.float16), name=name)
        model.graph.register_initializer(value)
    found = compare_layers(model, model, emulated="float16")
    assert found.leaving.name == "squares"
    assert found.layers[found.first].name == "mean"
    last = found.layers[-1]
    assert (last.name, last.actual.nan, last.actual.inf) == ("y", 0, 0)
    assert not last.difference.ok


def test_what_overflows_inside_a_norm_is_found_though_all_outside_is_in_range():
    seen = set()
    for seed in ("0-4", "0-5", "0-10"):  # an operator with a mean, one without, one that adds
        piece = drawn(random.Random(seed))
        seen.add(piece.named)
        assert piece.overflows
        assert layer_faults_of(piece) == [], piece.named
    assert len(seen) == 3
    assert len(OPERATORS) >= 5


def test_a_norm_of_a_wider_type_inside_is_computed_as_the_standard_lets_it():
    piece = drawn(random.Random("0-5"))
    given = {"inputs": piece.feed, "emulated": "float16"}
    assert verify(piece.model, piece.model, **given).ok
    assert not verify(piece.model, piece.model, norms=narrow_norms, **given).ok


def test_a_value_for_which_there_is_no_room_is_told_of(tmp_path):
    """It was taken for a PyTorch module's refusal of its inputs, and nothing was compared."""
    kept = Kept(tmp_path / "not there")
    with pytest.raises(VerifyError, match=r"a value inside cannot be kept in .*not there"):
        kept.keep("x", 0, np.zeros(2, np.float32))
