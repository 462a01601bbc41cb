"""Rules written for onnxscript, and the defects of their own driver that must not show."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from rewrite.support import canonical, check, parse, same_numbers
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.ir_tools.rewrite import NoFixpoint
from vlmpass.passes.onnxscript_rewrite import OnnxscriptRewrite

pattern = pytest.importorskip("onnxscript.rewriter").pattern

HERE = "rewrite.test_rewrite_onnxscript"


def _erf_gelu(op, x):  # type: ignore[no-untyped-def]
    return 0.5 * (x * (op.Erf(x / math.sqrt(2)) + 1.0))


def _gelu(op, x):  # type: ignore[no-untyped-def]
    return op.Gelu(x)


def _scaled(op, x):  # type: ignore[no-untyped-def]
    # Three initializers of one name, which the model has already.
    two = op.initializer(ir.tensor(np.array(2.0, np.float32), name="k"), name="k")
    return op.Mul(op.Sigmoid(x), two)


GELU = pattern.RewriteRuleSet([pattern.RewriteRule(_erf_gelu, _gelu, name="gelu")], commute=True)
TWICE_SIGMOID = pattern.RewriteRule(lambda op, x: op.Tanh(x), _scaled, name="twice-sigmoid")
NO_RELU = [pattern.RewriteRule(lambda op, x: op.Relu(x), lambda op, x: x, name="no-relu")]
NEG_SUB = pattern.RewriteRule(lambda op, x: op.Neg(x), lambda op, x: op.Abs(x), name="neg-to-abs")
ABS_NEG = pattern.RewriteRule(lambda op, x: op.Abs(x), lambda op, x: op.Neg(x), name="abs-to-neg")
LOOP = pattern.RewriteRuleSet([NEG_SUB, ABS_NEG])
WRONG_OPSET = [
    pattern.RewriteRule(
        lambda op, x: op.Relu(x), lambda op, x: op.Neg(x, _version=3), name="wrong-opset"
    )
]
MUL_MUL = [
    pattern.RewriteRule(lambda op, x: op.Relu(op.Relu(x)), lambda op, x: op.Relu(x), name="relus")
]


def run(rules: str, model: ir.Model) -> bool:
    return OnnxscriptRewrite(rules=f"{HERE}:{rules}").run(model)


def test_a_rule_set_runs_to_a_fixed_point_and_names_itself() -> None:
    model = parse(
        """g (float[2,n] x) => (float[2,n] y) {
        r = Constant<value_float=1.4142135>() h = Constant<value_float=0.5>()
        o = Constant<value_float=1.0>()
        d = Div(x, r) e = Erf(d) p = Add(o, e) q = Mul(x, p) y = Mul(q, h) }"""
    )
    original = ir.serde.from_proto(ir.to_proto(model))
    assert run("GELU", model)
    assert "Gelu(in0)" in canonical(model)
    (gelu,) = [node for node in model.graph if node.op_type == "Gelu"]
    assert gelu.metadata_props["vlmpass.rule"] == "gelu"
    assert gelu.outputs[0].name == "y"
    same_numbers(original, model)
    assert not run("GELU", model)


def test_new_initializers_overwrite_none() -> None:
    model = parse(
        """g (float[n] x) => (float[n] y) <float k = {3.0}> {
           a = Tanh(x) b = Tanh(a) c = Tanh(b) y = Mul(c, k) }"""
    )
    run("TWICE_SIGMOID", model)
    check(model)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    values = sorted(float(tensor.numpy()) for tensor in tensors if tensor is not None)
    assert values == [2.0, 2.0, 2.0, 3.0]
    expected = parse(
        """g (float[n] x) => (float[n] y) {
           k = Constant<value_float=3.0>() t = Constant<value_float=2.0>()
           a = Sigmoid(x) b = Mul(a, t) c = Sigmoid(b) d = Mul(c, t) e = Sigmoid(d) f = Mul(e, t)
           y = Mul(f, k) }"""
    )
    assert canonical(model) == canonical(expected)


def test_new_initializers_in_functions_become_constants() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[n] x) => (float[n] y) { y = local.act(x) }
        <domain: "local", opset_import: ["" : 20]>
        act (x) => (y) { y = Tanh(x) }"""
    )
    assert run("TWICE_SIGMOID", model)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Sigmoid", "Mul"]
    check(model)


def test_a_rule_that_returns_its_input_renames_no_input() -> None:
    model = parse("g (float[n] x) => (float[n] y) { y = Relu(x) }")
    assert run("NO_RELU", model)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert canonical(model) == "%0 = Identity(in0)\nreturn %0"


def test_rules_that_undo_each_other_are_named() -> None:
    model = parse("g (float[n] x) => (float[n] y) { y = Neg(x) }")
    with pytest.raises(NoFixpoint, match=r"neg-to-abs x\d+, abs-to-neg x\d+"):
        run("LOOP", model)


def test_long_chains_shrink_to_one() -> None:
    links = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(200))
    model = parse(f"g (float[n] v0) => (float[n] y) {{ {links} y = Neg(v200) }}")
    assert run("MUL_MUL", model)
    assert [node.op_type for node in model.graph] == ["Relu", "Neg"]


def test_a_rule_for_another_opset_is_refused_by_name() -> None:
    model = parse("g (float[n] x) => (float[n] y) { [here] y = Relu(x) }")
    with pytest.raises(Refused, match=r"(?s)wrong-opset is refused.*here \(Relu\).*opset"):
        run("WRONG_OPSET", model)


def test_onnxscripts_own_rules_run() -> None:
    model = parse(
        """g (float[n,m] x) => (float[m,n] y) {
           a = Transpose<perm=[1,0]>(x) b = Transpose<perm=[1,0]>(a)
           y = Transpose<perm=[1,0]>(b) }"""
    )
    original = ir.serde.from_proto(ir.to_proto(model))
    rules = "onnxscript.rewriter.rules.common:transpose_transpose_rule"
    assert OnnxscriptRewrite(rules=rules).run(model)
    assert [node.op_type for node in model.graph] == ["Identity", "Transpose"]
    same_numbers(original, model)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("nowhere", "not of the form package.module:attribute"),
        ("no.such.module:x", "cannot be imported"),
        (f"{HERE}:nothing", "cannot be imported"),
        (f"{HERE}:run", "which is no RewriteRule"),
    ],
)
def test_wrong_rules_are_noticed_before_anything_runs(rules: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        OnnxscriptRewrite(rules=rules)
