"""Models that pick other elements, because scores nearly tie: refused, and the choice is named."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run import verify

ROUTED = {
    "TopK": "one = Constant<value_ints = [1]>() v, i = TopK(s, one) p = Squeeze(i, last)",
    "ArgMax": "p = ArgMax<axis = -1, keepdims = 0>(s)",
    "ArgMin": "m = Neg(s) p = ArgMin<axis = 1, keepdims = 0>(m)",
}


def routed(pick: str, apart: float) -> onnx.ModelProto:
    """Return experts of which the second always has the larger score, by a share."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[rows,4] x) => (float[rows,8] y) <int64[1] last = {{-1}}> {{
            a = Abs(x) s = MatMul(a, router) {ROUTED[pick]} y = Gather(experts, p)
        }}""")
    router = np.full((4, 2), 0.5, np.float32) * np.float32([1, 1 + apart])
    experts = np.outer([1, -1], np.arange(8)).astype(np.float32)
    for name, array in (("router", router), ("experts", experts)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.mark.parametrize("pick", ROUTED)
def test_a_choice_between_scores_that_nearly_tie_is_named(pick: str) -> None:
    told = rf"{pick}.* picks others in \d+ of \d+ rows, .* apart or less; what nearly ties"
    with pytest.raises(VerifyError, match=told):
        Pipeline(dtype="float16", keep_io=True).run(routed(pick, 2.0**-13), verify=True)


def test_scores_that_are_far_apart_are_picked_alike() -> None:
    result = Pipeline(dtype="float16", keep_io=True).run(routed("TopK", 0.5), verify=True)
    assert result.checked.numbers is not None
    assert result.checked.numbers.ok
    assert result.checked.numbers.causes == ()


def test_what_is_wrong_before_the_choice_is_not_laid_on_it() -> None:
    wrong = routed("TopK", 0.5)
    wrong.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(np.float32([[2, 1]] * 4), wrong.graph.initializer[1].name)
    )
    found = verify(routed("TopK", 0.5), wrong)
    assert not found.ok
    assert found.causes == ()


def test_the_order_of_what_is_picked_is_told_where_nothing_else_differs() -> None:
    def model(scores: list[float]) -> onnx.ModelProto:
        made = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
            g (float[1] x) => (float[1] v, int64[2] i) <int64[1] two = {2}> {
                s = Add(x, given) t, i = TopK(s, two) v = ReduceSum<keepdims = 1>(t)
            }""")
        made.graph.initializer.append(numpy_helper.from_array(np.float32(scores), "given"))
        return made

    found = verify(model([5, 5.0001, 1]), model([5.0001, 5, 1]))
    assert not found.ok
    assert "picks in another order in 1 of 1 rows" in found.causes[0]
