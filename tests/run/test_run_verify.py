import json

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from run_models import EXPORTS, mlp, saved, text_model, with_initializer

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner, compare, verify
from vlmpass.ir_tools.run.participants import computed_in
from vlmpass.ir_tools.run.widen import widen

F32, F16, BF16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16
# torch's legacy exporter writes Cast(to=COMPLEX128) into this one, which nothing runs.
BROKEN = "vision.bfloat16.ts17.onnx"
INDEX = [
    entry for entry in json.loads((EXPORTS / "index.json").read_text()) if entry["file"] != BROKEN
]


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"])
def test_every_export_equals_itself_on_generated_inputs(entry):
    path = EXPORTS / entry["file"]
    found = verify(path, load(path))
    assert found.ok
    assert not found.findings
    assert all(trial.finite for trial in found.trials)
    usual = [trial for trial in found.trials if not trial.hard]
    assert len(usual) == (2 if usual[0].dims else 1)
    for name in usual[0].dims:
        assert len({trial.dims[name] for trial in usual}) == 2


@pytest.mark.parametrize("sizes", ["b,1,s,s", "2,1,4,4"])
def test_rows_of_which_nothing_is_left_are_compared(sizes):
    """A guard makes 0 of such a row, and a mean where minus infinity became a number."""
    text = f"""g (float[{sizes}] x, float[{sizes}] mask, float zero) => (float[{sizes}] y) {{
        low = Constant<value_float=-3.4028232635611926e38>() z = LOWER
        s = Add(x, z) p = Softmax(s) n = IsNaN(p) y = Where(n, zero, p)
    }}"""
    kept, raised = (
        text_model(text.replace("LOWER", lower)) for lower in ("Identity(mask)", "Max(mask, low)")
    )
    assert verify(kept, kept).ok
    assert not verify(kept, raised).ok


def test_rows_that_make_nan_are_left_out_of_what_is_compared():
    model = text_model(
        """g (float[b,1,s,s] x, float[b,1,s,s] mask) => (float[b,1,s,s] y) {
        s = Add(x, mask) y = Softmax(s) }"""
    )
    found = verify(model, model)
    assert found.ok
    assert all(trial.finite for trial in found.trials)


def test_a_broken_export_is_an_error_not_a_verdict():
    with pytest.raises(VerifyError, match="complex128"):
        verify(EXPORTS / BROKEN, EXPORTS / BROKEN)


def halves(arrays, prefix, dtype):
    """Arrays of an export's file whose names start with a prefix, bit patterns as numbers."""
    found = {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}
    return {k: a.view(dtype) if a.dtype == np.uint16 else a for k, a in found.items()}


@pytest.mark.parametrize(
    "entry",
    # The exporter's spelling of >> on packed integers is not what torch computes.
    [e for e in INDEX if "float16" in e["file"] and "quant" not in e["file"]],
    ids=lambda entry: entry["file"],
)
def test_the_wide_twin_of_a_narrow_export_equals_torch_in_float32(entry):
    arrays = dict(np.load(EXPORTS / entry["feeds"]))
    dtype = ml_dtypes.bfloat16 if "bfloat16" in entry["file"] else np.float16
    model = load(EXPORTS / entry["file"])
    widen(model, frozenset({BF16, F16}))
    with Runner(model) as runner:
        made = runner.run(halves(arrays, "in:", dtype))
    expected = {name: arrays[f"out32:{name}"] for name in made}
    # Constants such as 1 / sqrt(head) were rounded when the model was exported.
    for found in compare(expected, made, tolerance=1e-3):
        assert found.ok, found


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_one_wrong_weight_is_found_in_every_type(dtype):
    model, wrong = mlp(dtype), mlp(dtype)
    assert verify(model, wrong).ok
    value = wrong.graph.initializers["b"]
    array = value.const_value.numpy().copy()
    array[3, 5] = -array[3, 5] + 1
    value.const_value = ir.tensor(array, name="b")
    found = verify(model, wrong)
    assert not found.ok
    assert found.max_rel > 0.01


def test_bfloat16_against_float32_is_held_to_float32():
    found = verify(mlp(BF16), mlp(F32))
    assert found.ok
    assert "bfloat16 computed in float32" in found.expected_ran
    assert found.actual_ran == "ONNX Runtime"
    assert found.max_rel < 1e-5
    assert found.outputs[0].tolerance == 1e-4
    assert not verify(mlp(BF16), mlp(F32, scale=1.001)).ok


def test_float16_against_float32_is_held_to_float32():
    found = verify(mlp(F16), mlp(F32))
    assert found.ok
    assert "float16 computed in float32" in found.expected_ran
    assert not verify(mlp(F16), mlp(F32, scale=1.001)).ok


def test_float32_against_a_narrower_type_is_held_to_that():
    found = verify(mlp(F32), mlp(F16))
    assert found.ok
    assert found.expected_ran == found.actual_ran == "ONNX Runtime"
    assert found.outputs[0].tolerance == 4e-2
    assert verify(mlp(F32), mlp(BF16)).outputs[0].tolerance == 8e-2
    assert not verify(mlp(F32), mlp(F16, scale=1.1)).ok


def test_what_is_computed_in_ignores_casts_and_moves():
    model = text_model(
        """g (float16[n] x) => (float[n] y) {
            z = Identity(x)
            w = Cast<to = 1>(z)
            y = Neg(w)
        }"""
    )
    assert computed_in(model) == {F32}


def test_widening_reaches_attributes_subgraphs_and_functions():
    model = ir.from_onnx_text(
        # 16384 and 16256 are the bit patterns of 2.0 and 1.0.
        """<ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (bfloat16[n] x, bool c) => (bfloat16[n] y) {
            two = Constant<value = bfloat16[1] {16384}>()
            s = Shape(x)
            ones = ConstantOfShape<value = bfloat16[1] {16256}>(s)
            t = Mul(x, two)
            u = Add(t, ones)
            v = If(c) <
                then_branch = a () => (bfloat16[n] o) { o = f.twice(u) },
                else_branch = b () => (bfloat16[n] p) { p = Neg(u) }
            >
            w = Cast<to = 1>(v)
            y = Cast<to = 16>(w)
        }
        <domain: "f", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }"""
    )
    widen(model, frozenset({BF16}))
    x = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    with Runner(model) as runner:
        yes = runner.run({"x": x, "c": np.array(True)})["y"]
        no = runner.run({"x": x, "c": np.array(False)})["y"]
    assert yes.dtype == np.float32
    assert yes.tolist() == [6.0, 10.0]
    assert no.tolist() == [-3.0, -5.0]


def test_an_assignment_the_source_refuses_is_replaced_by_another():
    model = text_model(
        """g (float[batch, seq, 4] x, float[batch, other, 4] m) => (float[batch, seq, 4] y) {
            y = Add(x, m)
        }"""
    )
    found = verify(model, model)
    assert found.ok
    assert all(trial.dims["other"] in (trial.dims["seq"], 1) for trial in found.trials)


def test_a_decoder_exported_for_one_token_is_fed_one_token():
    model = text_model(
        """g (float[batch, seq, 4] inputs_embeds, float[batch, past, 4] past_key)
            => (float[batch, 1, 4] y, float[batch, total, 4] z) {
            to = Constant<value_ints = [0, 1, 4]>()
            y = Reshape(inputs_embeds, to)
            z = Concat<axis = 1>(past_key, y)
        }"""
    )
    found = verify(model, model)
    assert found.ok
    assert {trial.dims["seq"] for trial in found.trials} == {1}
    assert {trial.dims["past"] for trial in found.trials} == {5, 3, 0}
    assert any("seq=1" in note for note in found.notes)


def test_a_source_that_runs_on_nothing_is_an_error_that_says_so():
    model = text_model(
        """g (float[n] x) => (float[m] y) {
            to = Constant<value_ints = [7, 11]>()
            y = Reshape(x, to)
        }"""
    )
    with pytest.raises(VerifyError, match=r"accepts none of .*; give inputs with --inputs"):
        verify(model, model)


def test_a_size_that_cannot_vary_is_noted():
    model = text_model(
        """g (float[n, 4] x, float[1, 4] w) => (float[m, 8] y) {
            to = Constant<value_ints = [1, 8]>()
            y = Reshape(x, to)
        }"""
    )
    with_initializer(model, "w", np.ones((1, 4), np.float32))
    found = verify(model, model)
    assert found.ok
    assert any("ran at one size only: n=2" in note for note in found.notes)


def test_sizes_that_the_second_model_fixes_are_used():
    model = mlp(F32)
    fixed = mlp(F32)
    fixed.graph.inputs[0].shape = ir.Shape((5, 16))
    found = verify(model, fixed)
    assert found.ok
    assert {trial.dims["n"] for trial in found.trials} == {5}


def test_missing_and_new_inputs_and_outputs_are_findings():
    model, other = mlp(F32), mlp(F32)
    other.graph.inputs[0].name = "renamed"
    found = verify(model, other)
    assert not found.ok
    assert found.findings == ("input 'x' is missing", "input 'renamed' is new and has no default")
    other = mlp(F32)
    other.graph.outputs[0].name = "z"
    assert verify(model, other).findings == ("output 'y' is missing",)
    other = mlp(F32)
    other.graph.inputs[0].shape = ir.Shape(("n", "m", 16))
    assert verify(model, other).findings == ("input 'x' has rank 3, was 2",)


def test_a_result_that_no_longer_loads_is_a_finding():
    broken = text_model("g (float[n, 16] x) => (float[n, 8] y) { y = Nonsense(x) }")
    found = verify(mlp(F32), broken)
    assert not found.ok
    assert "Nonsense" in found.findings[0]


def test_a_result_that_refuses_what_the_source_accepts_is_a_finding():
    picky = text_model(
        """g (float[n, 16] x) => (float[n, 8] y) {
            to = Constant<value_ints = [3, 8]>()
            y = Reshape(x, to)
        }"""
    )
    found = verify(mlp(F32), picky)
    assert not found.ok
    assert "the reference accepts the same inputs" in found.findings[0]


def test_nan_in_the_source_is_noted_and_must_be_in_the_result():
    source = text_model("g (float[n] x) => (float[n] y) { y = Log(x) }")
    found = verify(source, source)
    assert found.ok
    assert any("NaN" in note for note in found.notes)
    clean = text_model("g (float[n] x) => (float[n] y) { a = Abs(x) y = Log(a) }")
    assert not verify(source, clean).ok


def test_a_model_that_the_runtime_lacks_kernels_for_runs_in_the_evaluator():
    source = text_model("g (double[n] x) => (double[n] y) { y = Erf(x) }")
    found = verify(source, source)
    assert found.ok
    assert found.expected_ran == "the reference evaluator"
    assert any("NOT_IMPLEMENTED" in note for note in found.notes)
    strict = verify(source, source, as_is=True)
    assert not strict.ok
    assert "NOT_IMPLEMENTED" in strict.findings[0]


def test_values_that_onnx_runtime_does_not_take_go_to_the_evaluator():
    source = text_model("g (int4[n] x) => (int4[n] y) { y = Identity(x) }", 21, 10)
    wider = text_model("g (int8[n] x) => (int8[n] y) { y = Identity(x) }", 21, 10)
    other = text_model("g (int8[n] x) => (int8[n] y) { y = Add(x, x) }", 21, 10)
    found = verify(source, wider)
    assert found.ok
    assert (found.expected_ran, found.actual_ran) == ("the reference evaluator", "ONNX Runtime")
    assert not verify(source, other).ok
    assert "NOT_IMPLEMENTED" in verify(source, source, as_is=True).findings[0]
    read = text_model("g (int4[n] x) => (float[n] y) { y = Cast <to=1> (x) }", 21, 10)
    assert verify(read, read, as_is=True).ok


def test_a_model_that_nothing_runs_is_an_error_with_both_reasons():
    source = text_model("g (float[n] x) => (float[n] y) { y = com.microsoft.Unheard(x) }")
    with pytest.raises(VerifyError, match=r"nothing here runs the model: .*; the reference"):
        verify(source, source)


def test_own_inputs_and_a_given_tolerance(tmp_path):
    path = saved(mlp(F32), tmp_path / "a.onnx")
    feed = {"x": np.ones((3, 16), np.float32)}
    found = verify(path, mlp(F32, scale=1.01), inputs=feed)
    assert not found.ok
    assert found.trials[0].dims == {}
    assert verify(path, mlp(F32, scale=1.01), inputs=feed, tolerance=0.1).ok


def test_integer_outputs_are_exact():
    source = text_model("g (float[n, 9] x) => (int64[n, 1] y) { y = ArgMax<axis = 1>(x) }")
    other = text_model("g (float[n, 9] x) => (int64[n, 1] y) { y = ArgMin<axis = 1>(x) }")
    assert verify(source, source).ok
    found = verify(source, other)
    assert not found.ok
    assert found.outputs[0].tolerance == 0.0


def test_values_that_only_the_result_casts_to_half_precision_count_as_half_precision():
    source = text_model("g (float[n, 4] x) => (float[n, 4] y) { y = Identity(x) }")
    result = text_model(
        "g (float[n, 4] x) => (float[n, 4] y) { h = Cast<to=10>(x)  y = Cast<to=1>(h) }"
    )
    found = verify(source, result)
    assert found.ok
    assert found.max_rel > 1e-4
    assert {output.tolerance for output in found.outputs} == {4e-2}
    both = verify(result, result)
    assert {output.tolerance for output in both.outputs} == {1e-4}


def ranked(between: str, factor: float = 1.0) -> ir.Model:
    """The places of the largest of nearly equal numbers, which the last bits decide.

    ONNX Runtime folds the normalization into the convolution, and rounds anew, unless something
    lies between the two.
    """
    rng = np.random.default_rng(0)
    model = text_model(
        f"""g (float[1, 8, 16, 16] x, float[8, 8, 3, 3] w, float[8] s, float[8] v, float low)
            => (float[1, 8, 20] top, int64[1, 8, 20] y) {{
            z = Constant<value_float = 3e-7>()
            same = Mul(x, z)
            one = Constant<value_float = 1.0>()
            flat = Add(same, one)
            c = Conv<pads = [1, 1, 1, 1]>(flat, w)
            {between}
            n = BatchNormalization(m, s, s, s, v)
            r = Constant<value_ints = [1, 8, -1]>()
            f = Reshape(n, r)
            k = Constant<value_ints = [20]>()
            top, y = TopK(f, k)
        }}"""
    )
    weights = {"w": (8, 8, 3, 3), "s": (8,), "v": (8,)}
    for name, shape in weights.items():
        array = np.abs(rng.standard_normal(shape)).astype(np.float32) * factor
        model = with_initializer(model, name, array)
    return with_initializer(model, "low", np.array(-1e30, np.float32))


def test_what_only_the_optimizer_computes_differently_is_equal():
    source, result = ranked("m = Identity(c)"), ranked("m = Max(c, low)")
    assert not verify(source, result, optimization="basic").ok
    found = verify(source, result)
    assert found.ok
    assert any("optimisations off" in note and "'y'" in note for note in found.notes)


def test_a_difference_is_one_with_optimisations_off_too():
    found = verify(ranked("m = Identity(c)"), ranked("m = Max(c, low)", factor=1.001))
    assert not found.ok
    assert not found.notes or "optimisations off" not in found.notes[-1]


def test_what_is_not_loaded_is_a_node_of_the_model():
    """ONNX Runtime has no Gelu in float64, takes it apart, and speaks of the Erf in it."""
    model = ir.from_onnx_text(
        """<ir_version: 9, opset_import: ["": 20]>
        g (double[n, 2] x) => (double[n, 2] y) { ["act"] y = Gelu(x) }"""
    )
    found = verify(model, model)
    assert found.ok
    for who, note in zip(("reference", "result"), found.notes, strict=True):
        said = f"the {who}: ONNX Runtime does not load the model: node 'act' (Gelu): "
        assert note.startswith(said)
