"""Resize, average pools and regions that older opsets have no attribute for, against the newer."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset

COORDINATES = (
    "half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MODES = [("linear", ""), ("cubic", ""), ("cubic", ", exclude_outside=1, cubic_coeff_a=-0.5")] + [
    ("nearest", f', nearest_mode="{rounding}"') for rounding in ROUNDINGS
]


def graph(opset: int, inputs: str, body: str, rank: int = 4) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : {opset}]> g ({inputs}) => '
        f"(float[{','.join('abcd'[:rank])}] y) {{ {body} }}"
    )


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, feeds)[0]


def compare(model: ir.Model, feeds: dict[str, np.ndarray], to: int, atol: float) -> ir.Model:
    """Convert a model and compare what ONNX Runtime makes of both."""
    expected = run(model, feeds)
    ConvertOpset(to=to).run(model)
    check(model)
    actual = run(model, feeds)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=0)
    return model


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", ["1,2,20,24", "n,c,h,w"])
@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(("mode", "more"), MODES)
def test_keep_aspect_ratio(mode, more, coordinates, policy, shape):
    model = graph(
        19,
        f"float[{shape}] x",
        "s = Constant<value_ints=[9, 37]>()\n"
        f'y = Resize<axes=[2, 3], keep_aspect_ratio_policy="{policy}", mode="{mode}",'
        f' coordinate_transformation_mode="{coordinates}"{more}>(x, , , s)',
    )
    compare(model, {"x": image(1, 2, 20, 24)}, 17, 3e-5)


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(("mode", "more"), MODES)
def test_symmetric_with_scales_known_at_run_time_only(mode, more, opset):
    model = graph(
        19,
        "float[n,c,h,w] x, float[4] s",
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="half_pixel_symmetric"{more}>'
        "(x, , s)",
    )
    scales = np.array([1, 1, 0.57, 1.31], np.float32)
    compare(model, {"x": image(1, 2, 20, 24), "s": scales}, opset, 3e-5)


def test_whole_scales_keep_the_resize():
    body = (
        "s = Constant<value_floats=[1.0, 1.0, 2.0, 0.5]>()\n"
        'y = Resize<coordinate_transformation_mode="half_pixel_symmetric">(x, , s)'
    )
    model = compare(graph(19, "float[n,c,3,4] x", body), {"x": image(1, 2, 3, 4)}, 13, 0)
    assert [node.op_type for node in model.graph if node.op_type == "Resize"] == ["Resize"]


def test_cropped_keeping_its_aspect_is_refused():
    body = (
        "s = Constant<value_ints=[9, 37]>()\n"
        'y = Resize<axes=[2, 3], keep_aspect_ratio_policy="not_larger",'
        ' coordinate_transformation_mode="tf_crop_and_resize">(x, r, , s)'
    )
    with pytest.raises(Refused, match="tf_crop_and_resize"):
        ConvertOpset(to=17).run(graph(18, "float[1,2,20,24] x, float[4] r", body))


@pytest.mark.parametrize("opset", [15, 11])
@pytest.mark.parametrize(
    ("mode", "samples", "scale"), [*itertools.product(["avg", "max"], [0, 1, 2], [1.0, 0.25])]
)
def test_regions_from_pixel_centres(mode, samples, scale, opset):
    """Regions of every size, also below a pixel, outside of the image and empty."""
    model = graph(
        16,
        "float[n,c,h,w] x, float[r,4] b, int64[r] i",
        f'y = RoiAlign<mode="{mode}", output_height=3, output_width=4, sampling_ratio={samples},'
        f" spatial_scale={scale}>(x, b, i)",
    )
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(-3, 12, size=(20, 2, 2)), axis=1).reshape(20, 4)
    special = [[1, 1, 1.2, 1.3], [0, 0, 11, 9], [-30, -30, -20, -20], [5, 5, 5, 5]]
    regions = (np.concatenate([corners, special]) / scale).astype(np.float32)
    feeds = {"x": image(3, 2, 10, 12), "b": regions, "i": random.integers(0, 3, size=24)}
    compare(model, feeds, opset, 1e-6)


@pytest.mark.parametrize("opset", [21, 18, 13, 9])
@pytest.mark.parametrize("pads", ["1, 1, 1, 1", "0, 0, 2, 1", "2, 1, 0, 0", "0, 0, 0, 0"])
@pytest.mark.parametrize(
    ("kernel", "strides"), [("3, 3", "3, 2"), ("3, 2", "2, 2"), ("4, 3", "3, 3")]
)
def test_padding_that_counts_with_rounding_up(kernel, strides, pads, opset):
    model = graph(
        22,
        "float[1,2,7,8] x",
        f"y = AveragePool<kernel_shape=[{kernel}], strides=[{strides}], pads=[{pads}],"
        " ceil_mode=1, count_include_pad=1>(x)",
    )
    compare(model, {"x": image(1, 2, 7, 8)}, opset, 1e-6)


@pytest.mark.parametrize(("source", "target"), [(22, 21), (21, 22)])
def test_windows_by_a_declared_size_that_nothing_proves_are_refused(source, target):
    body = "z = Neg(x) y = AveragePool<kernel_shape=[1], strides=[2], pads=[0, 1], ceil_mode=1>(z)"
    model = ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : {source}]> g (float[1,1,n] x) => (float[a,b,c] y)'
        f" <float[1,1,7] z> {{ {body} }}"
    )
    with pytest.raises(Refused, match="fix the input shapes"):
        ConvertOpset(to=target).run(model)
