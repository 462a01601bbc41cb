"""What the engine keeps true whatever a rule does."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from rewrite.support import canonical, parse, refuses, rewrites, same_numbers
from vlmpass.ir_tools.graph.limit import LIMIT, Changes
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import (
    NoFixpoint,
    P,
    Replacement,
    RuleError,
    RuleSet,
    Tape,
    apply_rules,
    explain,
    refuse,
    rule,
)

V = ir.Value


@rule(P.Mul(P.Sigmoid("x"), "x"), opset=(24, None))
def swish(op: Tape, x: V) -> Replacement:
    """x * sigmoid(x) -> Swish(x)."""
    return op.Swish(x)


@rule(P.Mul(P.Sigmoid("x"), "x"), emits="com.microsoft")
def quick_gelu(op: Tape, x: V) -> Replacement:
    """x * sigmoid(x) -> QuickGelu(x, 1)."""
    return op.QuickGelu(x, alpha=1.0, _domain="com.microsoft")


@rule(P.Relu(P.Relu("x")))
def relu_of_relu(op: Tape, x: V) -> Replacement:
    """Relu(Relu(x)) -> Relu(x)."""
    return op.Relu(x)


@rule(P.Neg(P.Neg("x")))
def neg_of_neg(op: Tape, x: V) -> Replacement:
    """Neg(Neg(x)) -> x."""
    return x


@rule(P.Identity("x"))
def no_identity(op: Tape, x: V) -> Replacement:
    """Identity(x) -> x."""
    return x


SWISH = "g (float[n] x) => (float[n] y) { s = Sigmoid(x) y = Mul(x, s) }"


def test_opset_and_domains_are_enforced() -> None:
    rewrites(swish, SWISH, "g (float[n] x) => (float[n] y) { y = Swish(x) }", opset=24)
    refuses(swish, SWISH, because="matches, but needs opset 24 or later and this is opset 20")
    model = parse(SWISH)
    assert not apply_rules(model, quick_gelu)
    assert apply_rules(model, quick_gelu, emits=["com.microsoft"]).counts == {"quick-gelu": 1}
    assert model.opset_imports == {"": 20, "com.microsoft": 1}


def test_an_undeclared_domain_is_an_error() -> None:
    @rule(P.Sigmoid("x"))
    def sneaky(op: Tape, x: V) -> Replacement:
        """Sigmoid(x) -> Sneaky(x)."""
        return op.Sneaky(x, _domain="com.sneaky")

    with pytest.raises(RuleError, match=r"builds com\.sneaky::Sneaky"):
        apply_rules(parse(SWISH), sneaky)


def test_types_are_enforced_and_results_must_fit() -> None:
    @rule(P.Sigmoid("x"), dtypes={"x": [ir.DataType.DOUBLE]})
    def only_double(op: Tape, x: V) -> Replacement:
        """Sigmoid(x) -> x."""
        return x

    refuses(only_double, SWISH, because="element type of x is FLOAT")

    @rule(P.Sigmoid("x"))
    def narrow(op: Tape, x: V) -> Replacement:
        """Sigmoid(x) -> Cast(x, FLOAT16)."""
        return op.Cast(x, to=ir.DataType.FLOAT16)

    refuses(narrow, SWISH, because="FLOAT16 instead of FLOAT")

    @rule(P.Sigmoid("x"))
    def taller(op: Tape, x: V) -> Replacement:
        """Sigmoid(x) -> Unsqueeze(x, 0)."""
        return op.Unsqueeze(x, axes=[0])

    model = parse(SWISH)
    refuses(taller, model, because="shape would be")
    # Nothing that a declined rule built is left behind.
    assert len(model.graph.inputs[0].uses()) == 2


def test_interior_values_used_elsewhere_stay() -> None:
    used = "g (float[n] x) => (float[n] y, float[n] z) { r = Relu(x) y = Relu(r) z = Neg(r) }"
    refuses(relu_of_relu, used, because="'r' is also used by 'z' (Neg)")
    out = "g (float[n] x) => (float[n] r, float[n] y) { r = Relu(x) y = Relu(r) }"
    refuses(relu_of_relu, out, because="'r' inside the match is an output of the graph")


def test_chains_reach_a_fixed_point_whatever_their_length() -> None:
    links = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(300))
    model = parse(f"g (float[n] v0) => (float[n] y) {{ {links} y = Neg(v300) }}")
    assert apply_rules(model, relu_of_relu).counts == {"relu-of-relu": 299}
    assert len(model.graph) == 2
    # The new node is named after the first it stands for, not after all in turn.
    assert all(len(node.name or "") < 30 for node in model.graph)


def test_nodes_nothing_uses_any_more_go() -> None:
    @rule(P.Mul("x", P.Exp("y")))
    def drop(op: Tape, x: V, y: V) -> Replacement:
        """x * exp(y) -> x, which is wrong and only shows what is left behind."""
        return x

    model = parse(
        """g (float[2] x) => (float[2] z) {
           k = Constant<value_float=2.0>() a = Neg(x) b = Mul(a, k) e = Exp(b) z = Mul(x, e) }"""
    )
    apply_rules(model, drop)
    assert [node.op_type for node in model.graph] == ["Identity"]


def test_outputs_keep_their_names_where_a_rule_returns_an_existing_value() -> None:
    head = "g (float[n] x) => (float[n] y, float[n] z)"
    model = rewrites(
        neg_of_neg + no_identity,
        f"{head} {{ r = Relu(x) a = Neg(r) y = Neg(a) b = Neg(r) z = Neg(b) }}",
        f"{head} {{ z = Relu(x) y = Identity(z) }}",
    )
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    border = "g (float[n] x) => (float[n] y) { y = Identity(x) }"
    refuses(no_identity, border, because="keeps the name of an output")


def test_new_names_collide_with_nothing() -> None:
    @rule(P.Relu("x"))
    def clamp(op: Tape, x: V) -> Replacement:
        """Relu(x) -> Max(x, 0)."""
        return op.Max(x, op.const(0.0, x.dtype, name="k"))

    model = parse(
        """g (float[n] x, float[n] "r/k") => (float[n] y) <float "r/k_1" = {3.0}> {
           [r] a = Relu(x) [r2] b = Relu("r/k") c = Add(a, b) y = Add(c, "r/k_1") }"""
    )
    original = ir.serde.from_proto(ir.to_proto(model))
    apply_rules(model, clamp)
    assert model.graph.initializers["r/k_1"].const_value.numpy() == 3.0  # type: ignore[union-attr]
    assert len(model.graph.initializers) == 3
    same_numbers(original, model)


def test_metadata_is_merged_and_the_rule_named() -> None:
    model = parse(
        "g (float[n] x) => (float[n] y) { [first] r = Relu(x) [second] y = Relu(r) }",
    )
    first, second = model.graph
    first.metadata_props.update({"namespace": "a", "pkg.torch.onnx.stack_trace": "line 1"})
    second.metadata_props.update({"namespace": "b", "vlmpass.rule": "older"})
    apply_rules(model, relu_of_relu)
    (node,) = model.graph
    assert node.metadata_props["vlmpass.rule"] == "relu-of-relu"
    assert node.metadata_props["pkg.torch.onnx.stack_trace"] == "line 1"
    assert node.metadata_props["namespace"] == "a"


IN_BRANCH = """g (bool c, float[n] x) => (float[n] y) {
    one = Constant<value_float=1.0>()
    y = If(c) <
        then_branch = then_graph () => (float[n] t) { r = Relu(x) t = Relu(r) },
        else_branch = else_graph () => (float[n] e) { m = Mul(x, one) e = Neg(m) }
    > }"""


def test_subgraphs_are_rewritten_and_see_outer_constants() -> None:
    @rule(P.Mul("x", 1.0))
    def mul_one(op: Tape, x: V) -> Replacement:
        """x * 1 -> x."""
        return x

    model = rewrites(relu_of_relu + mul_one, IN_BRANCH)
    kinds = [node.op_type for node in all_nodes(model)]
    assert sorted(kinds) == ["If", "Neg", "Relu"]


def test_interior_nodes_of_another_graph_are_not_taken() -> None:
    text = IN_BRANCH.replace("r = Relu(x) t = Relu(r)", "t = Relu(outer)")
    text = text.replace("one = ", "outer = Relu(x) one = ")
    refuses(relu_of_relu, text, because="lies in another graph")


def test_functions_are_rewritten_with_constants_as_nodes() -> None:
    @rule(P.Sigmoid("x"))
    def slow_sigmoid(op: Tape, x: V) -> Replacement:
        """Sigmoid(x) -> 1 / (1 + exp(-x))."""
        one = op.const(1.0, ir.DataType.FLOAT)
        return op.Div(one, op.Add(one, op.Exp(op.Neg(x))))

    text = """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[n] x) => (float[n] y) { y = local.act(x) }
        <domain: "local", opset_import: ["" : 20]>
        act (x) => (y) { s = Sigmoid(x) y = Mul(x, s) }"""
    model = rewrites(slow_sigmoid, text)
    (function,) = model.functions.values()
    assert next(iter(function)).op_type == "Constant"


def test_an_initializer_that_callers_may_override_is_no_constant() -> None:
    @rule(P.Mul("x", 1.0))
    def mul_one(op: Tape, x: V) -> Replacement:
        """x * 1 -> x."""
        return x

    model = parse("g (float[n] x, float k) => (float[n] y) <float k = {1.0}> { y = Mul(x, k) }")
    assert not apply_rules(model, mul_one)
    assert "found input 'k'" in explain(mul_one, model)[0].reason


def unread() -> ir.TensorProtocol:
    raise AssertionError("a large weight was read")


def test_large_weights_are_not_read_to_compare_them_with_a_number() -> None:
    @rule(P.Mul("x", "k"))
    def fold_scale(op: Tape, x: V, k: float) -> Replacement:
        """x * k -> refuse."""
        return refuse("seen")

    @rule(P.Mul("x", "k"))
    def lazily(op: Tape, x: V, k: ir.TensorProtocol) -> Replacement:
        """x * k -> refuse."""
        return refuse("{} bytes", k.nbytes)

    model = parse(
        "g (float[2,1024] x, float[1024,1024] w) => (float[1024,1024] y) { y = Mul(x, w) }"
    )
    weight = model.graph.inputs.pop()
    weight.const_value = ir.LazyTensor(
        unread, dtype=ir.DataType.FLOAT, shape=ir.Shape([1024, 1024]), name="w"
    )
    model.graph.register_initializer(weight)
    assert not apply_rules(model, fold_scale + lazily)
    assert explain(fold_scale, model)[0].reason == "k is not a constant float: found constant 'w'"
    assert explain(lazily, model)[0].reason == "4194304 bytes"


def test_one_element_constants_must_not_widen_the_result() -> None:
    @rule(P.Add("x", 0.0))
    def add_zero(op: Tape, x: V) -> Replacement:
        """x + 0 -> x."""
        return x

    text = """g (float[{}] x) => (float{} y) {{
        k = Constant<value=float{}>() a = Add(x, k) y = Neg(a) }}"""
    rewrites(add_zero, text.format("n", "[n]", "[1] {0}"))
    rewrites(add_zero, text.format("2,3", "[2,3]", "[3] {0,0,0}"))
    refuses(add_zero, text.format("n", "[1,n]", "[1,1] {0}"), because="expected a constant 0.0")
    refuses(add_zero, text.format("1,3", "[2,3]", "[2,1] {0,0}"), because="expected a constant 0.0")


# --------------------------------------------------------------------------------- budgets, limits
def test_rules_that_undo_each_other_are_named() -> None:
    @rule(P.Neg("x"))
    def neg_sub(op: Tape, x: V) -> Replacement:
        """Neg(x) -> 0 - x."""
        return op.Sub(op.const(0.0, x.dtype), x)

    @rule(P.Sub(0.0, "x"))
    def sub_neg(op: Tape, x: V) -> Replacement:
        """0 - x -> Neg(x)."""
        return op.Neg(x)

    model = parse("g (float[n] x) => (float[n] y) { [here] y = Neg(x) }")
    with pytest.raises(
        NoFixpoint, match=r"neg-sub x\d+, sub-neg x\d+; last at node 'here/"
    ) as info:
        apply_rules(model, neg_sub + sub_neg)
    assert set(info.value.counts) == {"neg-sub", "sub-neg"}


def test_a_rule_that_grows_without_end_is_stopped() -> None:
    @rule(P.Neg("x"))
    def triple(op: Tape, x: V) -> Replacement:
        """Neg(x) -> Neg(Neg(Neg(x)))."""
        return op.Neg(op.Neg(op.Neg(x)))

    with pytest.raises(NoFixpoint, match="triple"):
        apply_rules(parse("g (float[n] x) => (float[n] y) { y = Neg(x) }"), triple)


def test_a_limit_stops_after_the_nth_application() -> None:
    links = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(10))
    model = parse(f"g (float[n] v0) => (float[n] y) {{ {links} y = Neg(v10) }}")
    changes = Changes(limit=4)
    token = LIMIT.set(changes)
    try:
        assert apply_rules(model, relu_of_relu).counts == {"relu-of-relu": 4}
    finally:
        LIMIT.reset(token)
    assert len(model.graph) == 7
    assert changes.last.startswith("relu-of-relu at ")


def test_the_first_rule_of_a_set_has_precedence() -> None:
    first = parse(SWISH, 24)
    assert list(apply_rules(first, swish + quick_gelu, emits=["com.microsoft"]).counts) == ["swish"]
    second = parse(SWISH, 24)
    both = RuleSet((quick_gelu,)) + swish
    assert list(apply_rules(second, both, emits=["com.microsoft"]).counts) == ["quick-gelu"]
    assert len(both + both) == 2


def test_fast_math_only_on_request() -> None:
    @rule(P.Sqrt(P.Mul("x", "x")), fast_math=True)
    def rough(op: Tape, x: V) -> Replacement:
        """sqrt(x * x) -> Abs(x)."""
        return op.Abs(x)

    model = parse("g (float[n] x) => (float[n] y) { s = Mul(x, x) y = Sqrt(s) }")
    assert not apply_rules(model, rough)
    assert apply_rules(model, rough, fast_math=True)
    assert rough.needs == ("fast-math",)


def test_the_same_model_comes_out_each_time() -> None:
    texts = set()
    for _ in range(3):
        model = parse(IN_BRANCH)
        apply_rules(model, relu_of_relu + neg_of_neg + no_identity)
        texts.add(canonical(model) + repr([v.name for n in all_nodes(model) for v in n.outputs]))
    assert len(texts) == 1


# ---------------------------------------------------------------------------------------- why not?
def test_explain_ranks_attempts_by_how_far_they_got() -> None:
    @rule(P.Mul(0.5, P.Add(1.0, P.Tanh("x"))))
    def half_tanh(op: Tape, x: V) -> Replacement:
        """0.5 * (1 + tanh(x)) -> Sigmoid(2 x)."""
        return op.Sigmoid(op.Add(x, x))

    model = parse(
        """g (float[n] x) => (float[n] y) {
        h = Constant<value_float=0.7>() o = Constant<value_float=1.0>()
        half = Constant<value_float=0.5>()
        [far] a = Mul(x, x)
        t = Tanh(a) [plus] p = Add(t, o) ["layers.3/mul"] b = Mul(p, h)
        s = Sinh(b) [plus2] q = Add(s, o) ["layers.4/mul"] y = Mul(q, half) }"""
    )
    first, second, third = explain(half_tanh, model)
    assert str(first) == (
        "Mul(14) at 'layers.3/mul': expected a constant 0.5, found 0.7 (3 of 3 nodes)"
    )
    assert str(second) == (
        "Add(14) at 'plus2': expected Tanh, found Sinh at 's' "
        "(2 of 3 nodes, root Mul(14) at 'layers.4/mul')"
    )
    assert third.node == "Mul(14) at 'far'"
    near = explain(half_tanh, model, near="layers.4")
    assert [attempt.node for attempt in near] == ["Mul(14) at 'layers.4/mul'"]
    assert not near[0].applies
    assert near[0].failed_at == "Add(14) at 'plus2'"
    assert near[0].reason == "expected Tanh, found Sinh at 's'"
    assert len(model.graph) == 10
