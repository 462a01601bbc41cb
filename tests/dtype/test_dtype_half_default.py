"""--dtype float16 as asked for by name: measured and judged as hardware rounds, by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import RESIDUAL, numbers, parse, text_of
from half_matrix import FIXTURES, outcome

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run import InputPlan, generate_inputs, verify
from vlmpass.ir_tools.run.dims import LONG
from vlmpass.ir_tools.run.values import Hard

D = ir.DataType
# Standard normal inputs already come to 2e5 inside.
GROWN = RESIDUAL.replace("h = Add(x, a)", "g = Mul(x, big) h = Add(g, a)").replace(
    "> {", ", float big = {30000}> {", 1
)


@pytest.mark.parametrize(
    "name",
    [
        "exports/text.float32.ts17.onnx",
        "exports/decoder.float32.dyn18.onnx",
        "functions/towers.float32.fn15.onnx",
        "exports/vision.float32.ts14.onnx",
    ],
)
def test_half_exports_hold_when_every_value_is_rounded(name: str) -> None:
    written, text = outcome(FIXTURES / name, "float16")
    assert written, text
    assert "every value rounded to float16" in " ".join(text.split())


def test_half_what_overflows_stays_wide_by_default(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    ir.save(parse(GROWN), source)
    report = Pipeline(dtype="float16", keep_io=True).convert(source, tmp_path / "out.onnx")
    assert report.checked.rounded is not None
    assert report.checked.rounded.ok
    model = ir.load(tmp_path / "out.onnx")
    assert text_of(model, "k") == "tensor(float)"
    assert text_of(model, "y/float16") == "tensor(float16)"


def test_half_outputs_may_use_all_of_the_range(tmp_path: Path) -> None:
    """Only activations eight times as large, which no output of float16 could hold, go beyond."""
    model = parse("g (float[16] x) => (float[16] y) <float k = {8000}> { y = Mul(x, k) }")
    report = Pipeline(dtype="float16").convert(model, tmp_path / "o.onnx")
    assert report.checked.rounded is not None
    assert all(trial.hard == "" for trial in report.checked.rounded.trials)
    assert ir.load(tmp_path / "o.onnx").graph.outputs[0].dtype == D.FLOAT16


def test_half_by_another_pass_is_judged_as_well(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    ir.save(parse(GROWN), source)
    with pytest.raises(VerifyError, match="hardware that computes in float16"):
        Pipeline("unify-dtype{to=float16 from=[float32] keep-io=true}").convert(
            source, tmp_path / "out.onnx"
        )


def test_half_without_measuring_is_refused_where_it_overflows(tmp_path: Path) -> None:
    source, result = tmp_path / "in.onnx", tmp_path / "out.onnx"
    ir.save(parse(GROWN), source)
    with pytest.raises(VerifyError, match=r"hardware that computes in float16.*beyond float16's"):
        Pipeline("mixed-precision{keep-io=true}").convert(source, result)
    assert not result.exists()
    Pipeline("mixed-precision{keep-io=true}").convert(source, result, verify=False)
    assert result.exists()


def test_half_sources_that_stray_already_are_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    Pipeline("mixed-precision{keep-io=true}").convert(parse(GROWN), source, verify=False)
    report = Pipeline("mixed-precision{keep-io=true}").convert(source, tmp_path / "out.onnx")
    (note,) = report.checked.numbers.notes if report.checked.numbers is not None else ()
    assert "so it does from the source" in note


def test_half_scatters_and_bit_patterns_run(tmp_path: Path) -> None:
    model = parse(
        """g (float[4] x, int64[2,1] i, float[2] u) => (float[4] y) {
        t = Tanh(x) y = ScatterND<reduction="add">(t, i, u) }"""
    )
    report = Pipeline(dtype="float16").convert(model, tmp_path / "o.onnx")
    assert report.checked.numbers is not None
    assert text_of(ir.load(tmp_path / "o.onnx"), "t") == "tensor(float16)"


def test_half_a_reference_is_never_computed_in_half_precision() -> None:
    """ONNX Runtime does not load `my.Op`, so that the evaluator runs it: in float32."""
    model = parse(
        "g (float16[2] x) => (float16[2] y) { a = Mul(x, x) y = my.Root(a) }",
        extra='<domain: "my", opset_import: ["": 18]> Root (a) => (b) { b = Sqrt(a) }',
    )
    found = verify(model, model, inputs={"x": np.float16([300, 3])}, emulated=D.FLOAT16)
    assert not found.ok
    assert found.outputs[0].inf == (0, 1)


def test_half_hard_inputs_are_long_masked_and_large() -> None:
    model = parse(
        """g (int64[batch,seq] input_ids, int64[batch,seq] attention_mask,
        int64[batch,seq] position_ids, float[batch,seq,4] pixels) => (float[batch,seq,4] y)
        <float[50,4] w> { a = Gather(w, input_ids) b = Add(a, pixels)
        m = Cast<to=1>(attention_mask) p = Cast<to=1>(position_ids) q = Mul(m, p)
        axis = Constant<value = int64[1] {-1}>() u = Unsqueeze(q, axis) y = Mul(b, u) }"""
    )
    tried = {kind: next(attempts) for kind, attempts in InputPlan(model).hard()}
    assert list(tried) == [hard.value for hard in (Hard.LONG, Hard.MASKED, Hard.LARGE)]
    long, masked, large = (each.inputs for each in tried.values())
    assert long["input_ids"].shape[1] > 100
    assert long["position_ids"].min() >= 5000
    assert not masked["attention_mask"][0].any()
    assert masked["attention_mask"][1].any()
    plain = generate_inputs(model)
    assert np.abs(large["pixels"]).max() > 4 * np.abs(plain["pixels"]).max()
    assert LONG == 2


def test_half_subnormal_weights_are_counted(tmp_path: Path) -> None:
    weight = np.full((4, 4), 0.5, np.float32)
    weight[0] = 1e-5
    model = parse(
        f"""g (float[2,4] x) => (float[2,4] y) <float[4,4] w = {numbers(weight)}>
        {{ y = MatMul(x, w) }}"""
    )
    report = Pipeline(dtype="float16").convert(model, tmp_path / "o.onnx")
    assert "4 elements become subnormal, with fewer digits, in: initializer w" in report.notes
    large = np.full((40, 40), 0.5, np.float32)
    large[0] = 1e-5
    model.graph.initializers["w"].const_value = ir.tensor(large, name="w")
    model.graph.initializers["w"].shape = ir.Shape([40, 40])
    model.graph.inputs[0].shape = model.graph.outputs[0].shape = ir.Shape([2, 40])
    report = Pipeline(dtype="float16").convert(model, tmp_path / "o.onnx")
    assert "40 values of 1 weight become subnormal, with fewer digits: w" in report.notes
