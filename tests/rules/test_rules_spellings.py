"""Every spelling that exporters have for a normalisation or an activation becomes one node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import RUNTIME_ERRORS, check, difference, parse, random_inputs, rewrites, run

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import apply_rules
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.unfuse import UNFUSE

FLOAT16, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
CONSTANTS = """two = Constant<value_float=2.0>() one = Constant<value_float=1.0>()
    eps = Constant<value_float=0.00001>() minus = Constant<value_float=-0.5>()
    eight = Constant<value_float=8.0>() axes = Constant<value_ints=[-1]>() """

# What comes after `w`, the mean of squares and eps, and leaves the product in `z`.
OVER_ROOT = {
    "div-sqrt": "d = Sqrt(w) z = Div(x, d)",
    "one-over-sqrt": "d = Sqrt(w) r = Div(one, d) z = Mul(x, r)",
    "reciprocal-of-sqrt": "d = Sqrt(w) r = Reciprocal(d) z = Mul(r, x)",
    "power": "r = Pow(w, minus) z = Mul(x, r)",
    "sqrt-of-reciprocal": "d = Reciprocal(w) r = Sqrt(d) z = Mul(x, r)",
}
MEANS = {
    "pow": "q = Pow(x, two) v = ReduceMean(q, axes) w = Add(v, eps)",
    "mul": "q = Mul(x, x) v = ReduceMean(q, axes) w = Add(v, eps)",
    "eps-first": "q = Pow(x, two) v = ReduceMean(q, axes) w = Add(eps, v)",
    "sum-of-squares": "q = ReduceSumSquare(x, axes) v = Div(q, eight) w = Add(v, eps)",
    "sum": "q = Mul(x, x) s = ReduceSum(q, axes) v = Div(s, eight) w = Add(v, eps)",
}
SCALES = {
    "weight": "y = Mul(g, z)",
    "weight-last": "y = Mul(z, g)",
    "gemma": "h = Add(one, g) y = Mul(z, h)",
    "none": "y = Identity(z)",
}
EMIT = {
    "standard": (23, (), "RMSNormalization"),
    "ort": (18, ("com.microsoft",), "SimplifiedLayerNormalization"),
}


def _kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in all_nodes(model) if node.op_type != "Constant"]


def _one(model: ir.Model, op_type: str) -> ir.Node:
    (found,) = [node for node in all_nodes(model) if node.op_type == op_type]
    left = {"Sqrt", "Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Reciprocal", "Div"}
    assert not left & set(_kinds(model))
    return found


@pytest.mark.parametrize("emit", EMIT)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("root", OVER_ROOT)
@pytest.mark.parametrize("mean", MEANS)
def test_root_mean_square(mean: str, root: str, scale: str, emit: str) -> None:
    opset, emits, operator = EMIT[emit]
    text = f"""g (float[2,n,8] x, float[8] g) => (float[2,n,8] y) {{
        {CONSTANTS} {MEANS[mean]} {OVER_ROOT[root]} {SCALES[scale]} }}"""
    model = rewrites(FUSE, text, opset=opset, emits=emits)
    node = _one(model, operator)
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-5)
    assert node.attributes["stash_type"].as_int() == FLOAT


SANDWICH = {
    # weight * x.to(dtype)
    "narrowed": ("x32 = Cast<to=1>(x)", "n = Cast<to=10>(z) y = Mul(g, n)", FLOAT16),
    # (weight * x).to(dtype), with a narrow weight widened
    "narrowed-last": (
        "x32 = Cast<to=1>(x) g32 = Cast<to=1>(g)",
        "p = Mul(g32, z) y = Cast<to=10>(p)",
        FLOAT16,
    ),
}


@pytest.mark.parametrize("emit", EMIT)
@pytest.mark.parametrize("root", OVER_ROOT)
@pytest.mark.parametrize("form", SANDWICH)
def test_root_mean_square_between_casts(form: str, root: str, emit: str) -> None:
    opset, emits, operator = EMIT[emit]
    before, after, dtype = SANDWICH[form]
    body = f"{CONSTANTS} {before} {MEANS['pow']} {OVER_ROOT[root]}".replace("(x,", "(x32,")
    body = body.replace(", x)", ", x32)")
    text = f"g (float16[2,n,8] x, float16[8] g) => (float16[2,n,8] y) {{ {body} {after} }}"
    model = rewrites(FUSE, text, opset=opset, emits=emits)
    node = _one(model, operator)
    assert _kinds(model) == [node.op_type]
    assert node.inputs[0].dtype == dtype  # type: ignore[union-attr]
    assert node.attributes["stash_type"].as_int() == FLOAT
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-5)


def test_a_wide_result_keeps_its_wide_scale() -> None:
    text = f"""g (float16[2,n,8] x, float[8] g) => (float16[2,n,8] y) {{ {CONSTANTS}
        c = Cast<to=1>(x) q = Mul(c, c) v = ReduceMean(q, axes) w = Add(v, eps) d = Sqrt(w)
        z = Div(c, d) p = Mul(z, g) y = Cast<to=10>(p) }}"""
    model = rewrites(FUSE, text, opset=23)
    assert _kinds(model) == ["Cast", "RMSNormalization", "Cast"]


MOMENTS = "m = ReduceMean(x, axes) c = Sub(x, m) "
VARIANCE = {
    "pow": "q = Pow(c, two) v = ReduceMean(q, axes) w = Add(v, eps) ",
    "mul": "q = Mul(c, c) v = ReduceMean(q, axes) w = Add(eps, v) ",
}


@pytest.mark.parametrize("root", OVER_ROOT)
@pytest.mark.parametrize("variance", VARIANCE)
def test_layer_normalization(variance: str, root: str) -> None:
    over = OVER_ROOT[root].replace("x", "c")
    text = f"""g (float[2,n,8] x, float[8] g, float[8] b) => (float[2,n,8] y) {{ {CONSTANTS}
        {MOMENTS} {VARIANCE[variance]} {over} s = Mul(z, g) y = Add(s, b) }}"""
    model = rewrites(FUSE, text, opset=20)
    node = _one(model, "LayerNormalization")
    assert len(node.inputs) == 3


def test_layer_normalization_of_half_precision_keeps_its_float_statistics() -> None:
    over = OVER_ROOT["div-sqrt"].replace("x", "c")
    body = f"{MOMENTS} {VARIANCE['pow']} {over}".replace("(x,", "(x32,")
    text = f"""g (float16[2,n,8] x, float16[8] g, float16[8] b) => (float16[2,n,8] y) {{
        {CONSTANTS} x32 = Cast<to=1>(x) {body} h = Cast<to=10>(z) s = Mul(h, g) y = Add(b, s) }}"""
    model = rewrites(FUSE, text, opset=20)
    node = _one(model, "LayerNormalization")
    assert node.attributes["stash_type"].as_int() == FLOAT
    assert _kinds(model) == [node.op_type]


def test_statistics_in_half_precision_stay_in_half_precision() -> None:
    text = f"""g (float16[2,n,8] x, float16[8] g, float16 eps) => (float16[2,n,8] y) {{
        axes = Constant<value_ints=[-1]>() {MEANS["mul"]} d = Sqrt(w) z = Div(x, d)
        y = Mul(z, g) }}"""
    model = parse(text, 23)
    eps = model.graph.inputs.pop()
    eps.const_value = ir.tensor(np.array(0.001, np.float16), name="eps")
    model.graph.register_initializer(eps)
    model = rewrites(FUSE, model)
    assert _one(model, "RMSNormalization").attributes["stash_type"].as_int() == FLOAT16


def test_norms_of_sums_share_the_sum_with_the_residual_stream() -> None:
    text = f"""g (float[2,n,8] x, float[2,n,8] a, float[8] g) => (float[2,n,8] y) {{ {CONSTANTS}
        x1 = Add(a, x) q = Mul(x1, x1) v = ReduceMean(q, axes) w = Add(v, eps) d = Sqrt(w)
        z = Div(x1, d) s = Mul(g, z) t = Tanh(s) x2 = Add(x1, t)
        q2 = Mul(x2, x2) v2 = ReduceMean(q2, axes) w2 = Add(v2, eps) d2 = Sqrt(w2)
        z2 = Div(x2, d2) s2 = Mul(g, z2) y = Add(x2, s2) }}"""
    model = rewrites(FUSE, text, opset=20, emits=["com.microsoft"])
    skip = "SkipSimplifiedLayerNormalization"
    assert _kinds(model) == [skip, "Tanh", skip, "Add"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ("y = RMSNormalization<epsilon=0.001, axis=-1, stash_type=1>(x, g)", 23),
        ("y = LayerNormalization<epsilon=0.001, axis=-1, stash_type=1>(x, g)", 20),
        ("y = LayerNormalization<epsilon=0.001, axis=-1, stash_type=1>(x, g, g)", 20),
        ("y = Gelu(x)", 20),
        ('y = Gelu<approximate="tanh">(x)', 20),
        ("y = Swish<alpha=1.0>(x)", 24),
        ("y = Swish<alpha=1.5>(x)", 24),
        ("y = Mish(x)", 20),
        ("y = HardSwish(x)", 20),
    ],
)
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_fusing_what_was_unfused_gives_it_back(
    body: str, opset: int, dtype: str, seed: int
) -> None:
    text = f"g ({dtype}[2,n,8] x, {dtype}[8] g) => ({dtype}[2,n,8] y) {{ {body} }}"
    model = parse(text, opset)
    feed = random_inputs(model, seed)
    try:
        expected = run(model, feed)
    except RUNTIME_ERRORS as error:
        pytest.skip(str(error))
    apply_rules(model, UNFUSE)
    check(model)
    assert len(model.graph) > 1
    assert difference(expected, run(model, feed)) == ""
    rewrites(FUSE, model, text, opset=opset)


@pytest.mark.parametrize(("opset", "fuses"), [(18, False), (23, True)])
def test_in_a_function_only_standard_operators_are_emitted(opset: int, fuses: bool) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : {opset}, "local" : 1]>
        g (float[2,n,8] x, float[8] g) => (float[2,n,8] y) {{ y = local.norm(x, g) }}
        <domain: "local", opset_import: ["" : {opset}]>
        norm (x, g) => (y) {{ {CONSTANTS} {MEANS["pow"]} {OVER_ROOT["power"]} y = Mul(z, g) }}"""
    model = parse(text)
    (function,) = model.functions.values()
    for value in (*function.inputs, *(output for node in function for output in node.outputs)):
        rank = 1 if value.name == "g" else 3
        value.type, value.shape = ir.TensorType(FLOAT), ir.Shape([2, "n", 8][3 - rank :])
    assert bool(apply_rules(model, FUSE, emits=["com.microsoft"])) == fuses
    assert ("RMSNormalization" in _kinds(model)) == fuses
    run(model, random_inputs(model))
