"""Conversions are planned without touching the model, and applied once."""

import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.rewriter_rules.opset import Planner

NARROW = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2,3] x) => (float[2,3] y) <int4[2,3] w = {1, -2, 3, -4, 5, -6}, float s = {0.5}> {
        d = DequantizeLinear(w, s)  c = Cast <to=22> (d)  e = Cast <to=1> (c)  y = Add(x, e) }"""
WRONG = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[2,3] x) => (float[2,1] y) <int64[1] a = {1}, float[5,7] s> {
        r = ReduceMean(x, a)  s = Relu(r)  y = Identity(s) }"""
REFUSED = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[2,3] x, int64[1] a) => (float[m,n] y) { r = Softmax(x)  y = ReduceMean(r, a) }"""


def said(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("text", [NARROW, WRONG, REFUSED], ids=["types", "shapes", "refused"])
def test_a_plan_changes_nothing_until_it_is_applied(text: str) -> None:
    model = ir.from_onnx_text(text)
    before = said(model)
    planner = Planner(model, "wider")
    for target in (9, 13, 17, 23):
        try:
            assert planner.plan(target) is not None
        except Refused:
            assert text is REFUSED
        assert said(model) == before
    planner.lowest()
    planner.nearest(9)
    assert said(model) == before


@pytest.mark.parametrize("text", [NARROW, WRONG], ids=["types", "shapes"])
def test_what_was_planned_before_leaves_no_trace_in_what_is_applied(text: str) -> None:
    plain, tried = ir.from_onnx_text(text), ir.from_onnx_text(text)
    planner = Planner(tried)
    for target in (15, 18, 21):
        planner.plan(target)
    planner.plan(13).apply()
    Planner(plain).plan(13).apply()
    assert said(plain) == said(tried)


def test_a_declared_shape_that_is_proven_wrong_goes() -> None:
    model = ir.from_onnx_text(WRONG)
    ConvertOpset(to=17).run(model)
    (value,) = (output for node in model.graph for output in node.outputs if output.name == "s")
    assert value.shape == ir.Shape([2, 1])


def test_an_operand_that_stands_for_a_node_may_itself_be_replaced() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[2,3] x) => (float[2,1] z, float[2,1] o) <int64[1] a = {1}> {
            r = ReduceMean(x, a)  y = OptionalGetElement(r)  z = Relu(y)
            o = OptionalGetElement(y) }"""
    )
    ConvertOpset(to=15).run(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [node.op_type for node in model.graph] == ["ReduceMean", "Relu"]


def test_subgraphs_that_are_new_read_what_stands_for_an_operand() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[2,3] x, int64[2] s) => (float[m,n] y) {
            r = OptionalGetElement(x)  y = Reshape<allowzero = 1>(r, s) }"""
    )
    ConvertOpset(to=13).run(model)
    assert "If" in {node.op_type for node in model.graph}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_an_input_that_nothing_reads_any_more_keeps_its_default() -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[2] x, float[2] w) => (float[2] y, bool h) <float[2] w = {1, 2}> {
            h = OptionalHasElement(w)  y = Relu(x) }"""
    )
    model = ir.from_proto(proto)
    ConvertOpset(to=15).run(model)
    assert {node.op_type for node in model.graph} == {"Identity", "Relu"}
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert "w" in model.graph.initializers
