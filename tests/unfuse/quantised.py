"""Random configurations of products with quantised weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unfuse.cases import KINDS, Array, Case, Given
from unfuse.heads import OPSETS, Dice, chance, normal, pick


def packed(numbers: Array, bits: int) -> Array:
    """Put numbers of few bits into bytes along the last axis, the lower bits first."""
    each = 8 // bits
    missing = -numbers.shape[-1] % each
    padded = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, missing)])
    parts = padded.reshape(*padded.shape[:-1], -1, each).astype(np.uint8)
    places = (np.arange(each) * bits).astype(np.uint8)
    return np.bitwise_or.reduce(parts << places, axis=-1).astype(np.uint8)


def matmul_nbits(rng: Dice) -> Case:
    """Draw a MatMulNBits."""
    name = str(pick(rng, "float32", "float32", "float16"))
    kind, tolerance = KINDS[name]
    bits, block = int(pick(rng, 4, 4, 8, 2)), int(pick(rng, 16, 32))
    outputs, inputs = int(rng.integers(1, 9)), int(pick(rng, 16, 32, 48, 64, 50, 7))
    blocks = -(-inputs // block)
    numbers = rng.integers(0, 1 << bits, (outputs, blocks, block))
    shape = [int(x) for x in rng.integers(1, 4, int(rng.integers(1, 3)))]
    given: dict[str, Given | None] = {
        "x": Given(normal(rng, (*shape, inputs), kind), [*"bs"[: len(shape)], str(inputs)]),
        "w": Given(packed(numbers, bits), constant=True),
        "scales": Given(normal(rng, (outputs, blocks), kind), constant=chance(rng)),
        "zeros": None,
        "groups": None,
        "bias": Given(normal(rng, (outputs,), kind)) if chance(rng) else None,
    }
    which = int(rng.integers(3))
    if which == 1:
        zeros = rng.integers(0, 1 << bits, (outputs, blocks))
        given["zeros"] = Given(packed(zeros, bits), constant=True)
    elif which == 2:
        given["zeros"] = Given(normal(rng, (outputs, blocks), kind) * 3, constant=chance(rng))
    told = bits == 4 and chance(rng, 0.3)
    if told:
        length = inputs if chance(rng) else blocks * block
        groups = rng.permutation(np.arange(length) // block).astype(np.int32)
        given["groups"] = Given(groups, constant=chance(rng))
    attributes: dict[str, object] = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    if chance(rng, 0.2):
        attributes["accuracy_level"] = 1
    opset = int(pick(rng, *OPSETS))  # type: ignore[call-overload]
    outs = [("y", len(shape) + 1, kind)]
    return Case(
        "MatMulNBits",
        given,
        attributes,
        outs,
        opset,
        tolerance,
        dynamic=chance(rng),
        may_stay=told and which == 1,
    )


def gather_blocks(rng: Dice) -> Case:
    """Draw a GatherBlockQuantized."""
    kind, tolerance = KINDS[str(pick(rng, "float32", "float16"))]
    bits, block = int(pick(rng, 4, 4, 8)), int(pick(rng, 16, 32))
    rows, blocks = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    table = rng.integers(0, 1 << bits, (rows, blocks * block))
    shape = tuple(int(x) for x in rng.integers(1, 4, int(rng.integers(1, 3))))
    index = rng.integers(0, rows, shape).astype(str(pick(rng, "int32", "int64")))
    zeros = rng.integers(0, 1 << bits, (rows, blocks))
    inputs: dict[str, Given | None] = {
        "table": Given(packed(table, bits), constant=True),
        "index": Given(index, [*"bs"[: len(shape)]]),
        "scales": Given(normal(rng, (rows, blocks), kind), constant=chance(rng)),
        "zeros": Given(packed(zeros, bits), constant=True) if chance(rng) else None,
    }
    attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    outputs = [("y", len(shape) + 1, kind)]
    return Case(
        "GatherBlockQuantized",
        inputs,
        attributes,
        outputs,
        _opset(rng),
        tolerance,
        dynamic=chance(rng),
    )


def _opset(rng: Dice) -> int:
    return int(pick(rng, *OPSETS))  # type: ignore[call-overload]


def _held(rng: Dice, shape: tuple[int, ...], kind: np.dtype) -> Array:
    return rng.integers(-100 if kind == np.int8 else 0, 101, shape).astype(kind)


def _quantised(
    rng: Dice, name: str, array: Array, axes: list[str], *, zero: bool = True, exact: bool = False
) -> dict[str, Given | None]:
    """Return numbers with a scale and, now and then where it may be left out, a zero point."""
    at = Given(_held(rng, (), array.dtype)) if zero or chance(rng) else None
    scale = np.array(0.03125 if exact else rng.uniform(0.005, 0.05), np.float32)
    return {name: Given(array, axes), f"{name}s": Given(scale), f"{name}z": at}


def _result(
    rng: Dice, kind: np.dtype, *, zero: bool = True, exact: bool = False
) -> dict[str, Given | None]:
    at = Given(_held(rng, (), kind), constant=chance(rng)) if zero or chance(rng) else None
    scale = np.array(0.0625 if exact else rng.uniform(0.01, 0.1), np.float32)
    return {"scale": Given(scale), "zero": at}


def _on_numbers(
    operator: str, *, zero: bool = False, binary: bool = False
) -> Callable[[Dice], Case]:
    """Return what draws a quantised operator of one operand or two."""

    def draw(rng: Dice) -> Case:
        kind = np.dtype(str(pick(rng, "int8", "uint8")))
        pooled = operator.endswith("Pool")
        shape = tuple(int(x) for x in rng.integers(2, 5, 4 if pooled else 2))
        axes, exact = ([*"bchw"] if pooled else ["b", "n"]), chance(rng, 0.4)
        inputs = _quantised(rng, "x", _held(rng, shape, kind), axes, zero=zero, exact=exact)
        if binary:
            y = _held(rng, shape, kind)
            inputs |= _quantised(rng, "y", y, axes, zero=zero, exact=exact)
        inputs |= _result(rng, kind, zero=zero, exact=exact)
        attributes: dict[str, object] = {}
        if operator == "QLinearLeakyRelu":
            attributes["alpha"] = 0.2
        if operator == "QLinearSoftmax":
            attributes |= {"opset": 13, "axis": int(pick(rng, -1, 1, 0))}
            inputs |= {"scale": Given(np.array(1 / 256, np.float32))}
            inputs |= {"zero": Given(np.array(-128 if kind == np.int8 else 0, kind))}
        if pooled:
            attributes["channels_last"] = int(chance(rng))
        if operator == "QLinearAveragePool":
            attributes |= {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0]}
            attributes |= {"count_include_pad": int(chance(rng))}
        outputs, steps = [("z", len(shape), kind)], 0 if exact else 1
        return Case(
            operator, inputs, attributes, outputs, _opset(rng), dynamic=chance(rng), steps=steps
        )

    return draw


def where(rng: Dice) -> Case:
    """Draw a QLinearWhere."""
    kind, shape = np.dtype(str(pick(rng, "int8", "uint8"))), (2, int(rng.integers(1, 5)))
    inputs: dict[str, Given | None] = {"c": Given(rng.random(shape) < 0.5, ["b", "n"])}
    exact = chance(rng)
    for name in "xy":
        inputs |= _quantised(rng, name, _held(rng, shape, kind), ["b", "n"], exact=exact)
    inputs |= _result(rng, kind, exact=exact)
    inputs = {k: v and Given(v.array, v.axes, constant=not v.axes) for k, v in inputs.items()}
    outputs, steps = [("z", 2, kind)], 0 if exact else 1
    return Case("QLinearWhere", inputs, {}, outputs, _opset(rng), dynamic=chance(rng), steps=steps)


def concat(rng: Dice) -> Case:
    """Draw a QLinearConcat."""
    kind = np.dtype(str(pick(rng, "int8", "uint8")))
    exact = chance(rng)
    inputs = _result(rng, kind, exact=exact)
    for name in "xyw"[: int(rng.integers(1, 4))]:
        array = _held(rng, (2, int(rng.integers(1, 4))), kind)
        inputs |= _quantised(rng, name, array, ["b", f"{name}n"], exact=exact)
    inputs = {k: v and Given(v.array, v.axes, constant=not v.axes) for k, v in inputs.items()}
    outputs, attributes = [("z", 2, kind)], {"axis": int(pick(rng, 1, -1))}
    return Case(
        "QLinearConcat",
        inputs,
        attributes,
        outputs,
        _opset(rng),
        dynamic=chance(rng),
        steps=0 if exact else 1,
    )


def convolution(rng: Dice) -> Case:
    """Draw a QLinearConv of ONNX Runtime's own, its channels first or last."""
    kind, last = np.dtype(np.uint8), chance(rng, 0.7)
    batch, each, group = (int(x) for x in rng.integers(1, 3, 3))
    outputs, size = group * int(rng.integers(1, 4)), tuple(int(x) for x in rng.integers(3, 7, 2))
    shape, axes = (batch, group * each, *size), [*"bchw"]
    if last:
        shape, axes = (batch, *size, group * each), [*"bhwc"]
    axes[axes.index("c")] = str(group * each)
    inputs = _quantised(rng, "x", _held(rng, shape, kind), axes)
    weights = _held(rng, (outputs, each, 2, 3), np.dtype(np.int8))
    wide = (outputs,) if chance(rng) else ()
    inputs["w"] = Given(weights, constant=True)
    inputs["ws"] = Given(rng.uniform(0.005, 0.02, wide).astype(np.float32), constant=True)
    inputs["wz"] = Given(np.zeros(wide, np.int8), constant=True)
    inputs |= _result(rng, kind)
    bias = rng.integers(-500, 500, (outputs,)).astype(np.int32)
    inputs["B"] = Given(bias, constant=True) if chance(rng) else None
    attributes: dict[str, object] = {"group": group, "channels_last": int(last)}
    attributes |= {"kernel_shape": [2, 3], "strides": [int(x) for x in rng.integers(1, 3, 2)]}
    attributes["pads"] = [int(x) for x in rng.integers(0, 2, 4)]
    found = [("z", 4, kind)]
    return Case("QLinearConv", inputs, attributes, found, _opset(rng), dynamic=chance(rng), steps=1)


def largest(rng: Dice) -> Case:
    """Draw a NhwcMaxPool."""
    kind = np.dtype(str(pick(rng, "int8", "uint8")))
    shape = tuple(int(x) for x in rng.integers(3, 6, 4))
    attributes: dict[str, object] = {"kernel_shape": [2, 2], "strides": [2, 1]}
    attributes["pads"] = [int(x) for x in rng.integers(0, 2, 4)]
    if chance(rng):  # with a window that starts in padding, onnx and runtimes count otherwise
        attributes |= {"ceil_mode": 1, "pads": [1, 0, 0, 0]}
    inputs: dict[str, Given | None] = {"x": Given(_held(rng, shape, kind), [*"bhwc"])}
    outputs = [("z", 4, kind)]
    return Case("NhwcMaxPool", inputs, attributes, outputs, _opset(rng), dynamic=chance(rng))


def gemm(rng: Dice) -> Case:
    """Draw a QGemm."""
    rows, inner, columns = (int(x) for x in rng.integers(1, 6, 3))
    turned = [chance(rng), chance(rng)]
    kinds = [np.dtype(np.uint8), np.dtype(str(pick(rng, "int8", "uint8")))]
    inputs: dict[str, Given | None] = {}
    exact = chance(rng, 0.4)
    for name, shape, swap, kind in zip(
        "AB", ((rows, inner), (inner, columns)), turned, kinds, strict=True
    ):
        whole = shape[::-1] if swap else shape
        held, axes = _held(rng, whole, kind), [f"{name}0", f"{name}1"]
        inputs |= _quantised(rng, name, held, axes, exact=exact)
    if not exact and chance(rng, 0.3):
        scale = rng.uniform(0.005, 0.05, columns).astype(np.float32)
        inputs |= {"Bs": Given(scale), "Bz": Given(_held(rng, (columns,), kinds[1]))}
    c = rng.integers(-500, 500, (columns,)).astype(np.int32)
    inputs["C"] = Given(c) if chance(rng) else None
    given = _result(rng, kinds[0], exact=exact)
    inputs |= given if chance(rng) else dict.fromkeys(given)
    out = np.dtype(np.float32) if inputs["scale"] is None else kinds[0]
    attributes: dict[str, object] = {"transA": int(turned[0]), "transB": int(turned[1])}
    if chance(rng):
        attributes["alpha"] = 0.5
    steps = 0 if exact or out == np.float32 else 1
    return Case("QGemm", inputs, attributes, [("z", 2, out)], _opset(rng), steps=steps)


def integer_to_float(rng: Dice) -> Case:
    """Draw a MatMulIntegerToFloat."""
    inner, columns = (int(x) for x in rng.integers(1, 6, 2))
    shape = (*(int(x) for x in rng.integers(1, 4, 2)), inner)
    kinds = [np.dtype(np.uint8), np.dtype(str(pick(rng, "int8", "uint8")))]
    wide = chance(rng)
    size = (columns,) if wide else ()
    inputs: dict[str, Given | None] = {
        "A": Given(_held(rng, shape, kinds[0]), ["b", "s", str(inner)]),
        "B": Given(_held(rng, (inner, columns), kinds[1]), constant=chance(rng)),
        "As": Given(np.array(0.02, np.float32)),
        "Bs": Given(rng.uniform(0.01, 0.05, size).astype(np.float32)),
        "Az": Given(_held(rng, (), kinds[0])) if chance(rng) else None,
        "Bz": Given(_held(rng, size, kinds[1])) if chance(rng) else None,
        "bias": Given(normal(rng, (columns,), np.dtype(np.float32))) if chance(rng) else None,
    }
    outputs = [("y", 3, np.dtype(np.float32))]
    return Case("MatMulIntegerToFloat", inputs, {}, outputs, _opset(rng), dynamic=chance(rng))


def dynamic_matmul(rng: Dice) -> Case:
    """Draw a DynamicQuantizeMatMul."""
    inner, columns = (int(x) for x in rng.integers(1, 6, 2))
    shape, kind = (*(int(x) for x in rng.integers(1, 4, 2)), inner), np.dtype(np.float32)
    held = np.dtype(str(pick(rng, "int8", "uint8")))
    size = (columns,) if chance(rng) else ()
    inputs: dict[str, Given | None] = {
        "A": Given(normal(rng, shape, kind), ["b", "s", str(inner)]),
        "B": Given(_held(rng, (inner, columns), held), constant=chance(rng)),
        "Bs": Given(rng.uniform(0.01, 0.05, size).astype(np.float32)),
        "Bz": Given(_held(rng, size, held)) if chance(rng) else None,
        "bias": Given(normal(rng, (columns,), kind)) if chance(rng) else None,
    }
    outputs = [("y", 3, kind)]
    return Case("DynamicQuantizeMatMul", inputs, {}, outputs, _opset(rng), dynamic=chance(rng))


def _by_name(operator: str) -> Callable[[Dice], Case]:
    """Return what draws QuantizeLinear or DequantizeLinear of ONNX Runtime's own."""

    def draw(rng: Dice) -> Case:
        held = np.dtype(str(pick(rng, "int8", "uint8")))
        rows, columns = (int(x) for x in rng.integers(1, 5, 2))
        wide = chance(rng)
        size, kind = ((columns,) if wide else ()), np.dtype(np.float32)
        back = operator == "DequantizeLinear"
        x = _held(rng, (rows, columns), held) if back else normal(rng, (rows, columns), kind)
        zero = chance(rng) or not back
        inputs: dict[str, Given | None] = {
            "x": Given(x, ["b", "n"]),
            "s": Given(rng.uniform(0.01, 0.05, size).astype(np.float32)),
            "z": Given(_held(rng, size, held)) if zero else None,
        }
        attributes = {"axis": 1} if wide else {}
        outputs = [("y", 2, kind if back else held)]
        dynamic = chance(rng) and not wide
        return Case(operator, inputs, attributes, outputs, _opset(rng), dynamic=dynamic)

    return draw


def reduce_mean(rng: Dice) -> Case:
    """Draw a QLinearReduceMean, which no wheel has a kernel for."""
    kind, shape = np.dtype(np.uint8), (2, int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    axis, kept = int(rng.integers(-3, 3)), int(chance(rng))
    inputs = _quantised(rng, "x", _held(rng, shape, kind), ["b", "n", "m"])
    inputs |= _result(rng, kind)

    def reference(case: Case) -> list[Array]:
        given = {name: each.array for name, each in case.inputs.items() if each is not None}
        x = (given["x"].astype(np.float64) - given["xz"]) * given["xs"]
        mean = x.mean(axis, keepdims=bool(kept)) / given["scale"] + given["zero"]
        return [np.clip(np.rint(mean), 0, 255).astype(np.uint8)]

    attributes = {"axes": [axis], "keepdims": kept}
    outputs = [("y", 2 + kept, kind)]
    return Case(
        "QLinearReduceMean",
        inputs,
        attributes,
        outputs,
        _opset(rng),
        dynamic=chance(rng),
        reference=reference,
        steps=1,
    )


_POOLS = ("QLinearAveragePool", "QLinearGlobalAveragePool")

DRAWN: dict[str, Callable[[Dice], Case]] = {
    "MatMulNBits": matmul_nbits,
    "GatherBlockQuantized": gather_blocks,
    "QLinearAdd": _on_numbers("QLinearAdd", zero=True, binary=True),
    "QLinearMul": _on_numbers("QLinearMul", zero=True, binary=True),
    "QLinearSigmoid": _on_numbers("QLinearSigmoid", zero=True),
    "QLinearLeakyRelu": _on_numbers("QLinearLeakyRelu", zero=True),
    "QLinearSoftmax": _on_numbers("QLinearSoftmax"),
    **{pool: _on_numbers(pool, zero=True) for pool in _POOLS},
    "QLinearReduceMean": reduce_mean,
    "QLinearConv": convolution,
    "NhwcMaxPool": largest,
    "QLinearWhere": where,
    "QLinearConcat": concat,
    "QGemm": gemm,
    "MatMulIntegerToFloat": integer_to_float,
    "DynamicQuantizeMatMul": dynamic_matmul,
    "QuantizeLinear": _by_name("QuantizeLinear"),
    "DequantizeLinear": _by_name("DequantizeLinear"),
}
