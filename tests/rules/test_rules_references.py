"""Rules in functions whose calls give the numbers: attributes refer to them, nothing else can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from rewrite.support import check, difference, refuses, rewrites, run, same_numbers

from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.rewrite import Rule, apply_rules, explain, rule_named
from vlmpass.ir_tools.save import save
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.fusing.call_scalars import give_numbers
from vlmpass.passes.fusing.fuse import Fuse
from vlmpass.passes.infer import Infer
from vlmpass.passes.unfusing.unfuse import Unfuse

AXES = "axes = Constant<value_ints=[-1]>() "
EPS = "eps = Constant<value_float: float = @eps>() "
ROOT = "q = Mul(x, x) v = ReduceMean(q, axes) w = Add(v, eps) d = Sqrt(w) z = Div(x, d) "
RMS = AXES + EPS + ROOT + "y = Mul(z, s)"
MOMENTS = """two = Constant<value_float=2.0>() m = ReduceMean(x, axes) c = Sub(x, m)
    q = Pow(c, two) v = ReduceMean(q, axes)
    w = Add(eps, v) d = Sqrt(w) z = Div(c, d) y = Mul(z, s)"""


def called(
    body: str,
    *,
    parameter: str = "eps: float = 0.25",
    give: str = "eps: float = 0.001",
    kind: str = "float",
    opset: int = 24,
    more: str = "",
) -> ir.Model:
    """Return a model that calls a function twice, once with a number of its own."""
    text = f"""<ir_version: 10, opset_import: ["" : {opset}, "local" : 1]>
    g ({kind}[2,n,8] x, {kind}[8] s) => ({kind}[2,n,8] y, {kind}[2,n,8] z) {{
    [one] y = local.F<{give}>(x, s) [two] z = local.F(y, s) }}
    <domain: "local", opset_import: ["" : {opset}, "local" : 1, "com.microsoft" : 1]>
    F <{parameter}> (x, s) => (y) {{ {body} }}
    {more}"""
    model = ir.serde.from_proto(onnx.parser.parse_model(text))
    Infer().run(model)
    return model


def named(name: str) -> Rule:
    rule = rule_named(name)
    assert rule is not None
    return rule


def operators(model: ir.Model, function: str = "F") -> list[str]:
    nodes = model.functions["local", function, ""]
    return [node.op_type for node in nodes if node.op_type != "Constant"]


HALF = "e = Cast<to=10>(eps) "
WIDE = (
    AXES
    + EPS
    + "k = Cast<to=1>(x) "
    + ROOT.replace("Mul(x, x)", "Mul(k, k)").replace("(x, d", "(k, d")
)
FIRES = {
    "rms": ("rms-normalization", RMS, "float", "RMSNormalization"),
    "rms, half": (
        "rms-normalization",
        AXES + EPS + HALF + ROOT.replace("eps", "e") + "y = Mul(z, s)",
        "float16",
        "RMSNormalization",
    ),
    "rms, like": (
        "rms-normalization",
        AXES + EPS + "e = CastLike(eps, x) " + ROOT.replace("eps", "e") + "y = Mul(z, s)",
        "float16",
        "RMSNormalization",
    ),
    "rms, float32 inside": (
        "rms-normalization",
        WIDE + "t = Cast<to=10>(z) y = Mul(s, t)",
        "float16",
        "RMSNormalization",
    ),
    "layer": ("layer-normalization", AXES + EPS + MOMENTS, "float", "LayerNormalization"),
    "centred": (
        "centred-rms-normalization",
        AXES
        + "m = ReduceMean(x, axes) c = Sub(x, m) y = RMSNormalization<epsilon: float=@eps>(c, s)",
        "float",
        "LayerNormalization",
    ),
    "swish": (
        "swish",
        EPS + "a = Mul(eps, x) b = Sigmoid(a) y = Mul(x, b)",
        "float",
        "Swish",
    ),
}


@pytest.mark.parametrize(("name", "body", "kind", "operator"), FIRES.values(), ids=FIRES)
def test_the_operator_refers_to_what_calls_give(
    name: str, body: str, kind: str, operator: str
) -> None:
    model = rewrites(named(name), called(body, kind=kind))
    (node,) = model.functions["local", "F", ""]
    assert node.op_type == operator
    attribute = node.attributes["alpha" if operator == "Swish" else "epsilon"]
    assert (attribute.ref_attr_name, attribute.type) == ("eps", ir.AttributeType.FLOAT)


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("skip-layer-normalization", "LayerNormalization"),
        ("unfuse-skip-layer-normalization", "com.microsoft.SkipLayerNormalization"),
    ],
)
def test_skip_normalisations_hand_the_reference_on(name: str, operator: str) -> None:
    """Under both of their names, on ONNX Runtime."""
    inputs = "r, s" if operator == "LayerNormalization" else "x, x, s"
    body = f"r = Add(x, x) y = {operator}<epsilon: float = @eps>({inputs})"
    model = rewrites(named(name), called(body), emits=["com.microsoft"])
    (node,) = (n for n in model.functions["local", "F", ""] if "LayerNorm" in n.op_type)
    assert node.attributes["epsilon"].ref_attr_name == "eps"


def test_skip_simplified_normalisations_hand_the_reference_on() -> None:
    """What ONNX Runtime would crash on in a function stands there between the two steps."""
    body = "r = Add(x, x) y = SimplifiedLayerNormalization<epsilon: float = @eps, axis=-1>(r, s)"
    model, original = called(body), called(body.replace("SimplifiedLayer", "RMS"))
    assert apply_rules(model, named("skip-simplified-layer-normalization"), emits=["com.microsoft"])
    assert operators(model) == ["SkipSimplifiedLayerNormalization"]
    same_numbers(original, model)
    assert apply_rules(model, named("unfuse-skip-simplified-layer-normalization"))
    assert apply_rules(model, named("simplified-to-rms-normalization"))
    assert operators(model) == ["Add", "RMSNormalization"]
    same_numbers(original, model)


def test_a_default_and_a_number_are_handed_on_as_they_are() -> None:
    centred = AXES + "m = ReduceMean(x, axes) c = Sub(x, m) y = RMSNormalization(c, s)"
    for body, expected in ((centred, 1e-5), (centred.replace("(c,", "<epsilon=0.5>(c,"), 0.5)):
        model = rewrites(named("centred-rms-normalization"), called(body))
        (node,) = model.functions["local", "F", ""]
        assert node.attributes["epsilon"].as_float() == pytest.approx(expected)


def test_two_norms_may_share_what_calls_give() -> None:
    body = """low = Constant<value_float: float = @eps>() eps = Cast<to=10>(low)
    axes = Constant<value_ints=[-1]>()
    a = Mul(x, x) b = ReduceMean(a, axes) c = Add(b, eps) d = Sqrt(c) e = Div(x, d) f = Mul(e, s)
    g = Mul(f, f) h = ReduceMean(g, axes) i = Add(h, eps) j = Sqrt(i) k = Div(f, j) y = Mul(k, s)"""
    model = called(body, kind="float16")
    original = clone(model)
    assert apply_rules(model, named("rms-normalization"))
    assert operators(model) == ["RMSNormalization"] * 2
    same_numbers(original, model)


REFUSES = {
    "not the last axis": (
        "rms-normalization",
        RMS.replace("[-1]", "[1]"),
        "eps: float = 0.25",
        "expected axes=-1",
    ),
    "the mean square used elsewhere": (
        "rms-normalization",
        RMS.replace("y = Mul(z, s)", "f = Mul(z, s) y = Add(f, v)"),
        "eps: float = 0.25",
        "'v' is also used by",
    ),
    "a square by a number that calls give": (
        "rms-normalization",
        RMS.replace("Mul(x, x)", "Pow(x, eps)"),
        "eps: float = 0.25",
        "expected a constant 2",
    ),
    "an integer": (
        "rms-normalization",
        RMS.replace("value_float: float = @eps>()", "value_int: int = @eps>()").replace(
            "w = Add(v, eps)", "f = Cast<to=1>(eps) w = Add(v, f)"
        ),
        "eps: int = 1",
        "eps is not a constant float",
    ),
    "a tensor": (
        "rms-normalization",
        RMS.replace("value_float: float", "value: tensor"),
        "eps: tensor = float {0.25}",
        "eps is not a constant float",
    ),
    "half by a number that calls give": (
        "gelu-erf",
        """one = Constant<value_float=1.0>() r = Constant<value_float=1.4142135>()
        half = Constant<value_float: float = @eps>() a = Div(x, r) b = Erf(a) c = Add(b, one)
        d = Mul(x, half) y = Mul(c, d)""",
        "eps: float = 0.5",
        "expected a constant 0.5",
    ),
    "the divisor of a sum": (
        "rms-normalization",
        AXES
        + """eps = Constant<value_float=0.5>() k = Constant<value_float: float = @eps>()
        q = ReduceSumSquare(x, axes) v = Div(q, k) w = Add(v, eps) d = Sqrt(w) y = Div(x, d)""",
        "eps: float = 8.0",
        "count is not a constant float",
    ),
}


@pytest.mark.parametrize(("name", "body", "parameter", "because"), REFUSES.values(), ids=REFUSES)
def test_a_number_that_must_be_known_is_no_reference(
    name: str, body: str, parameter: str, because: str
) -> None:
    model = called(body, parameter=parameter, give=parameter)
    before = ir.to_proto(model)
    refuses(named(name), model, because)
    assert ir.to_proto(model) == before


def test_shapes_that_calls_do_not_agree_on_are_none() -> None:
    """A row of one element would be as long as the weights only after the product."""
    model = called(RMS)
    model.functions["local", "F", ""].inputs[0].shape = ir.Shape([2, None, None])
    refuses(named("rms-normalization"), model, "'s' is not known to have one number for each")
    text = ir.to_proto(called(RMS))
    text.graph.node[1].input[0] = "thin"
    text.graph.input.append(
        onnx.helper.make_tensor_value_info("thin", onnx.TensorProto.FLOAT, [2, "n", 1])
    )
    wider = ir.serde.from_proto(text)
    Infer().run(wider)
    refuses(named("rms-normalization"), wider, "'s' is not known to have one number for each")


INNER = "RMS <low: float>(x, s) => (y) {{ {} }}".format(RMS.replace("@eps", "@low"))
OWNER = '<domain: "local", opset_import: ["" : 24, "local" : 1]>\n'


def test_in_a_function_that_a_function_calls_with_its_own_parameter() -> None:
    model = called("t = local.RMS<low: float = @eps>(x, s) y = Relu(t)", more=OWNER + INNER)
    original = clone(model)
    assert Fuse().run(model)
    assert operators(model, "RMS") == ["RMSNormalization"]
    (node,) = model.functions["local", "RMS", ""]
    assert node.attributes["epsilon"].ref_attr_name == "low"
    check(model)
    same_numbers(original, model)


def test_in_a_branch_in_a_function() -> None:
    body = f"""k = Constant<value_int=1>() b = Cast<to=9>(k) y = If (b) <
    then_branch = t () => (float[2,n,8] p) {{ {RMS.replace("y = ", "p = ")} }},
    else_branch = e () => (float[2,n,8] r) {{ r = Neg(x) }}>"""
    model = called(body)
    original = clone(model)
    assert Fuse().run(model)
    nodes = [node.op_type for node in model.functions["local", "F", ""].all_nodes()]
    assert "RMSNormalization" in nodes
    assert "ReduceMean" not in nodes
    same_numbers(original, model)


def test_the_fused_model_is_written_read_and_run(tmp_path: Path) -> None:
    model = called(RMS)
    feed = {"x": np.ones((2, 3, 8), np.float32), "s": np.arange(8, dtype=np.float32)}
    expected = run(model, feed)
    Fuse().run(model)
    save(model, tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    again = load(tmp_path / "m.onnx")
    assert not Infer().run(again)
    assert not Fuse().run(again)
    assert operators(again) == ["RMSNormalization"]
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    assert difference(expected, session.run(None, feed)) == ""


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_what_refers_is_taken_apart_again(kind: str) -> None:
    for operator in ("RMSNormalization", "LayerNormalization"):
        fused = called(f"y = {operator}<epsilon: float = @eps, stash_type=1>(x, s)", kind=kind)
        for taken in (Unfuse("primitive"), ConvertOpset(to=16), ConvertOpset(to=11)):
            model = clone(fused)
            assert taken.run(model)
            assert "ReduceMean" in operators(model)
            check(model)
            if kind == "float":
                same_numbers(fused, model)


def test_onnx_runtimes_own_operator_stays_out_of_functions() -> None:
    """It would crash on it; what it has in the standard's domain at that opset is fine."""
    model = called(RMS, opset=18)
    fuse = Fuse(emit="ort")
    assert not fuse.run(model)
    reasons = [str(each) for each in explain(named("rms-normalization"), model)]
    assert any("run inline-functions first" in reason for reason in reasons)
    layer = called(AXES + EPS + MOMENTS, opset=18)
    assert fuse.run(layer)
    assert operators(layer) == ["LayerNormalization"]


# ---------------------------------------------------------------------------------------- scalars
TENSOR = RMS.replace("value_float: float", "value: tensor")


@pytest.mark.parametrize("kind", ["float", "float16", "double"])
def test_scalars_that_calls_give_become_numbers(kind: str) -> None:
    """Whatever their type; what float32 holds of it is given, and cast back."""
    quarter, half = ("13312", "14336") if kind == "float16" else ("0.25", "0.5")
    given = f"eps: tensor = {kind} {{{quarter}}}"
    model = called(TENSOR, parameter=given, give=given.replace(quarter, half), kind=kind)
    original = clone(model)
    assert give_numbers(model)
    assert not give_numbers(model)
    check(model)
    same_numbers(original, model)
    (one, two) = model.graph
    assert (one.attributes["eps"].value, "eps" in two.attributes) == (0.5, False)
    assert model.functions["local", "F", ""].attributes["eps"].value == 0.25
    Fuse().run(model)
    assert operators(model) == ["RMSNormalization"]
    same_numbers(original, model)


def test_scalars_go_through_functions_to_where_they_are_constants() -> None:
    inner = INNER.replace("low: float", "low").replace("value_float: float", "value: tensor")
    model = called(
        "t = local.RMS<low: tensor = @eps>(x, s) y = local.RMS<low: tensor = float {0.125}>(t, s)",
        parameter="eps: tensor = float {0.25}",
        give="eps: tensor = float {0.5}",
        more=OWNER + inner,
    )
    original = clone(model)
    assert Fuse().run(model)
    assert operators(model, "RMS") == ["RMSNormalization"]
    given = [node.attributes["low"] for node in model.functions["local", "F", ""]]
    assert (given[0].ref_attr_name, given[1].value) == ("eps", 0.125)
    check(model)
    same_numbers(original, model)


KEPT = {
    "float32 does not hold it": ("eps: tensor = double {0.1}", "eps: tensor = double {0.5}"),
    "no scalar": ("eps: tensor = float[1] {0.25}", "eps: tensor = float {0.5}"),
    "two types": ("eps: tensor = float {0.25}", "eps: tensor = double {0.5}"),
    "no float": ("eps: tensor = int64 {1}", "eps: tensor = int64 {2}"),
}


@pytest.mark.parametrize(("parameter", "give"), KEPT.values(), ids=KEPT)
def test_other_tensors_stay(parameter: str, give: str) -> None:
    model = called(
        "c = Constant<value: tensor = @eps>() y = Mul(x, s)", parameter=parameter, give=give
    )
    before = ir.to_proto(model)
    assert not give_numbers(model)
    assert ir.to_proto(model) == before


def test_a_tensor_with_another_use_stays() -> None:
    body = """c = Constant<value: tensor = @eps>() t = Mul(x, c) h = Shape(x)
    f = ConstantOfShape<value: tensor = @eps>(h) y = Add(t, f)"""
    given = "eps: tensor = float {0.25}"
    assert not give_numbers(called(body, parameter=given, give=given))
