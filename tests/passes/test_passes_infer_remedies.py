"""Outputs that nobody declared are inferred by every intent, and infer is no remedy after infer."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import INFER_FIRST, Refused, VlmpassError
from vlmpass.passes import PassManager, parse

BARE = """<ir_version: 8, opset_import: ["": 17]>
    g (float[a,4] x) => (float y, float z) { y = Relu(x)  s = Shape(x)  z = ConstantOfShape(s) }"""
INTENTS = [
    {"opset": 18},
    {"opset": 13},
    {"dtype": "float16"},
    {"dtype": "float32"},
    {"simplify": True},
    {"fuse": "standard"},
    {"target": "ort-cpu"},
    {},
]


def bare() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(BARE))
    for value in model.graph.outputs:
        value.shape = None
    return model


@pytest.mark.parametrize("intent", INTENTS, ids=str)
def test_every_intent_infers_the_shapes_of_outputs(intent) -> None:
    result = Pipeline(**intent).run(bare()).model
    assert [list(map(str, value.shape or ())) for value in result.graph.outputs] == [["a", "4"]] * 2


UNKNOWN = """<ir_version: 8, opset_import: ["": 17, "custom": 1]>
    g (float[a,4] x) => (float[b,c] y) { r = custom.Make(x)  y = Softmax<axis=0>(r) }"""


def test_infer_is_the_remedy_before_it_ran_and_not_after() -> None:
    model = ir.from_proto(onnx.parser.parse_model(UNKNOWN))
    with pytest.raises(Refused) as before:
        parse("convert-opset{to=12}")[0].run(model)
    assert INFER_FIRST in str(before.value)
    for text, place in (
        ("infer,convert-opset{to=12}", "2 of 2"),
        ("convert-opset{to=12}", "1 of 1"),
    ):
        with pytest.raises(Refused) as after:
            PassManager(parse(text)).run(model)
        assert "infer first" not in str(after.value)
        assert "declare it in the source" in str(after.value)
        assert f"in pass {place}" in str(after.value)


def test_an_output_that_cannot_be_inferred_is_not_sent_to_infer() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(UNKNOWN.replace("y = Softmax<axis=0>(r)", "y = Relu(r)"))
    )
    model.graph.outputs[0].shape = None
    with pytest.raises(VlmpassError) as error:
        Pipeline(opset=18).run(model)
    assert "run infer" not in str(error.value)
    assert "declare it" in str(error.value)
