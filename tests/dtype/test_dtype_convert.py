"""convert --dtype from end to end: what runs nowhere comes out in float32 and equals PyTorch."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import EXPORTS, check, dtypes_left, export, parse, relative_error

import vlmpass
from vlmpass import Pipeline
from vlmpass.cli.app import run as command
from vlmpass.intent import DTYPES
from vlmpass.ir_tools.run import Runner

D = ir.DataType
NARROW = {D.BFLOAT16, D.FLOAT16, D.COMPLEX128}


@pytest.mark.parametrize("opset", [None, 21])
@pytest.mark.parametrize(
    "name",
    [
        "decoder.bfloat16.ts17",
        "decoder.bfloat16.dyn23",
        "decoder.float16.ts17",
        "vision.bfloat16.ts17",  # Cast(to=COMPLEX128), PyTorch's own number of bfloat16
        "vision.bfloat16.dyn18",
        "text.float16.ts17",
        "quant_mod.float16.ts17",
    ],
)
def test_convert_half_exports_to_float32(name, opset, tmp_path):
    path = tmp_path / "out.onnx"
    report = Pipeline(dtype="float32", opset=opset, target="ort-cpu").convert(
        EXPORTS / f"{name}.onnx", path
    )
    assert report.checked.types
    assert report.checked.numbers is not None
    vlmpass.check(path)  # fused to what ONNX Runtime has, which onnx's own checker may not know
    assert not dtypes_left(ir.load(path)) & NARROW
    _, feeds, wanted = export(name)
    with Runner(path) as runner:
        made = runner.run(feeds)
    for key, reference in wanted.items():
        assert relative_error(made[key], reference) < 1e-5


@pytest.mark.parametrize("name", ["decoder.float32.ts17", "decoder.bfloat16.ts17"])
def test_convert_raw_decoders_to_float16(name, tmp_path):
    path = tmp_path / "out.onnx"
    report = Pipeline(dtype="float16", target="ort-cpu").convert(EXPORTS / f"{name}.onnx", path)
    assert report.checked.numbers is not None
    vlmpass.check(path)  # fused to what ONNX Runtime has, which onnx's own checker may not know
    model, feeds, wanted = ir.load(path), *export(name)[1:]
    with Runner(path) as runner:
        made = runner.run(
            {v.name: feeds[v.name].astype(v.dtype.numpy()) for v in model.graph.inputs}
        )
    for key, reference in wanted.items():
        assert made[key].dtype == np.float16
        assert relative_error(made[key], reference) < 5e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_convert_repairs_types_first(dtype):
    model = parse(
        """g (float[2] x, float16[2] z) => (float16[2] y)
        { a = Add(x, z) y = Cast<to=10>(a) }"""
    )
    result = Pipeline(dtype=dtype).run(model).model
    check(result)
    again = Pipeline(dtype=dtype).run(result)
    assert not any(each.changed for each in again.passes)


def test_convert_reports_what_was_lost(capsys, tmp_path):
    weight = np.full((64, 64), 0.01, np.float32)
    weight[0, :3] = 1e-9
    model = parse(
        """g (bool[1,64] m, float[1,64] s) => (float[1,64] y) {
        c = Constant<value = float {-3.4028235e38}>()
        b = Where(m, s, c) p = Softmax(b) y = MatMul(p, w) }"""
    )
    w = ir.Value(name="w", type=ir.TensorType(D.FLOAT), shape=ir.Shape([64, 64]))
    w.const_value = ir.tensor(weight, name="w")
    model.graph.register_initializer(w)
    model.graph[-1].replace_input_with(1, w)
    ir.save(model, tmp_path / "in.onnx")
    given = ["convert", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]
    given += ["--passes", "mixed-precision"]
    assert command(given) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "note       masks refitted to the range of the new type: c (Constant)" in shown.out
    assert "note       some elements become zero in: initializer w" in shown.out
    assert "note       3 values of 1 weight are too small and become 0: w" in shown.out
    assert command([*given, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 3


def test_convert_folds_constants_in_the_wider_type():
    """A product of two bfloat16 numbers has 16 bits, and bfloat16 has room for 8 of them."""
    model = parse(
        """g (bfloat16[2] x) => (bfloat16[2] y) <bfloat16 a = {b(1.0078125)}> {
        b = Add(a, a) c = Mul(a, b) y = Mul(x, c) }"""
    )
    result = Pipeline(dtype="float32", simplify=True).run(model).model
    check(result)
    assert [node.op_type for node in result.graph] == ["Mul"]
    (held,) = result.graph.initializers.values()
    assert held.const_value.numpy() == np.float32(2 * 1.0078125**2)
