"""Sizes that are given for generated inputs."""

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.errors import ArgumentError, VerifyError
from vlmpass.ir_tools.run import compare_layers, verify

HEAD = '<ir_version: 8, opset_import: ["": 17]>\n'
TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch, seq] x, float[2, seq] c, float[N] one) => (float[batch, seq] y) {
    y = Identity(x) z = Neg(c) w = Abs(one)
}"""


def model():
    return ir.from_onnx_text(TEXT)


@pytest.mark.parametrize("shapes", [{"batch": 3, "seq": 5}, {"x": [3, 5]}, {"x": (3, 5), "seq": 5}])
def test_dimensions_have_the_sizes_given(shapes):
    found = verify(model(), model(), shapes=shapes)
    assert [(each.dims["batch"], each.dims["seq"]) for each in found.trials] == [(3, 5)] * 2
    assert found.seed == 0
    assert len({each.dims["N"] for each in found.trials}) == 2
    inside = compare_layers(model(), model(), shapes=shapes)
    assert inside.layers[0].difference.expected == "float32[3,5]"


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"sequence": 3}, "no dimension 'sequence': it has batch, seq, N"),
        ({"x": [3]}, "of 2 axes, not 1"),
        ({"c": [3, 5]}, "input 'c' is 2xseq, and 3 is given for 2"),
        ({"x": [3, 5], "seq": 4}, "'seq' is given as 5 and as 4"),
        ({"seq": -1}, "sizes from 0 on"),
        ({"seq": True}, "sizes from 0 on"),
        ([3], "sizes by dimension"),
    ],
)
def test_sizes_that_are_not_the_models_are_refused(shapes, said):
    with pytest.raises((VerifyError, ArgumentError), match=said):
        verify(model(), model(), shapes=shapes)


def test_what_the_judged_model_fixes_stays():
    fixed = ir.from_onnx_text(TEXT.replace("batch", "1"))
    assert verify(model(), fixed, shapes={"seq": 4}).trials[0].dims["batch"] == 1
    with pytest.raises(VerifyError, match="'batch' is given as 2, and B has 1"):
        verify(model(), fixed, shapes={"batch": 2})


def test_inputs_that_are_given_have_their_shapes(tmp_path):
    with pytest.raises(VerifyError, match="shapes too"):
        verify(model(), model(), inputs={}, shapes={"seq": 4})


def test_a_mistake_that_only_an_empty_cache_shows_is_found():
    good = ir.from_onnx_text(
        HEAD
        + """g (float[batch, seq, 4] x, float[batch, past, 4] past_key)
            => (float[batch, total, 4] key) { key = Concat<axis = 1>(past_key, x) }"""
    )
    wrong = ir.from_onnx_text(
        HEAD
        + """g (float[batch, seq, 4] x, float[batch, past, 4] past_key)
            => (float[batch, total, 4] key) {
            kept = Concat<axis = 1>(past_key, x)
            rows = Shape<start = 1, end = 2>(past_key)
            some = Cast<to = 9>(rows)
            flag = Squeeze(some)
            key = If(flag) <
                then_branch = a () => (float[b, t, 4] k) { k = Identity(kept) },
                else_branch = c () => (float[b, t, 4] m) { m = Neg(kept) }
            >
        }"""
    )
    assert verify(good, good).ok
    found = verify(good, wrong)
    assert not found.ok
    assert [trial.hard for trial in found.trials] == ["", "", "an empty cache"]
