"""Antialiased Resize below opset 18: matrix products that equal ONNX, PyTorch and PIL."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.infer import Infer

COORDINATES = (
    "half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric",
)  # fmt: skip


def resize(shape: str, attributes: str, *, sizes: str = "", scales: str = "") -> ir.Model:
    """Return a model with one Resize; sizes or scales are constants, else graph inputs."""
    inputs = [f"float[{shape}] x"]
    lines = []
    if sizes:
        lines.append(f"s = Constant<value_ints=[{sizes}]>()")
    elif scales:
        lines.append(f"s = Constant<value_floats=[{scales}]>()")
    else:
        inputs.append(f"int64[{shape.count(',') + 1}] s")
    call = "Resize<antialias=1, %s>(x, , s)" if scales else "Resize<antialias=1, %s>(x, , , s)"
    lines.append("y = " + call % attributes)
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 19]> g ({", ".join(inputs)}) => (float[a,b,c,d] y) '
        "{ " + "\n".join(lines) + " }"
    )


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, feeds)[0]


def converted(model: ir.Model, opset: int = 17) -> ir.Model:
    Infer().run(model)
    ConvertOpset(to=opset).run(model)
    check(model)
    assert not any(node.op_type == "Resize" for node in model.graph)
    assert model.opset_imports[""] == opset
    return model


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# For a single output and pytorch_half_pixel ONNX's text says place 0, its evaluator -0.5.
CASES = [
    case
    for case in itertools.product(
        ["linear", "cubic"], [0, 1], COORDINATES, ["2,3,13,11", "2,3,40,45", "2,3,13,45", "2,3,1,7"]
    )
    if case[2:] != ("pytorch_half_pixel", "2,3,1,7")
]


@pytest.mark.parametrize("shape", ["2,3,32,30", "2,3,h,w"])
@pytest.mark.parametrize(("mode", "outside", "coordinates", "size"), CASES)
def test_static_and_dynamic_equal_the_specification(size, shape, mode, outside, coordinates):
    """The matrices of known sizes and those built in the graph, against ONNX's own evaluator."""
    model = resize(
        shape,
        f'mode="{mode}", exclude_outside={outside}, cubic_coeff_a=-0.6,'
        f' coordinate_transformation_mode="{coordinates}"',
        sizes=size,
    )
    x = image(2, 3, 32, 30)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    actual = run(converted(model), {"x": x})
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_sizes_known_at_run_time_only(opset):
    model = resize("n,c,h,w", 'mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1')
    x, s = image(1, 2, 20, 24), np.array([1, 2, 9, 31], np.int64)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x, "s": s})[0]
    model = converted(model, opset)
    np.testing.assert_allclose(run(model, {"x": x, "s": s}), expected, atol=2e-5)


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "half_pixel_symmetric"])
@pytest.mark.parametrize("shape", ["1,2,20,24", "1,2,h,w"])
def test_scales(coordinates, shape):
    """Scales that do not divide the sizes stay the scales of the coordinates."""
    model = resize(
        shape,
        f'mode="linear", coordinate_transformation_mode="{coordinates}"',
        scales="1.0, 1.0, 0.57, 1.31",
    )
    x = image(1, 2, 20, 24)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    np.testing.assert_allclose(run(converted(model), {"x": x}), expected, atol=2e-5)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("shape", ["1,2,20,24", "1,2,h,w"])
def test_keep_aspect_ratio(policy, shape):
    model = resize(
        shape,
        f'mode="linear", keep_aspect_ratio_policy="{policy}", axes=[2, 3]',
        sizes="9, 17",
    )
    x = image(1, 2, 20, 24)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    actual = run(converted(model), {"x": x})
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("shape", ["1,2,20,24", "1,2,h,w"])
def test_single_output_is_at_the_first_place_with_pytorch_half_pixel(shape):
    model = resize(
        shape,
        'mode="linear", coordinate_transformation_mode="pytorch_half_pixel", exclude_outside=1',
        sizes="1, 2, 1, 24",
    )
    x = image(1, 2, 20, 24)
    distance = np.arange(20) / 20
    expected = np.tensordot(1 - distance, x, ([0], [2])) / (1 - distance).sum()
    np.testing.assert_allclose(run(converted(model), {"x": x})[:, :, 0], expected, atol=2e-6)


def test_unchanged_axes_cost_nothing():
    model = converted(resize("2,3,32,32", 'mode="cubic"', sizes="2,3,8,8"))
    assert sum(node.op_type == "MatMul" for node in model.graph) == 2


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize(
    "attributes",
    [
        'antialias=1, mode="cubic"',
        'keep_aspect_ratio_policy="not_smaller", mode="linear"',
        'keep_aspect_ratio_policy="not_larger", mode="nearest"',
    ],
)
def test_a_constant_image_is_a_weight_that_the_writer_computes(tmp_path, attributes, kind):
    """Larger than what is ever read to decide about a rewrite, and no byte of it read here."""
    x = image(1, 300, 40, 30).astype({"float": np.float32, "float16": np.float16}[kind])
    text = (
        f'<ir_version: 9, opset_import: ["" : 18]> g ({kind}[1,300,40,30] x, {kind}[1] z) =>'
        f" ({kind}[a,b,c,d] y) {{ s = Constant<value_ints=[18, 45]>()\n"
        f" r = Resize<axes=[2, 3], {attributes}>(x, , , s)\n y = Add(r, z) }}"
    )
    model = ir.from_onnx_text(text)
    feeds = {"x": x, "z": np.zeros(1, x.dtype)}
    expected = run(model, feeds) if "antialias" not in attributes or kind == "float" else None
    held = model.graph.inputs.pop(0)
    held.const_value = ir.tensor(x, name="x")
    model.graph.register_initializer(held)
    ConvertOpset(to=17).run(model)
    assert [node.op_type for node in model.graph] == ["Add"]
    assert list(model.graph.initializers) == [model.graph[0].inputs[0].name]
    save(model, tmp_path / "out.onnx")
    check(load(tmp_path / "out.onnx"))
    session = ort.InferenceSession(tmp_path / "out.onnx")
    (y,) = session.run(None, {"z": feeds["z"]})
    if expected is None:
        wide = ir.from_onnx_text(text.replace("float16", "float"))
        expected = run(wide, {"x": x.astype("f4"), "z": np.zeros(1, "f4")})
    np.testing.assert_allclose(y, expected, atol=2e-5 if kind == "float" else 2e-3)


@pytest.mark.parametrize("traced", ["1,2,20,24", "n,c,9,31"])
def test_traced_sizes_that_a_model_declares_are_not_believed(traced):
    """The inner value says the sizes of the trace; the model takes any."""
    model = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[n,c,h,w] x) => (float[a,b,d,e] y)'
        f" <float[{traced}] z> {{ z = Neg(x)\n s = Constant<value_ints=[9, 31]>()\n"
        ' y = Resize<antialias=1, mode="linear", axes=[2, 3]>(z, , , s) }'
    )
    x = image(1, 2, 33, 17)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    ConvertOpset(to=17).run(model)
    assert list(model.graph[0].outputs[0].shape) == ["n", "c", "h", "w"]
    np.testing.assert_allclose(run(model, {"x": x}), expected, atol=2e-5)
