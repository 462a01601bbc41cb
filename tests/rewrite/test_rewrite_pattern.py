"""What the pattern language can say."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from rewrite.support import parse, refuses, rewrites
from vlmpass.ir_tools.rewrite import P, Replacement, RuleError, Tape, apply_rules, refuse, rule

V = ir.Value


@rule(P.Mul(0.5, P.Mul("x", P.Erf(P("x") / math.sqrt(2)) + 1.0)))
def erf_gelu(op: Tape, x: V) -> Replacement:
    """0.5 * x * (1 + erf(x / sqrt 2)) -> Gelu(x)."""
    return op.Gelu(x)


GELU = """g (float[2,n] x) => (float[2,n] y) {{
    r = Constant<value_float={root}>()  h = Constant<value_float=0.5>()
    o = Constant<value_float=1.0>()
    d = Div(x, r)  e = Erf(d)  p = Add({add})  q = Mul({inner})  y = Mul({outer}) }}"""


@pytest.mark.parametrize("add", ["o, e", "e, o"])
@pytest.mark.parametrize("inner", ["x, p", "p, x"])
@pytest.mark.parametrize("outer", ["h, q", "q, h"])
def test_commutative_operands_match_in_any_order(add: str, inner: str, outer: str) -> None:
    text = GELU.format(root=1.4142135, add=add, inner=inner, outer=outer)
    rewrites(erf_gelu, text, "g (float[2,n] x) => (float[2,n] y) { y = Gelu(x) }")


def test_a_lookalike_number_is_refused_with_both_numbers() -> None:
    text = GELU.format(root=1.4, add="o, e", inner="x, p", outer="h, q")
    refuses(erf_gelu, text, because="expected a constant 1.4142135623730951, found 1.4")


@rule(P.Add("x", P.Mul("x", "k")))
def factor(op: Tape, x: V, k: float) -> Replacement:
    """x + k * x -> (1 + k) * x."""
    return op.Mul(x, op.const(1 + k, x.dtype))


def test_one_capture_twice_is_one_value() -> None:
    body = "k = Constant<value_float=3.0>() m = Mul({}, k) z = Add(x, m)"
    head = "g (float[n] x, float[n] y) => (float[n] z)"
    rewrites(
        factor,
        f"{head} {{ {body.format('x')} }}",
        f"{head} {{ k = Constant<value_float=4.0>() z = Mul(x, k) }}",
    )
    text = f"{head} {{ {body.format('y')} }}"
    refuses(factor, text, because="x is 'x' elsewhere, but 'y' here")


@rule(P.ReduceMean("x", axes=-1, keepdims="keepdims"))
def mean_marker(op: Tape, x: V, keepdims: bool) -> Replacement:
    """ReduceMean(x, last axis) -> ReduceSum / size."""
    assert x.shape is not None
    total = op.ReduceSum(x, axes=[-1], keepdims=keepdims)
    return op.Div(total, op.const(float(x.shape[-1]), x.dtype))  # type: ignore[arg-type]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("axis", [-1, 2])
def test_an_attribute_is_found_as_input_by_default_and_from_the_other_end(
    opset: int, axis: int
) -> None:
    call = f"ReduceMean<axes=[{axis}]>(x)" if opset < 18 else "ReduceMean(x, a)"
    text = f"""g (float[2,n,5] x) => (float[2,n,1] y) {{
        a = Constant<value_ints=[{axis}]>() y = {call} }}"""
    model = rewrites(mean_marker, text, opset=opset)
    # The tape gives ReduceSum its axes in the way of the model's opset.
    (total,) = [node for node in model.graph if node.op_type == "ReduceSum"]
    assert len(total.inputs) == 2
    refuses(mean_marker, text.replace(f"[{axis}]", "[1]"), because="axes=-1", opset=opset)


@rule(P.Transpose("x", perm="perm"))
def identity_transpose(op: Tape, x: V, perm: tuple[int, ...]) -> Replacement:
    """Transpose(x, 0 1 2 ...) -> x."""
    return x if perm == tuple(sorted(perm)) else refuse("{} moves axes", perm)


def test_returning_an_input_leaves_inputs_and_outputs_named() -> None:
    model = rewrites(
        identity_transpose,
        "g (float[2,n] x) => (float[2,n] y) { y = Transpose<perm=[0,1]>(x) }",
        "g (float[2,n] x) => (float[2,n] y) { y = Identity(x) }",
    )
    assert [model.graph.inputs[0].name, model.graph.outputs[0].name] == ["x", "y"]
    refuses(
        identity_transpose,
        "g (float[2,n] x) => (float[n,2] y) { y = Transpose<perm=[1,0]>(x) }",
        because="(1, 0) moves axes",
    )
    refuses(
        identity_transpose,
        "g (float[2,n] x) => (float[n,2] y) { y = Transpose(x) }",
        because="has no perm",
    )


@rule(P.Gemm("a", "b", "c?", transB="trans_b", alpha=1.0))
def gemm_marker(op: Tape, a: V, b: V, c: V | None, trans_b: bool) -> Replacement:
    """Gemm(a, b, c) -> MatMul(a, b) + c."""
    b = op.Transpose(b, perm=[1, 0]) if trans_b else b
    product = op.MatMul(a, b)
    return product if c is None else op.Add(product, c)


def test_optional_inputs_and_unmentioned_attributes() -> None:
    head = "g (float[2,3] a, float[4,3] b, float[4] c) => (float[2,4] y)"
    rewrites(
        gemm_marker,
        f"{head} {{ y = Gemm<transB=1, transA=0, beta=1.0>(a, b, c) }}",
        f"{head} {{ t = Transpose<perm=[1,0]>(b) p = MatMul(a, t) y = Add(p, c) }}",
    )
    rewrites(gemm_marker, f"{head} {{ y = Gemm<transB=1>(a, b) }}")
    refuses(gemm_marker, f"{head} {{ y = Gemm<transB=1, beta=0.5>(a, b, c) }}", because="beta=0.5")
    refuses(gemm_marker, f"{head} {{ y = Gemm<transB=1, alpha=2.0>(a, b) }}", because="alpha=1.0")


@rule(P.Concat("first", "rest*", axis="axis"))
def concat_of_one(op: Tape, first: V, rest: tuple[V, ...], axis: int) -> Replacement:
    """Concat(x, x) -> Tile or Concat(x) -> x."""
    if rest:
        return refuse("{} more inputs", len(rest))
    return first


def test_variadic_inputs() -> None:
    head = "g (float[2,n] x) => (float[m,n] y)"
    rewrites(concat_of_one, f"{head} {{ z = Relu(x) y = Concat<axis=0>(z) }}")
    refuses(concat_of_one, f"{head} {{ y = Concat<axis=0>(x, x, x) }}", because="2 more inputs")


@rule(P.Sqrt(P.through(P.Exp(P.maybe.Cast("x", to="to")), "Identity")))
def exp_half(op: Tape, x: V, to: ir.DataType | None) -> Replacement:
    """sqrt(exp(x)) -> exp(x / 2)."""
    x = x if to is None else op.Cast(x, to=to)
    return op.Exp(op.Div(x, op.const(2.0, to or x.dtype)))


def test_optional_wrappers() -> None:
    rewrites(exp_half, "g (float[n] x) => (float[n] y) { e = Exp(x) y = Sqrt(e) }")
    rewrites(
        exp_half,
        """g (float16[n] x) => (float[n] y, float[n] other) {
           c = Cast<to=1>(x) e = Exp(c) i = Identity(e) j = Identity(i) y = Sqrt(j)
           other = Neg(c) }""",
    )
    refuses(
        exp_half,
        """g (float[n] x) => (float[n] y, float[n] other) {
           e = Exp(x) i = Identity(e) y = Sqrt(i) other = Neg(i) }""",
        because="'i' is also used by",
    )


@rule(P.Sqrt((P.Exp("x") | P.Abs("x")).named("inner")))
def keeps_inner(op: Tape, x: V, inner: V) -> Replacement:
    """sqrt(exp(x)) -> pow(exp x, 0.5), or of abs."""
    producer = inner.producer()
    assert producer is not None
    half = op.const(0.5, x.dtype)
    return op.Pow(op.node(producer.op_type, [x])[0], half)


def test_alternatives_and_named_parts() -> None:
    for name in ("Exp", "Abs"):
        rewrites(keeps_inner, f"g (float[n] x) => (float[n] y) {{ e = {name}(x) y = Sqrt(e) }}")
    text = "g (float[n] x) => (float[n] y) { e = Sin(x) y = Sqrt(e) }"
    refuses(keeps_inner, text, because="expected Exp, found Sin at")


@rule((P.Relu | P.Tanh)(P.Neg("x"), _node="act"))
def through_neg(op: Tape, x: V, act: ir.Node) -> Replacement:
    """act(-x) -> act(0 - x)."""
    return op.node(act.op_type, [op.Sub(op.const(0.0, x.dtype), x)])[0]


def test_one_of_several_operators_and_the_node_itself() -> None:
    for name in ("Relu", "Tanh"):
        rewrites(through_neg, f"g (float[n] x) => (float[n] y) {{ e = Neg(x) y = {name}(e) }}")


split = P.Split("x", _node="split", _outputs=2)


@rule(P.Concat(split[0], split[1], axis="axis"))
def concat_of_split(op: Tape, x: V, split: ir.Node, axis: int) -> Replacement:
    """Concat(Split(x)) -> x."""
    same = split.attributes.get_int("axis", 0) == axis
    return x if same else refuse("split along another axis than {}", axis)


def test_outputs_of_one_node() -> None:
    text = """g (float[6,n] x) => (float[6,n] y) {{
        z = Neg(x) a, b = Split<num_outputs=2>(z) y = Concat<axis=0>({}) }}"""
    rewrites(concat_of_split, text.format("a, b"))
    refuses(concat_of_split, text.format("b, a"), because="expected output 0 of Split")


@rule(P.Split("x", num_outputs=2, axis=0, _outputs=2))
def split_to_slices(op: Tape, x: V) -> Replacement:
    """Split(x) -> Slice(x), Slice(x)."""
    assert x.shape is not None
    assert isinstance(x.shape[0], int)
    half = (x.shape[0] + 1) // 2
    return [
        op.Slice(x, starts=[start], ends=[end], axes=[0])
        for start, end in ((0, half), (half, 2 * half))
    ]


def test_a_root_with_several_outputs() -> None:
    rewrites(
        split_to_slices,
        """g (float[6,n] x) => (float[3,n] y, float[3,n] z) {
           a, z = Split<num_outputs=2>(x) y = Neg(a) }""",
    )


@rule(P.MatMul("x", "w"), P.MatMul("x", "v"))
def joint_matmul(op: Tape, x: V, w: np.ndarray, v: np.ndarray) -> Replacement:
    """MatMul(x, w), MatMul(x, v) -> Split(MatMul(x, [w v]))."""
    joint = op.MatMul(x, op.const(np.concatenate([w, v], axis=1)))
    sizes = op.const(np.array([w.shape[1], v.shape[1]]))
    return op.node("Split", [joint, sizes], {"axis": -1}, outputs=2)


def weights(*names: str) -> str:
    return " ".join(
        f"{name} = Constant<value = float[2,2] {{1,{index},0,2}}>()"
        for index, name in enumerate(names)
    )


def test_several_roots_are_found_through_what_they_share() -> None:
    rewrites(
        joint_matmul,
        f"""g (float[n,2] x) => (float[n,2] y, float[n,2] z) {{ {weights("w", "v")}
            a = MatMul(x, w) b = MatMul(x, v) y = Neg(a) z = Exp(b) }}""",
    )


def test_users_of_an_earlier_root_make_way() -> None:
    model = rewrites(
        joint_matmul,
        f"""g (float[n,2] x) => (float[n,2] y, float[n,2] z) {{ {weights("w", "v")}
            a = MatMul(x, w) y1 = Neg(a) y = Abs(y1) b = MatMul(x, v) z = Exp(b) }}""",
    )
    assert sum(node.op_type == "MatMul" for node in model.graph) == 1


def test_roots_that_depend_on_each_other_are_refused() -> None:
    text = """g (float[n,2] x) => (float[n,2] z) {
        k = Constant<value = float[2,2] {1,2,0,2}>()
        w = Constant<value = float[2,2] {1,3,0,2}>()
        a = MatMul(x, k) b = Neg(a) c = Add(b, x) z = MatMul(c, w) }"""
    refuses(joint_matmul, text, because="found no further MatMul")


@rule(P.Add("x", P.maybe.Neg("y")), P.Exp("y"))
def _entangled(op: Tape, x: V, y: V) -> Replacement:
    """x - y, exp(y) -> x + (-y), exp(y)."""
    return [op.Sub(x, y), op.Exp(op.Identity(y))]


def test_a_root_feeding_another_is_no_place_for_one_replacement() -> None:
    model = parse(
        """g (float[n] x, float[n] y) => (float[n] z) {
           e = Exp(y) s = Sin(e) m = Neg(y) z = Add(s, m) }"""
    )
    assert not apply_rules(model, _entangled)


# ----------------------------------------------------------------------------------- at definition
def test_wrong_captures_are_found_at_definition() -> None:
    def missing(op: Tape, x: V, zz: V) -> Replacement:
        """Relu(x) -> x."""
        return x

    with pytest.raises(RuleError, match=r"rule missing \(.*test_rewrite_pattern.*\): .*'zz'"):
        rule(P.Relu("x"))(missing)

    def unused(op: Tape) -> Replacement:
        """Relu(x) -> x."""
        return refuse("no")

    with pytest.raises(RuleError, match="capture 'x' is no parameter"):
        rule(P.Relu("x"))(unused)

    def formless(op: Tape, x: V) -> Replacement:
        """Removes Relu."""
        return x

    with pytest.raises(RuleError, match="formula"):
        rule(P.Relu("x"))(formless)

    def certain(op: Tape, a: V, c: V) -> Replacement:
        """Gemm(a, c) -> a."""
        return a

    with pytest.raises(RuleError, match=r"'c' may be missing.*None"):
        rule(P.Gemm("a", P.any, "c?"))(certain)


def test_wrong_annotations_and_roots_are_found_at_definition() -> None:
    def attribute(op: Tape, x: V, perm: V) -> Replacement:
        """Transpose(x) -> x."""
        return x

    with pytest.raises(RuleError, match="'perm' captures an attribute"):
        rule(P.Transpose("x", perm="perm"))(attribute)

    def apart(op: Tape, x: V, y: V) -> Replacement:
        """Relu(x), Relu(y) -> x, y."""
        return [x, y]

    with pytest.raises(RuleError, match="shares no value"):
        rule(P.Relu("x"), P.Relu("y"))(apart)


def test_a_function_that_returns_nothing_is_named() -> None:
    @rule(P.Relu("x"))
    def silent(op: Tape, x: V) -> Replacement:
        """Relu(x) -> x."""
        return None  # type: ignore[return-value]

    model = parse("g (float[n] x) => (float[n] y) { y = Relu(x) }")
    with pytest.raises(RuleError, match=r"rule silent \(.*returned None.*refuse"):
        apply_rules(model, silent)
