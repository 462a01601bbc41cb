"""All rules there are, and what is said of each."""

from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir
import pytest

from rewrite.support import parse, refuses, rewrites
from vlmpass.ir_tools.rewrite import (
    P,
    Replacement,
    RuleError,
    Tape,
    all_rules,
    apply_rules,
    explain,
    refuse,
    rule,
    rule_named,
)
from vlmpass.ir_tools.system.rule_names import written_rules
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.simplify import SIMPLIFY
from vlmpass.rewriter_rules.unfuse import UNFUSE

V = ir.Value


def test_every_rule_is_registered_once_with_formula_and_place() -> None:
    rules = {each.name: each for each in all_rules()}
    assert {each.name for each in [*SIMPLIFY, *FUSE, *UNFUSE]} <= set(rules)
    for each in rules.values():
        assert re.fullmatch(r".+ -> .+\.", each.formula), each.formula
        assert len(each.formula) <= 96
        assert each.name == each.function.__name__.replace("_", "-")
        lines = Path(each.file).read_text(encoding="utf-8").split("\n")
        place = "\n".join(lines[each.line - 1 : each.line + 12])
        assert f"def {each.function.__name__}(" in place


def test_names_are_read_off_the_sources_too() -> None:
    assert sorted(written_rules() or ()) == sorted(each.name for each in all_rules())


def test_sets_hold_every_rule_of_their_files() -> None:
    listed = {each.name for each in [*SIMPLIFY, *FUSE, *UNFUSE]}
    for each in all_rules():
        if any(folder in each.file for folder in ("/simplify/", "/fuse/", "/unfuse/")):
            assert each.name in listed


def test_needs_are_said() -> None:
    assert rule_named("rms-normalization").needs == ("opset 23 or later, or emits com.microsoft",)
    assert rule_named("mish").needs[0] == "opset 18 or later"
    assert "fast-math" in rule_named("sum-of-sum").needs
    assert "emits com.microsoft" in rule_named("skip-layer-normalization").needs


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(RuleError, match="no rule named 'cast-of-casts'; did you mean cast-of-cast"):
        rule_named("cast-of-casts")
    with pytest.raises(RuleError, match="`vlmpass rules` lists them"):
        rule_named("xyzzy")


# ------------------------------------------------------------------------- less common notation
@rule(P.Add(P.vector("x"), P.scalar("y")))
def scalar_first(op: Tape, x: V, y: V) -> Replacement:
    """Add(vector x, scalar y) -> Sub(x, -y)."""
    return op.Sub(x, op.Neg(y))


def test_ranks() -> None:
    rewrites(scalar_first, "g (float[n] x, float y) => (float[n] z) { z = Add(y, x) }")
    text = "g (float[m,n] x, float y) => (float[m,n] z) { z = Add(y, x) }"
    refuses(scalar_first, text, because="is not known to have")


@rule(P.Concat(P.several("xs", some=P.Neg), axis="axis"))
def negative_together(op: Tape, xs: tuple[V, ...], axis: int) -> Replacement:
    """Concat(-x, -y) -> -Concat(x, y)."""
    inner = [x.producer() for x in xs]
    if any(node is None or node.op_type != "Neg" for node in inner):
        return refuse("some operand is no Neg")
    return op.Neg(op.Concat(*(node.inputs[0] for node in inner if node), axis=axis))


def test_some_of_several_inputs() -> None:
    head = "g (float[n] x, float[m] z) => (float[k] y)"
    rewrites(
        negative_together,
        f"{head} {{ a = Neg(x) b = Neg(z) y = Concat<axis=0>(a, b) }}",
        f"{head} {{ a = Concat<axis=0>(x, z) y = Neg(a) }}",
    )
    text = f"{head} {{ a = Neg(x) y = Concat<axis=0>(a, z) }}"
    refuses(negative_together, text, because="some operand is no Neg")
    text = f"{head} {{ a = Abs(x) y = Concat<axis=0>(a, z) }}"
    refuses(negative_together, text, because="no Neg produces an input")


TWICE = P.Exp("x") | P.Abs("x")


@rule(P.Mul(TWICE, TWICE))
def square_of(op: Tape, x: V) -> Replacement:
    """exp(x) * exp(x) -> exp(x + x), and |x| * |x| -> x * x, told apart by the graph."""
    return op.Mul(x, x)


def test_alternatives_in_two_places_are_one_value() -> None:
    text = "g (float[n] x) => (float[n] y) { a = Abs(x) y = Mul(a, a) }"
    rewrites(square_of, text, "g (float[n] x) => (float[n] y) { y = Mul(x, x) }")
    text = "g (float[n] x) => (float[n] y) { a = Abs(x) b = Exp(x) y = Mul(a, b) }"
    refuses(square_of, text, because="expected Abs at 'a' again, found Exp at 'b'")


@rule(P.Split("x", ..., _outputs=3))
def first_third(op: Tape, x: V) -> Replacement:
    """Split(x), of which the first part alone is used -> Slice(x)."""
    third = op.Slice(x, starts=[0], ends=[2], axes=[0])
    return (third, None, None)


def test_outputs_without_replacement_must_be_unused() -> None:
    head = "g (float[6] x) => (float[2] y)"
    body = "a, b, c = Split<num_outputs=3>(x) y = Neg({})"
    rewrites(first_third, f"{head} {{ {body.format('a')} }}")
    refuses(first_third, f"{head} {{ {body.format('b')} }}", because="'b' is used and has no")


def test_attributes_of_the_function_around_are_not_known() -> None:
    @rule(P.Transpose("x", perm="perm"))
    def any_transpose(op: Tape, x: V, perm: tuple[int, ...]) -> Replacement:
        """Transpose(x) -> refused."""
        return refuse("perm is {}", perm)

    text = """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[2,n] x) => (float[n,2] y) { y = local.turn<p=[1,0]>(x) }
        <domain: "local", opset_import: ["" : 20]>
        turn <p> (x) => (y) { y = Transpose<perm : ints = @p>(x) }"""
    refuses(any_transpose, text, because="perm is not known before it runs")


@rule(P.Relu("x"), opset=(None, 19), or_emits="com.microsoft")
def either_way(op: Tape, x: V) -> Replacement:
    """Relu(x) -> Max(x, 0), or Gelu(x) on request."""
    if "com.microsoft" in op.emits:
        return op.Gelu(x, _domain="com.microsoft")
    return op.Max(x, op.const(0.0, x.dtype))


def test_a_rule_may_serve_an_opset_or_a_domain() -> None:
    text = "g (float[n] x) => (float[n] y) { y = Relu(x) }"
    old, new = parse(text, 17), parse(text, 20)
    assert apply_rules(old, either_way)
    assert [node.op_type for node in old.graph] == ["Max"]
    assert not apply_rules(new, either_way)
    assert apply_rules(new, either_way, emits=["com.microsoft"])
    assert [node.domain for node in new.graph] == ["com.microsoft"]
    assert either_way.needs == ("opset 1 to 19, or emits com.microsoft",)


@rule(P.MatMul("x", "w"), P.MatMul("x", "v"))
def never_joined(op: Tape, x: V, w: V, v: V) -> Replacement:
    """MatMul(x, w), MatMul(x, v) -> refused."""
    return refuse("never")


def test_a_value_with_many_users_is_followed_to_a_bound() -> None:
    products = " ".join(f"y{i} = MatMul(x, w)" for i in range(300))
    outputs = ", ".join(f"float[2,2] y{i}" for i in range(300))
    model = parse(f"g (float[2,2] x, float[2,2] w) => ({outputs}) {{ {products} }}")
    attempts = explain(never_joined, model)
    assert {attempt.matched for attempt in attempts} == {2}
