"""unify-dtype: numbers that an exporter rounded are what they were, and others stay."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import EXPORTS, parse

from vlmpass import Pipeline
from vlmpass.cli.app import run as command
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import all_nodes, all_values
from vlmpass.ir_tools.rewrite import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.rewrite import changes as changes_of
from vlmpass.ir_tools.run import verify
from vlmpass.ir_tools.types import solve
from vlmpass.passes.dtype.unify_dtype import UnifyDtype
from vlmpass.passes.pipeline.text import parse as parse_pipeline
from vlmpass.rewriter_rules.restore import restore

HEADS = "bfloat16[2,4,6,8]"


def brain(number: float) -> str:
    """A number as bfloat16 has it, for a graph's text."""
    return f"b({float(np.float32(number).astype(ml_dtypes.bfloat16))!r})"


def read(node: ir.Node) -> list[float]:
    """The single numbers that a node reads."""
    tensors = [constant_of(value) for value in node.inputs if value is not None]
    return [float(t.numpy().item()) for t in tensors if t is not None and t.size == 1]


def numbers(model: ir.Model, *kinds: str) -> list[float]:
    return [number for node in all_nodes(model) if node.op_type in kinds for number in read(node)]


def unified(text: str, pass_: UnifyDtype | None = None, extra: str = "") -> ir.Model:
    model = parse(text, extra=extra)
    pass_ = pass_ or UnifyDtype()
    pass_.run(model)
    assert not solve(model).conflicts
    assert not pass_.run(model)
    return model


def scaled(c: str, operator: str = "Mul", shape: str = HEADS, then: str = "y = Neg(s)") -> str:
    return f"g ({shape} x) => (y) <bfloat16 c = {{{c}}}> {{ s = {operator}(x, c) {then} }}"


@pytest.mark.parametrize(
    ("operator", "power"),
    [("Mul", 0.5), ("Div", 0.5), ("Mul", -0.5), ("Mul", 0.25), ("Div", 0.25), ("Mul", -0.25)],
)
@pytest.mark.parametrize("size", [24, 72, 96, 128, 1152])
def test_restore_every_root_of_a_row(operator: str, power: float, size: int) -> None:
    exact = size**power
    model = unified(scaled(brain(exact), operator, f"bfloat16[2,3,{size}]"))
    assert numbers(model, operator) == [np.float32(exact)]


@pytest.mark.parametrize(
    "number", [0.7, math.sqrt(7), 3.0, 1 / math.sqrt(9), 8.0, 0.125, 8**-0.5 * 1.01]
)
def test_restore_leaves_what_is_no_root_of_the_size(number: float) -> None:
    held = float(np.float32(number).astype(ml_dtypes.bfloat16))
    assert numbers(unified(scaled(brain(number))), "Mul") == [held]


def test_restore_takes_a_power_of_two_as_meant() -> None:
    """1 / sqrt(257) and 1 / 16 are one number of bfloat16; so are the fourth root of 255 and 4."""
    assert numbers(unified(scaled("b(0.0625)", shape="bfloat16[2,4,9,257]")), "Mul") == [0.0625]
    assert numbers(unified(scaled("b(4.0)", shape="bfloat16[2,255]")), "Mul") == [4.0]


def test_restore_leaves_numbers_that_were_float32_all_along() -> None:
    model = unified(
        """g (bfloat16[2,8] x, float[2,8] z) => (y, w)
        <float c = {2.828125}, float d = {1.4140625}> {
        f = Cast<to=1>(x) s = Div(f, c) q = Div(z, d) w = Erf(q) y = Neg(s) }"""
    )
    assert numbers(model, "Div") == [2.828125, 1.4140625]


def test_restore_narrow_numbers_behind_casts() -> None:
    model = unified(
        """g (float[2,8] x) => (y) <bfloat16 c = {b(2.828125)}, float16 d = {h(1.4140625)}> {
        e = Cast<to=1>(c) s = Div(x, e) k = Cast<to=1>(d) t = Div(s, k) y = Erf(t) }"""
    )
    assert numbers(model, "Div") == [np.float32(math.sqrt(8)), np.float32(math.sqrt(2))]
    assert not model.graph.initializers.keys() & {"c", "d"}


QKT = "t = Transpose<perm=[0,1,3,2]>(k)"


@pytest.mark.parametrize(
    "body",
    [
        # the queries, flat, before they are split into heads
        """n = Mul(q, c) r = Reshape(n, heads) u = Transpose<perm=[0,2,1,3]>(r)
           t = Transpose<perm=[0,1,3,2]>(k) y = MatMul(u, t)""",
        # the same, and a scale of 1 that scaled_dot_product_attention adds
        f"""{QKT} n = Mul(q, c) r = Reshape(n, heads) u = Transpose<perm=[0,2,1,3]>(r)
            v = Mul(one, u) y = MatMul(v, t)""",
        # the keys, turned
        f"""{QKT} n = Mul(t, c) r = Reshape(q, heads) u = Transpose<perm=[0,2,1,3]>(r)
            y = MatMul(u, n)""",
        # the scores
        f"""{QKT} r = Reshape(q, heads) u = Transpose<perm=[0,2,1,3]>(r) m = MatMul(u, t)
            n = Mul(m, c) y = Softmax(n)""",
    ],
    ids=["queries", "queries, scaled by 1", "keys", "scores"],
)
@pytest.mark.parametrize("power", [-0.5, -0.25])
def test_restore_size_of_a_head_wherever_it_scales(body: str, power: float) -> None:
    """Shapes are declared for inputs alone, as the legacy exporter does."""
    model = parse(
        f"""g (bfloat16[B,S,96] q, bfloat16[B,4,S,24] k) => (y)
        <int64[4] heads = {{0, 0, 4, 24}}, bfloat16 c = {{{brain(24**power)}}},
         bfloat16 one = {{b(1)}}> {{ {body} }}"""
    )
    undeclared = [value.name for value in all_values(model) if value.shape is None]
    UnifyDtype().run(model)
    assert numbers(model, "Mul") in ([np.float32(24**power)], [np.float32(24**power), 1])
    assert {v.name for v in all_values(model) if v.shape is None} >= {*undeclared} - {"n", "y"}


def test_restore_scores_are_not_scaled_by_the_length_of_a_row_of_them() -> None:
    text = f"""g (bfloat16[2,6,9] q, bfloat16[2,9,8] k) => (y)
        <bfloat16 c = {{{brain(8**-0.5)}}}> {{
        m = MatMul(q, k) y = Mul(m, c) }}"""
    assert numbers(unified(text), "Mul") == [0.353515625]


def test_restore_knows_that_roots_of_two_sizes_are_one_number() -> None:
    """The fourth root of 576 is the square root of 24."""
    text = f"""g (bfloat16[6,576] q, bfloat16[576,9] k, bfloat16[24,9] t) => (y, z)
        <bfloat16 c = {{{brain(24**0.5)}}}, int64[2] shape = {{-1, 24}}> {{
        s = Mul(q, c) y = MatMul(s, k) u = Reshape(s, shape) z = MatMul(u, t) }}"""
    assert numbers(unified(text), "Mul") == [np.float32(24**0.5)]


def test_restore_a_number_that_a_size_gives_exactly_stays() -> None:
    """sqrt(144) is 12, whatever else it may be a rounding of: the sum comes before the row."""
    text = f"""g (bfloat16[6,144] q, bfloat16[144,143] k) => (y) <bfloat16 c = {{{brain(12)}}}> {{
        s = Mul(q, c) y = MatMul(s, k) }}"""
    assert numbers(unified(text), "Mul") == [12.0]


def test_restore_leaves_parameters_of_the_model() -> None:
    model = parse(scaled(brain(8**0.5)))
    model.graph.initializers["c"].name = "layers.0.scale"
    UnifyDtype().run(model)
    assert numbers(model, "Mul") == [2.828125]


def test_restore_needs_the_size() -> None:
    assert numbers(unified(scaled(brain(8**0.5), shape="bfloat16[2,D]")), "Mul") == [2.828125]


GELU = "d = Div(x, c) e = Erf(d) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)"
GELU_NUMBERS = f"""bfloat16 c = {{{brain(math.sqrt(2))}}}, bfloat16 one = {{b(1.0)}},
    bfloat16 half = {{b(0.5)}}"""


def test_restore_changes_only_the_use_that_matches() -> None:
    model = unified(
        f"""g (bfloat16[2,9] x) => (y, z) <{GELU_NUMBERS}> {{ {GELU} z = Div(x, c) }}"""
    )
    assert sorted(numbers(model, "Div")) == [1.4140625, np.float32(math.sqrt(2))]
    assert "c" in model.graph.initializers


def test_restore_refuses_where_another_reads_inside() -> None:
    model = unified(f"g (bfloat16[2,9] x) => (y, d) <{GELU_NUMBERS}> {{ {GELU} }}")
    assert numbers(model, "Div") == [1.4140625]


def test_restore_makes_one_number_of_many_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    model = unified(
        f"""g (bfloat16[2,9] x) => (y, w) <{GELU_NUMBERS}> {{
        {GELU} f = Div(y, c) w = Erf(f) }}"""
    )
    reason = "1.4140625 was sqrt(2) rounded to bfloat16"
    divisions = [node for node in model.graph if node.op_type == "Div"]
    assert [node.metadata_props["vlmpass.reason"] for node in divisions] == [reason] * 2
    assert {node.metadata_props["vlmpass.rule"] for node in divisions} == {"restore-erf-scale"}
    assert divisions[0].inputs[1] is divisions[1].inputs[1]
    assert len(model.graph.initializers) == 3
    assert f"{reason} (2x)" in caplog.text
    assert model.metadata_props["vlmpass.restored"] == f"{reason} (2x)"


def test_restore_inside_branches_and_functions() -> None:
    inner = "d = Div(a, c) e = Erf(d)"
    text = f"""g (bool b, bfloat16[2,9] x) => (bfloat16[2,9] y)
        <bfloat16 c = {{{brain(math.sqrt(2))}}}> {{
        u = my.act(x)
        y = If (b) <then_branch = t () => (bfloat16[2,9] e) {{ d = Div(u, c) e = Erf(d) }},
                    else_branch = f () => (bfloat16[2,9] h) {{ h = Neg(u) }}> }}"""
    function = f"""<domain: "my", opset_import: ["": 18]> act (a) => (e) {{
        c = Constant<value = bfloat16 {{{brain(math.sqrt(2))}}}>() {inner} }}"""
    model = unified(text, extra=function)
    assert numbers(model, "Div") == [np.float32(math.sqrt(2))] * 2


@pytest.mark.parametrize("options", ["restore-constants=false", "keep-rounding=true"])
def test_restore_is_turned_off(options: str) -> None:
    (pass_,) = parse_pipeline(f"unify-dtype{{{options}}}")
    assert isinstance(pass_, UnifyDtype)
    assert numbers(unified(scaled(brain(8**0.5)), pass_), "Mul") == [2.828125]
    assert numbers(unified(scaled(brain(8**0.5))), "Mul") == [np.float32(8**0.5)]


def test_restore_is_for_float32_only() -> None:
    model = parse(scaled(brain(8**0.5)))
    UnifyDtype(to="float16").run(model)
    assert numbers(model, "Mul") == [2.828125]


def test_restore_knows_what_repair_types_widened() -> None:
    model = parse(
        "g (float[2,8] x) => (y) <bfloat16 c = {b(2.828125)}> { s = Div(x, c) y = Neg(s) }"
    )
    for each in parse_pipeline("repair-types,unify-dtype"):
        each.run(model)
    assert numbers(model, "Div") == [np.float32(math.sqrt(8))]


@pytest.mark.parametrize("name", ["vision.bfloat16.dyn18", "text.float16.ts17"])
def test_restored_models_are_held_to_a_source_with_the_same_numbers(
    name: str, tmp_path: Path
) -> None:
    source, result = EXPORTS / f"{name}.onnx", tmp_path / "out.onnx"
    report = Pipeline(dtype="float32", fuse="standard").convert(source, result)
    assert any("rounded" in note for note in report.notes)
    assert report.changes.effects == (Effect.RESTORES,)
    for changes in (report.changes, EXACT):
        found = verify(source, result, restore=restore, changes=changes)
        assert found.ok
        assert {output.tolerance for output in found.outputs} == {1e-4}
        assert found.max_rel < 1e-4
    assert command(["verify", str(source), str(result)]) == 0


def test_restored_models_are_held_to_the_type_of_other_numbers(tmp_path: Path) -> None:
    """Where only some numbers are restored, the reference has none: its rounding is to be seen."""
    source, result = EXPORTS / "vision.bfloat16.dyn18.onnx", tmp_path / "out.onnx"
    changes = Pipeline("unify-dtype").convert(source, result).changes
    more = replace(changes, restored=f"{changes.restored}, and more")
    for exact in (restore, None):
        found = verify(source, result, restore=exact, changes=more)
        assert found.ok
        assert {output.tolerance for output in found.outputs} == {8e-2}
    # Who knows of nothing that was done has the tolerance of what both compute in.
    found = verify(source, result)
    assert not found.ok
    assert {output.tolerance for output in found.outputs} == {1e-4}
    Pipeline("unify-dtype{restore-constants=false}").convert(source, result)
    assert {each.tolerance for each in verify(source, result, restore=restore).outputs} == {1e-4}


def test_a_wrong_number_is_found_in_a_restored_model(tmp_path: Path) -> None:
    source, result = EXPORTS / "vision.bfloat16.dyn18.onnx", tmp_path / "out.onnx"
    Pipeline(dtype="float32").convert(source, result)
    model = ir.load(result)
    for value in model.graph.initializers.values():
        if value.const_value.size == 1 and value.dtype == ir.DataType.FLOAT:
            scaled = value.const_value.numpy() * np.float32(1.003)
            value.const_value = ir.tensor(scaled, name=value.name)
    assert not verify(source, model, restore=restore).ok


def test_a_number_restored_wrongly_on_both_sides_is_found() -> None:
    source = parse(scaled(brain(8**-0.5)))
    result = unified(scaled(brain(8**-0.5)))

    def wrong(model: ir.Model) -> NumberChanges:
        for node in all_nodes(model):
            if node.op_type == "Mul":
                number = ir.Value(
                    name="wrong", const_value=ir.tensor(np.float32(0.5), name="wrong")
                )
                number.shape, number.type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
                model.graph.register_initializer(number)
                node.replace_input_with(1, number)
        return changes_of(Effect.RESTORES, restored="wrong")

    assert verify(source, result, restore=restore).ok
    for changes in (wrong(result), EXACT):
        assert not verify(source, result, restore=wrong, changes=changes).ok
