"""Arguments of layers: pools, norms, samplers, windows of signals, and random numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.fuzz.recipes import RECIPES, Spec, i64

from .draw import At, Generator

__all__ = ["GENERATORS"]


def pool(draw: At, op_type: str) -> Spec:
    count = draw.integer(1, 2)
    sizes = [draw.integer(4, 7) for _ in range(count)]
    kernel = [draw.integer(1, 3) for _ in range(count)]
    attributes: dict[str, object] = {"kernel_shape": kernel}
    attributes |= draw.some(strides=[draw.integer(1, 3) for _ in range(count)])
    if draw.at >= (12 if op_type == "MaxPool" else 18) and draw.chance(0.3):
        attributes["dilations"] = [draw.integer(1, 2) for _ in range(count)]
    side = draw.among(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "pads", "pads"])
    if side == "pads":
        attributes["pads"] = [draw.integer(0, kernel[i % count] - 1) for i in range(2 * count)]
    else:
        attributes |= draw.some(auto_pad=side)
    attributes |= draw.some(ceil_mode=1, count_include_pad=1, p=draw.integer(1, 3), storage_order=0)
    if op_type == "LpPool" and draw.at < 2:
        attributes["p"] = 2.0
    x = draw.ones(draw.integer(1, 2), draw.integer(1, 2), *sizes)
    return Spec(op_type, draw.at, [x], attributes, 2 if op_type == "MaxPool" else 1)


def over_space(draw: At, op_type: str) -> Spec:
    x = draw.ones(2, 3, *(draw.integer(1, 4) for _ in range(draw.integer(1, 3))))
    attributes: dict[str, object] = {}
    if op_type == "GlobalLpPool":
        attributes = draw.some(p=2.0 if draw.at < 2 else draw.integer(1, 3))
    if op_type == "LRN":
        attributes = draw.some(alpha=0.1, beta=0.5, bias=2.0) | {"size": draw.integer(1, 4)}
    if op_type == "InstanceNormalization":
        return Spec(op_type, draw.at, [x, draw.ones(3), draw.ones(3)], draw.some(epsilon=1e-3))
    return Spec(op_type, draw.at, [x], attributes)


def group_norm(draw: At, op_type: str) -> Spec:
    x = draw.ones(2, 4, *(draw.integer(1, 3) for _ in range(draw.integer(1, 2))))
    groups = draw.among([1, 2, 4])
    length = groups if draw.at < 21 else 4
    attributes = draw.some(epsilon=1e-2) | {"num_groups": groups}
    return Spec(op_type, draw.at, [x, draw.ones(length), draw.ones(length)], attributes)


def rms_norm(draw: At, op_type: str) -> Spec:
    axis = draw.among([-1, 1, 2, -2])
    sizes = (2, 3, 4)[axis:]
    attributes = draw.some(epsilon=1e-2) | ({} if axis == -1 else {"axis": axis})
    return Spec(op_type, draw.at, [draw.ones(2, 3, 4), draw.ones(*sizes)], attributes)


def upsample(draw: At, op_type: str) -> Spec:
    x = draw.ones(1, 2, 2, 3)
    scales = np.array([1, 1, draw.among([1, 2, 1.5, 3]), draw.among([1, 2, 2.5])], np.float32)
    attributes: dict[str, object] = draw.some(mode=draw.among(["nearest", "linear"]))
    if draw.at < 7:
        mode = draw.among(["nearest", "bilinear"])
        scale = {"height_scale": float(scales[2]), "width_scale": float(scales[3])}
        return Spec(op_type, draw.at, [x], {"mode": mode, **scale})
    return Spec(op_type, draw.at, [x, scales], attributes)


def grid_sample(draw: At, op_type: str) -> Spec:
    volume = draw.at >= 20 and draw.chance(0.3)
    space = (3, 4, 3) if volume else (3, 4)
    x = draw.ones(1, 2, *space)
    grid = draw.rng.uniform(-1.4, 1.4, (1, *([2] * len(space)), len(space))).astype(np.float32)
    old = draw.at < 20
    modes = ["bilinear", "nearest", "bicubic"] if old else ["linear", "nearest", "cubic"]
    mode = draw.among(modes[:2] if volume else modes)
    attributes = draw.some(mode=mode, align_corners=1)
    attributes |= draw.some(padding_mode=draw.among(["zeros", "border", "reflection"]))
    return Spec(op_type, draw.at, [x, grid], attributes)


def regions(draw: At, op_type: str) -> Spec:
    x = draw.ones(2, 2, 8, 8)
    rows = draw.rng.uniform(0, 7, (3, 2, 2)).astype(np.float32)
    boxes = np.concatenate([rows.min(1), rows.max(1)], 1)
    attributes: dict[str, object] = draw.some(spatial_scale=draw.among([1.0, 0.5]))
    if op_type == "MaxRoiPool":
        rois = np.concatenate([draw.ints(0, 1, (3, 1)).astype(np.float32), np.round(boxes)], 1)
        return Spec(op_type, draw.at, [x, rois], attributes | {"pooled_shape": [2, 3]})
    attributes |= draw.some(
        mode=draw.among(["avg", "max"]), sampling_ratio=2, output_height=2, output_width=3
    )
    way = draw.among(["half_pixel", "output_half_pixel"])
    attributes |= draw.some(coordinate_transformation_mode=way)
    return Spec(op_type, draw.at, [x, boxes, draw.ints(0, 1, 3)], attributes)


def col2im(draw: At, op_type: str) -> Spec:
    blocks = [(1, 5), (2, 2), (1, 3)]
    block = draw.among(blocks)
    pads = [draw.integer(0, 1) for _ in range(4)]
    image = (5, 5)
    spans = [image[i] + pads[i] + pads[i + 2] - block[i] + 1 for i in range(2)]
    x = draw.ones(1, 2 * block[0] * block[1], spans[0] * spans[1])
    inputs = [x, i64(*image), i64(*block)]
    return Spec(op_type, draw.at, inputs, {"pads": pads}, constant=(1, 2))


def crop(draw: At, op_type: str) -> Spec:
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, draw.at)[0]))
    axes = draw.axes(data.ndim)
    whole = not axes or draw.chance(0.3)
    count = data.ndim if whole else len(axes)
    target = draw.ints(1, 6, count)
    attributes: dict[str, object] = {} if whole else {"axes": axes}
    return Spec(op_type, draw.at, [data, target], attributes, constant=(1,) * draw.chance(0.5))


def affine_grid(draw: At, op_type: str) -> Spec:
    flat = draw.chance(0.5)
    theta = draw.ones(2, 2, 3) if flat else draw.ones(2, 3, 4)
    size = i64(2, 1, 3, 4) if flat else i64(2, 1, 2, 3, 4)
    return Spec(op_type, draw.at, [theta, size], draw.some(align_corners=1), constant=(1,))


def determinant(draw: At, op_type: str) -> Spec:
    size = draw.integer(1, 3)
    return Spec(op_type, draw.at, [draw.ones(*draw.shape(0, 2), size, size)])


def dynamic(draw: At, op_type: str) -> Spec:
    return Spec(op_type, draw.at, [draw.ones(*(max(1, n) for n in draw.shape(1)))])


def window(draw: At, op_type: str) -> Spec:
    size = np.array(draw.integer(1, 9), draw.among([np.int64, np.int32]))
    attributes = draw.some(periodic=draw.integer(0, 1), output_datatype=draw.among([1, 11, 10, 7]))
    return Spec(op_type, draw.at, [size], attributes, constant=(0,) * draw.chance(0.5))


def mel(draw: At, op_type: str) -> Spec:
    integers = [np.array(each, np.int64) for each in (draw.integer(2, 6), 16, 8192)]
    edges = [np.array(each, np.float32) for each in (0.0, 4096.0)]
    attributes = draw.some(output_datatype=draw.among([1, 11]))
    return Spec(op_type, draw.at, [*integers, *edges], attributes, constant=(0, 1))


def noise(draw: At, op_type: str) -> Spec:
    floats = [int(ir.DataType[name]) for name in ("FLOAT", "DOUBLE", "FLOAT16")]
    attributes: dict[str, object] = draw.some(seed=2.0, dtype=draw.among(floats))
    inputs: list[np.ndarray] = []
    if op_type in ("RandomNormal", "RandomUniform"):
        attributes["shape"] = [max(1, n) for n in draw.shape(1)]
    else:
        inputs = [np.abs(draw.ones(2, 3)).clip(0, 1)]
    if op_type == "Multinomial":
        attributes = draw.some(seed=2.0, dtype=draw.among([6, 7]), sample_size=4)
    elif op_type == "Bernoulli":
        attributes = draw.some(seed=2.0, dtype=draw.among([1, 7, 9, 11]))
    else:
        attributes |= draw.some(
            **{"mean": 1.0, "scale": 0.5} if "Normal" in op_type else {"low": -1.0, "high": 2.0}
        )
    return Spec(op_type, draw.at, inputs, attributes)


def scatter(draw: At, op_type: str) -> Spec:
    data = draw.ones(3, 4)
    axis = draw.axis(2)
    rows = np.argsort(draw.rng.random((3, 4)), axis)[:2, :3]
    attributes = {"axis": axis} if axis or draw.chance(0.5) else {}
    return Spec(op_type, draw.at, [data, rows.astype(np.int64), draw.ones(2, 3)], attributes)


def reverse(draw: At, op_type: str) -> Spec:
    time = draw.integer(0, 1)
    data = draw.array((3, 3, *draw.shape(0, 2)), draw.dtype(draw.formals(op_type, draw.at)[0]))
    attributes = (
        {} if time == 0 and draw.chance(0.5) else {"time_axis": time, "batch_axis": 1 - time}
    )
    return Spec(op_type, draw.at, [data, draw.ints(1, 3, 3)], {**attributes})


def resize(draw: At, op_type: str) -> Spec:
    spec = RECIPES["Resize"](draw.dice, draw.at)
    if draw.at < 11:
        scales = spec.inputs[2]
        return Spec(op_type, draw.at, [spec.inputs[0], scales], draw.some(mode="linear"))
    way = draw.among(["antialias", "keep_aspect_ratio_policy", "axes", "nearest_mode", ""])
    options: dict[str, object] = {
        "antialias": 1,
        "keep_aspect_ratio_policy": draw.among(["not_larger", "not_smaller"]),
        "nearest_mode": draw.among(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
        "cubic_coeff_a": -0.5,
        "exclude_outside": 1,
    }
    spec.attributes |= {name: options[name] for name in (way,) if name in options}
    if spec.attributes.get("mode") == "cubic":
        spec.attributes |= draw.some(cubic_coeff_a=-0.5, exclude_outside=1)
    if draw.chance(0.5):
        spec.inputs.pop()
    else:
        spec.inputs[2] = None
    return spec


_OVER_SPACE = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "LRN", "InstanceNormalization")
_NOISE = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
          "Multinomial")  # fmt: skip

GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), pool),
    **dict.fromkeys(_OVER_SPACE, over_space),
    **dict.fromkeys(_NOISE, noise),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), window),
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), regions),
    "GroupNormalization": group_norm,
    "RMSNormalization": rms_norm,
    "Upsample": upsample,
    "Resize": resize,
    "GridSample": grid_sample,
    "Col2Im": col2im,
    "CenterCropPad": crop,
    "AffineGrid": affine_grid,
    "Det": determinant,
    "DynamicQuantizeLinear": dynamic,
    "MelWeightMatrix": mel,
    "Scatter": scatter,
    "ReverseSequence": reverse,
}
