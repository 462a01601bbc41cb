"""A pass says what it needs; the manager provides it where it is not there, and says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx import parser

from vlmpass import Pipeline
from vlmpass.ir_tools.load import load
from vlmpass.passes import PassManager, parse
from vlmpass.passes.instruments.limit import Limit
from vlmpass.presets import SIMPLIFY
from vlmpass.screens.conversion import report_screen
from vlmpass.screens.text import plain

EXPORTS = sorted((Path(__file__).parents[1] / "fixtures" / "exports").glob("*.float32.*.onnx"))
NORM = """
<ir_version: 8, opset_import: ["" : 18]>
g (float[n, 4] x) => (float[n, 4] y)
<float two = {2}, float eps = {0.00001}, float[4] w = {1, 2, 3, 4}, int64[1] a = {-1}> {
    s = Pow(x, two)
    m = ReduceMean(s, a)
    e = Add(m, eps)
    r = Sqrt(e)
    q = Div(x, r)
    y = Mul(q, w)
}
"""


def ran(model: ir.Model, text: str) -> list[tuple[str, str]]:
    report = PassManager(parse(text)).run(model)
    return [(each.text, each.needed_by) for each in report.passes if not each.skipped]


def norm() -> ir.Model:
    return load(parser.parse_model(NORM))


@pytest.mark.parametrize("path", EXPORTS, ids=[path.stem for path in EXPORTS])
def test_a_pipeline_written_by_hand_fuses_what_the_preset_fuses(path: Path) -> None:
    texts = ("simplify,convert-opset{to=23},fuse", f"{SIMPLIFY},convert-opset{{to=23}},fuse")
    by_hand, preset = (Pipeline(text).run(load(path)).model.graph for text in texts)
    fused = [
        {kind: n for kind, n in Counter(node.op_type for node in graph).items() if "Norm" in kind}
        for graph in (by_hand, preset)
    ]
    assert fused[0] == fused[1]
    assert fused[0]


def test_shapes_are_provided_once_for_all_that_need_them() -> None:
    assert ran(norm(), "fuse,unfuse") == [
        ("infer", "fuse"), ("fuse", ""), ("unfuse", ""),
    ]  # fmt: skip
    assert ran(norm(), "infer,fuse")[:2] == [("infer", ""), ("fuse", "")]
    assert ran(norm(), "fold,cse") == [("fold", ""), ("cse", "")]


def test_shapes_that_a_pass_edits_are_provided_again() -> None:
    wanted = [("infer", "simplify"), ("simplify", ""), ("set-dims{n=3}", ""), ("infer", "fuse")]
    assert ran(norm(), "simplify,set-dims{n=3},fuse")[:4] == wanted


def test_of_what_was_changed_more_may_follow() -> None:
    wanted = [("infer", "simplify"), ("simplify", ""), ("infer", "fuse"), ("fuse", "")]
    text = "<float one = {1}> { s = Mul(x, one) r = Relu(s)"
    changed = load(parser.parse_model(NORM.partition("<float two")[0] + text + " y = Mul(r, r) }"))
    assert ran(changed, "simplify,fuse") == wanted
    assert ran(norm(), "simplify,fuse") == [("infer", "simplify"), ("simplify", ""), ("fuse", "")]


def test_new_values_without_a_shape_are_provided_for() -> None:
    class Opens(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            next(iter(model.graph)).outputs[0].shape = None
            return ir.passes.PassResult(model, True)

    model = norm()
    report = PassManager([*parse("infer"), Opens(), *parse("fuse")]).run(model)
    assert [each.needed_by for each in report.passes] == ["", "", "fuse", ""]


def test_the_report_says_what_was_needed_and_by_whom() -> None:
    report = Pipeline("fuse{emit=ort}").run(norm())
    assert [each.needed_by for each in report.passes] == ["fuse{emit=ort}", ""]
    assert "infer, which fuse needs" in plain(report_screen(report))
    assert report.to_json()["passes"][0]["needed_by"] == "fuse{emit=ort}"


def test_what_is_needed_and_left_out_is_not_taken_for_asked_for() -> None:
    report = Pipeline("fuse{emit=ort}", instruments=[Limit(0)]).run(norm(), verify=False)
    assert [each.needed_by for each in report.passes] == ["fuse{emit=ort}", ""]
    assert all(each.skipped for each in report.passes)


def test_what_fusion_leaves_unread_has_its_type_at_once() -> None:
    """Else the shapes that a second run needs would give it one, and change the file."""
    source = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[b,4] x, float[b,4] r) => (float[b,4] y, float[b,4] s)
        <float[4] w = {1, 2, 3, 4}, float e = {1e-5}, float two = {2}, int64[1] a = {-1}> {
            s = Add(x, r)  p = Pow(s, two)  m = ReduceMean(p, a)  v = Add(m, e)  q = Sqrt(v)
            n = Div(s, q)  y = Mul(n, w) }"""
    )
    once = Pipeline("fuse{emit=ort}").run(source).result
    assert [node.op_type for node in once.graph] == ["SkipSimplifiedLayerNormalization"]
    assert all(value.type is not None for value in once.graph[0].outputs)
    before = ir.to_proto(once).SerializeToString(deterministic=True)
    again = Pipeline("fuse{emit=ort}").run(once).result
    assert ir.to_proto(again).SerializeToString(deterministic=True) == before
