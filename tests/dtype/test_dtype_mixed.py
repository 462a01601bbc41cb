"""mixed-precision: typed islands of float32, judged with every value rounded as hardware would."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import (
    NORM,
    RESIDUAL,
    WEIGHT,
    casts,
    check,
    count,
    export,
    large_input,
    numbers,
    operators,
    parse,
    relative_error,
    run,
    text_of,
    value,
)

from vlmpass.ir_tools.errors import PipelineError, Refused, VerifyError
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.types import solve
from vlmpass.ir_tools.types.emulate import emulate
from vlmpass.passes.dtype.mixed_precision import MixedPrecision
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType


RMS = f"""g (float[2,64] x) => (float[2,64] y) <{WEIGHT}, float eps = {{0.00001}},
    int64[1] axis = {{-1}}> {{
    p = Mul(x, x) v = ReduceMean(p, axis) e = Add(v, eps) s = Sqrt(e) r = Reciprocal(s)
    n = Mul(x, r) y = Mul(w, n) }}"""
SOFTMAX = """g (float[2,64] x) => (float[2,64] y) <int64[1] axis = {-1}> {
    m = ReduceMax(x, axis) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, axis) y = Div(e, s) }"""


def emulated(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    twin = model.clone()
    emulate(twin, D.FLOAT16)
    return run(twin, feeds)


@pytest.mark.parametrize("text", [NORM, RMS], ids=["layer", "rms"])
def test_mixed_norm_overflow_is_shown_and_repaired(text: str) -> None:
    feeds = {"x": large_input()}
    wanted = run(parse(text), feeds)["y"]
    broken = parse(text)
    UnifyDtype(to="float16", from_=("float32",), keep_io=True).run(broken)
    assert relative_error(emulated(broken, feeds)["y"], wanted) > 0.5
    model = parse(text)
    MixedPrecision(keep_io=True).run(model)
    check(model)
    assert relative_error(emulated(model, feeds)["y"], wanted) < 2e-3


@pytest.mark.parametrize("text", [NORM, RMS, SOFTMAX], ids=["layer", "rms", "softmax"])
def test_mixed_island_is_entered_and_left_once(text: str) -> None:
    model = parse(text)
    MixedPrecision().run(model)
    check(model)
    assert casts(model) == 2
    order = operators(model)
    assert order[0] == "Cast"  # x becomes wide; the last Cast stands before the weight or the end
    assert order[-2:] == ["Cast", "Mul"] if "[64] w" in text else order[-1] == "Cast"
    assert [v.dtype for v in (*model.graph.inputs, *model.graph.outputs)] == [D.FLOAT16] * 2


def test_mixed_residual_overflow_needs_calibration(tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((1, 8)).astype(np.float32) * 9000
    wanted = run(parse(RESIDUAL), {"x": x})["y"]
    static = parse(RESIDUAL)
    MixedPrecision(keep_io=True).run(static)
    assert not np.isfinite(emulated(static, {"x": x})["y"]).all()
    np.savez(tmp_path / "inputs.npz", x=x)
    model = parse(RESIDUAL)
    MixedPrecision(keep_io=True, calibrate=str(tmp_path / "inputs.npz")).run(model)
    check(model)
    assert relative_error(emulated(model, {"x": x})["y"], wanted) < 1e-2
    assert text_of(model, "k") == "tensor(float)"
    assert value(model, "A").dtype == D.FLOAT16
    reasons = {n.metadata_props.get("vlmpass.reason", "") for n in model.graph}
    assert any("reaches" in reason for reason in reasons)


def test_mixed_output_beyond_the_range_is_refused(tmp_path: Path) -> None:
    model = parse("g (float[1] x) => (float[1] y) { y = Mul(x, x) }")
    np.savez(tmp_path / "inputs.npz", x=np.float32([1000]))
    with pytest.raises(Refused, match="use keep-io"):
        MixedPrecision(calibrate=str(tmp_path / "inputs.npz")).run(model)


def test_mixed_inputs_beyond_the_range_stay_wide(tmp_path: Path) -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) <float k = {0.001}> { a = Mul(x, k) y = Tanh(a) }"
    )
    np.savez(tmp_path / "inputs.npz", x=np.float32([1, 90000]))
    MixedPrecision(keep_io=True, calibrate=str(tmp_path / "inputs.npz")).run(model)
    check(model)
    assert [text_of(model, n) for n in "ka"] == ["tensor(float)"] * 2


def test_mixed_keeps_wide_what_calibration_does_not_see() -> None:
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) { a = Mul(x, x)
        [pick] y = If (c) <then_branch = t () => (u) { u = Relu(a) },
                           else_branch = e () => (v) { v = Neg(a) }> }"""
    )
    MixedPrecision(calibrate="random", keep_io=True).run(model)
    check(model)
    assert [text_of(model, name) for name in "auv"] == [
        "tensor(float16)",
        "tensor(float)",
        "tensor(float)",
    ]


FUNCTIONS = """<domain: "my", opset_import: ["": 18]> Square (a) => (b) { b = Mul(a, a) }
<domain: "my", opset_import: ["": 18]> Half (a) => (b) {
    h = Constant<value_float=0.5>() b = Mul(a, h) }
<domain: "my", opset_import: ["": 18, "my": 1]> Both (a) => (b, c) {
    s = my.Square(a) b = my.Half(s) c = Identity(s) }"""


def test_mixed_measures_functions_in_every_call(tmp_path: Path) -> None:
    """What one call only makes large crosses the ends of functions in float32."""
    model = parse(
        """g (float[2] x, float[2] z) => (float[2] y, float[2] v) {
        k, l = my.Both(x) r = Reciprocal(k) s = Mul(r, l) y = Tanh(s)
        m, n = my.Both(z) t = Add(m, n) u = my.Half(z) w = my.Half(u) v = Mul(t, w) }""",
        extra=FUNCTIONS,
    )
    feeds = {"x": np.float32([1000, 1]), "z": np.float32([1, 2])}
    wanted = run(model, feeds)
    np.savez(tmp_path / "inputs.npz", **feeds)
    MixedPrecision(keep_io=True, calibrate=str(tmp_path / "inputs.npz")).run(model)
    check(model)
    made_casts = {node.name for node in all_nodes(model) if node.op_type == "Cast"}
    inside = {node.name for each in model.functions.values() for node in each} & made_casts
    assert inside == {"a/float/Cast"}, "narrow is only what goes into the square"
    made = emulated(model, feeds)
    for name, value_ in wanted.items():
        np.testing.assert_allclose(made[name], value_, rtol=5e-3)


def test_mixed_measures_what_is_called_inside_subgraphs_nowhere() -> None:
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (u) { u = my.Square(x) },
                    else_branch = e () => (v) { v = Neg(x) }> }""",
        extra=FUNCTIONS.split("\n")[0],
    )
    MixedPrecision(calibrate="random", keep_io=True).run(model)
    check(model)
    (multiply,) = (node for node in all_nodes(model) if node.op_type == "Mul")
    assert solve(model).dtype(multiply.outputs[0]) == D.FLOAT


def test_mixed_masks_stop_at_the_range_on_their_way_into_functions() -> None:
    """Where has no bfloat16 below 16: -3.4e38, cast, would be minus infinity."""
    text = """g (float[2,4] x, bool[2,4] seen) => (float[2,4] y) <float no = {-3.4028235e38}> {
        zero = Sub(x, x) mask = Where(seen, zero, no) y = my.Attend(x, mask) }"""
    attend = """<domain: "my", opset_import: ["": 15]> Attend (a, m) => (b) {
        s = Add(a, m) b = Softmax(s) }"""
    model = parse(text, 15, attend)
    feeds = {
        "x": np.float32(np.arange(8).reshape(2, 4)),
        "seen": np.array([[True, True, False, True], [False] * 4]),
    }
    wanted = run(model, feeds)["y"]
    MixedPrecision(to="bfloat16", keep_io=True).run(model)
    check(model)
    twin = model.clone()
    emulate(twin, D.BFLOAT16)
    np.testing.assert_allclose(run(twin, feeds)["y"], wanted, atol=0.02)
    endless = parse(text.replace("-3.4028235e38", "-inf"), 15, attend)
    MixedPrecision(to="bfloat16", keep_io=True).run(endless)
    assert count(endless)["Max"] == 0


def test_mixed_rotary_angles_stay_wide() -> None:
    frequencies = numbers(10000.0 ** -(np.arange(8) / 8))
    model = parse(
        f"""g (int64[1,4] p, float[4,8] q) => (float[4,8] y) <float[1,8] f = {frequencies}> {{
        c = Cast<to=1>(p) t = Transpose(c) a = MatMul(t, f) k = Cos(a) y = Mul(q, k) }}"""
    )
    positions = np.array([[0, 257, 15962, 32767]])
    feeds = {"p": positions, "q": np.ones((4, 8), np.float32)}
    wanted = run(model, feeds)["y"]
    MixedPrecision(keep_io=True).run(model)
    check(model)
    assert [text_of(model, n) for n in "ctak"] == ["tensor(float)"] * 4
    assert np.abs(emulated(model, feeds)["y"] - wanted).max() < 1e-3


def test_mixed_constants_that_do_not_fit_keep_their_users_wide() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) <float big = {100000}, float tiny = {1e-12}> {
        a = Mul(x, big) b = Add(a, tiny) y = Relu(b) }"""
    )
    MixedPrecision().run(model)
    check(model)
    assert text_of(model, "b") == "tensor(float)"
    assert value(model, "big").dtype == D.FLOAT
    (enter, leave) = (n for n in model.graph if n.op_type == "Cast")
    assert "100000" in enter.metadata_props["vlmpass.reason"]
    assert leave.metadata_props["vlmpass.reason"]


def test_mixed_masks_make_no_nan(caplog: pytest.LogCaptureFixture) -> None:
    model = parse(
        """g (bool[1,3] m, float[1,3] s) => (float[1,3] y) {
        c = Constant<value = float {-3.4028235e38}>() z = Constant<value = float {0}>()
        b = Where(m, z, c) a = Add(s, b) y = Softmax(a) }"""
    )
    with caplog.at_level(logging.WARNING):
        MixedPrecision(keep_io=True, narrow_ops=("Softmax",)).run(model)
    assert "masks refitted" in caplog.text
    s = np.float32([[1, 2, 3]])
    masked = emulated(model, {"m": np.zeros((1, 3), bool), "s": s})["y"]
    np.testing.assert_allclose(masked.sum(), 1, rtol=1e-2)
    plain = emulated(model, {"m": np.array([[True, True, False]]), "s": s})["y"]
    np.testing.assert_allclose(plain, [[0.2689, 0.7311, 0]], atol=1e-3)


MASKED = """g (bool[2,3] m, float[2,3] s, float[3,3] q) => (float[2,3] y) {
    k = MatMul(s, q)
    c = Constant<value = float {-3.4028235e38}>() z = Constant<value = float {0}>()
    w = Where(m, z, c) b = Identity(w) a = Add(k, b) y = Softmax(a) }"""


def test_mixed_masks_before_a_softmax_are_part_of_its_island() -> None:
    model = parse(MASKED)
    MixedPrecision(keep_io=True).run(model)
    check(model)
    assert text_of(model, "k") == "tensor(float16)"
    assert {text_of(model, name) for name in "wba"} == {"tensor(float)"}
    feed = {"s": np.float32([[9, 2, 3], [1, 2, 30]]), "q": np.eye(3, dtype=np.float32)}
    y = emulated(model, {**feed, "m": np.array([[False] * 3, [True, False, True]])})["y"]
    np.testing.assert_allclose(y, [[1 / 3] * 3, [0, 0, 1]], atol=1e-3)
    assert not MixedPrecision(keep_io=True).run(model)


@pytest.mark.parametrize(
    "change",
    [
        ("b = Identity(w)", "b = Identity(w) t = Tanh(b)"),
        ("Where(m, z, c)", "Where(m, z, d)"),
        ("a = Add(k, b)", "a = Where(m, k, b)"),
    ],
    ids=["used elsewhere", "no mask", "chosen, not added"],
)
def test_mixed_masks_stay_narrow(change: tuple[str, str]) -> None:
    text = MASKED.replace(*change).replace("c = Con", "d = Constant<value = float {-30}>() c = Con")
    model = parse(text.replace("y) {", "y, float[2,3] t) {") if "Tanh" in text else text)
    MixedPrecision().run(model)
    check(model)
    assert text_of(model, "b") == "tensor(float16)"


def test_mixed_options_choose_nodes() -> None:
    text = "g (float[2] x) => (float[2] y) { [first] a = Tanh(x) [second] y = Exp(a) }"
    model = parse(text)
    MixedPrecision(keep_ops=("Tanh",), narrow_ops=("Exp",)).run(model)
    assert (text_of(model, "a"), text_of(model, "y")) == ("tensor(float)", "tensor(float16)")
    model = parse(text)
    MixedPrecision(keep_nodes=("^first$",), narrow_ops=("Exp",), to="bfloat16").run(model)
    assert (text_of(model, "a"), text_of(model, "y")) == ("tensor(float)", "tensor(bfloat16)")


def test_mixed_attention_softmax_is_wide() -> None:
    model = parse("g (float[1,2,3,4] q) => (float[1,2,3,4] y) { y = Attention(q, q, q) }", opset=23)
    MixedPrecision().run(model)
    assert model.graph[0].attributes["softmax_precision"].as_int() == D.FLOAT
    assert operators(model) == ["Attention"]
    assert not MixedPrecision().run(model)


def test_mixed_half_precision_source_gets_islands() -> None:
    model = parse(NORM)
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    x = large_input().astype(np.float16)
    assert MixedPrecision().run(model)
    check(model)
    result = emulated(model, {"x": x.astype(np.float32)})["y"]
    wanted = run(parse(NORM), {"x": x.astype(np.float32)})["y"]
    assert relative_error(result, wanted) < 2e-3


def rounded_weights(model: ir.Model) -> ir.Model:
    """The ideal: weights rounded to float16, everything computed in float32."""
    ideal = model.clone()
    for weight in ideal.graph.initializers.values():
        array = weight.const_value.numpy()
        if weight.dtype == D.FLOAT and np.abs(array).max() < 65504:  # a mask is no weight
            rounded = array.astype(np.float16).astype(np.float32)
            weight.const_value = ir.tensor(rounded, name=weight.name)
    return ideal


def off_the_grid(model: ir.Model) -> None:
    """Move weights to where float16 must round them."""
    rng = np.random.default_rng(0)
    for weight in model.graph.initializers.values():
        if weight.dtype == D.FLOAT and len(weight.shape) > 1:
            array = weight.const_value.numpy()
            array = array * (1 + rng.uniform(-1, 1, array.shape).astype(np.float32) / 512)
            weight.const_value = ir.tensor(array, name=weight.name)


@pytest.mark.parametrize(
    "name",
    [
        "decoder.float32.ts13",
        "decoder.float32.ts17",
        "decoder.float32.dyn18",
        "decoder.bfloat16.ts17",
    ],
)
def test_mixed_raw_export_runs_and_stays_near_ideal_rounding(name: str) -> None:
    model, feeds, wanted = export(name)
    if "bfloat16" in name:
        # Its weights are float16 numbers as they are: the ideal would be no error at all.
        UnifyDtype().run(model)
        off_the_grid(model)
        wanted = run(model, feeds)
    best = run(rounded_weights(model), feeds)
    run_pass = MixedPrecision(keep_io=True)
    assert run_pass.run(model)
    check(model)
    results = run(model, feeds)
    rounded = emulated(model, feeds)
    for key, reference in wanted.items():
        least = relative_error(best[key], reference)
        assert relative_error(results[key], reference) < 3 * least
        # Here the output itself is rounded as well, by up to half of its last bit.
        assert relative_error(rounded[key], reference) < 3 * max(least, 2**-12)
    assert all(n.metadata_props["vlmpass.reason"] for n in model.graph if "/float" in n.name)
    assert not run_pass.run(model)


def test_mixed_emulation_rounds_every_value() -> None:
    model = parse(
        """g (float16[2] x) => (float16[2] y) <int64[1] s = {-1}> {
        a = Mul(x, x) b = Sqrt(a) y = Reshape(b, s) }"""
    )
    x = np.float32([1000, 1.001])
    assert np.isfinite(run(model, {"x": x.astype(np.float16)})["y"]).all()  # computed in float32
    twin = model.clone()
    assert emulate(twin, D.FLOAT16)
    assert count(twin)["Cast"] == 4
    result = run(twin, {"x": x})["y"]
    assert result[0] == np.inf
    assert result[1] == np.float32(np.sqrt(np.float16(x[1] * x[1]).astype(np.float32))).astype(
        np.float16
    )
    assert not emulate(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }"), D.FLOAT16)


def test_mixed_bad_options_and_inputs(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="keep-nodes"):
        MixedPrecision(keep_nodes=("(",))
    with pytest.raises(PipelineError, match="share"):
        MixedPrecision(limit=2.0)
    with pytest.raises(VerifyError, match="no file of inputs"):
        MixedPrecision(calibrate=str(tmp_path / "none.npz")).run(
            parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
        )
