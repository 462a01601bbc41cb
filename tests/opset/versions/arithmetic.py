"""Arguments of the operators that compute element by element, along axes, or products."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from tests.evaluate.differential import cases, structure
from tests.evaluate.differential.draw import element_type
from tests.fuzz.recipes import RECIPES, Spec
from vlmpass.ir_tools.operators.schema import schema, since

from .draw import At, Generator, spec_of

__all__ = ["GENERATORS"]


def elementwise(draw: At, op_type: str) -> Spec:
    """Draw operands that broadcast, and the operator's numbers and flags."""
    spec = spec_of(cases.elementwise(draw, op_type))
    found = schema(op_type, since(op_type, draw.at) or 1)
    for name, kind in found.attributes.items():
        if kind.name == "FLOAT" and draw.chance(0.6):
            spec.attributes[name] = draw.among([0.0, 1.0, 0.5, 2.0, -0.25, 1.7])
        if kind.name == "INT" and name.startswith("detect") and draw.chance(0.6):
            spec.attributes[name] = draw.integer(0, 1)
    if op_type == "Gelu" and draw.chance(0.6):
        spec.attributes["approximate"] = draw.among(["none", "tanh"])
    if draw.at < 7 and "broadcast" in found.attributes:
        _old_broadcast(draw, spec)
    if draw.at < 8 and op_type in ("Max", "Min", "Mean", "Sum"):  # these did not broadcast yet
        spec.inputs = [spec.inputs[0]] * len(spec.inputs)
    return spec


def _old_broadcast(draw: At, spec: Spec) -> None:
    """Let the second operand be a run of the first one's axes, as there was before opset 7."""
    first = spec.inputs[0]
    assert first is not None
    start = draw.integer(0, first.ndim)
    stop = draw.integer(start, first.ndim)
    second = spec.inputs[1]
    assert second is not None
    shape = tuple(1 if draw.chance(0.2) else size for size in first.shape[start:stop])
    spec.inputs[1] = np.resize(second, shape) if second.size else np.zeros(shape, second.dtype)
    spec.attributes["broadcast"] = 1
    if stop < first.ndim or draw.chance(0.5):
        spec.attributes["axis"] = start


def prelu(draw: At, op_type: str) -> Spec:
    x = draw.array(draw.shape(draw.at < 7), draw.dtype(draw.formals(op_type, draw.at)[0]))
    slope = draw.narrowed(x.shape)
    if draw.at < 7:
        slope = (x.shape[1] if x.ndim > 1 and draw.chance(0.5) else 1,)
    return Spec(op_type, draw.at, [x, draw.array(slope, element_type(x))])


def along_an_axis(draw: At, op_type: str) -> Spec:
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, draw.at)[0]))
    attributes: dict[str, object] = {"axis": draw.axis(data.ndim)} if draw.chance(0.7) else {}
    if op_type == "LpNormalization" and draw.chance(0.6):
        attributes["p"] = draw.integer(1, 2)
    if op_type == "MeanVarianceNormalization":
        data = draw.ones(*(max(1, draw.size()) for _ in range(4)))
        attributes = {"axes": draw.axes(4) or [0]} if draw.chance(0.6) else {}
    return Spec(op_type, draw.at, [data], attributes)


def top_k(draw: At, op_type: str) -> Spec:
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, draw.at)[0]))
    axis = draw.axis(data.ndim)
    flat = draw.rng.permutation(max(data.size, 1))[: data.size]
    data = flat.astype(data.dtype).reshape(data.shape)  # ties are broken as runtimes like
    count = draw.integer(0, data.shape[axis])
    attributes = draw.some(largest=draw.integer(0, 1), sorted=1)
    attributes |= {"axis": axis} if axis not in (-1, data.ndim - 1) or draw.chance(0.5) else {}
    return Spec(op_type, draw.at, [data, np.array([count], np.int64)], attributes, 2)


def concat(draw: At, op_type: str) -> Spec:
    spec = spec_of(structure.concat(draw, op_type))
    if draw.at < 4 and draw.chance(0.5):
        spec.attributes = {}
    return spec


def arg(draw: At, op_type: str) -> Spec:
    spec = spec_of(cases.arg(draw, op_type))
    while not spec.inputs[0].ndim:  # there is no axis to look along
        spec = spec_of(cases.arg(draw, op_type))
    return spec


def cumulation(draw: At, op_type: str) -> Spec:
    return spec_of(cases.cumsum(draw, op_type))


def reduction(draw: At, op_type: str) -> Spec:
    return spec_of(cases.reduction(draw, op_type))


def matmul(draw: At, op_type: str) -> Spec:
    m, k, n = (max(draw.size(), draw.integer(0, 1)) for _ in range(3))
    lead = draw.shape(0, 2)
    a = (*draw.narrowed(lead), m, k) if draw.chance(0.8) else (k,)
    b = (*draw.narrowed(lead), k, n) if draw.chance(0.8) else (k,)
    dtype = draw.dtype(draw.formals(op_type, draw.at)[0])
    return Spec(op_type, draw.at, [draw.array(a, dtype), draw.array(b, dtype)])


def gemm(draw: At, op_type: str) -> Spec:
    m, k, n = (max(1, draw.size()) for _ in range(3))
    dtype = draw.dtype(draw.formals(op_type, draw.at)[0])
    attributes = draw.some(alpha=draw.among([0.5, 2.0]), beta=draw.among([0.0, 0.5, 3.0]))
    attributes |= draw.some(transA=1, transB=1)
    a = (k, m) if "transA" in attributes else (m, k)
    b = (n, k) if "transB" in attributes else (k, n)
    inputs: list[np.ndarray] = [draw.array(a, dtype), draw.array(b, dtype)]
    if draw.at < 11 or draw.chance(0.7):
        shapes = [(m, n), (n,), (m, 1), (1, n), (1,), ()]
        inputs.append(draw.array(draw.among(shapes[:1] if draw.at < 7 else shapes), dtype))
    if draw.at < 7 and draw.chance(0.7):
        inputs[2] = draw.array(draw.among([(n,), (1,), (m, n)]), dtype)
        attributes["broadcast"] = 1
    return Spec(op_type, draw.at, inputs, attributes)


EQUATIONS = {
    "ij,jk->ik": ((2, 3), (3, 4)),
    "bij, bjk -> bik": ((2, 2, 3), (2, 3, 1)),
    "ij->ji": ((2, 3),),
    "ij->": ((2, 3),),
    "ij,ij->i": ((2, 3), (2, 3)),
    "i,j": ((2,), (3,)),
    "...ij,...jk->...ik": ((2, 1, 2, 3), (4, 3, 2)),
    "bhwc,hkc->bhwk": ((1, 2, 3, 4), (2, 5, 4)),
    "ij,jk,kl->il": ((2, 3), (3, 2), (2, 4)),
    "ii->i": ((3, 3),),
}


def einsum(draw: At, op_type: str) -> Spec:
    equation = draw.among(list(EQUATIONS))
    dtype = draw.dtype(draw.formals(op_type, draw.at)[0])
    inputs = [draw.array(shape, dtype) for shape in EQUATIONS[equation]]
    return Spec(op_type, draw.at, inputs, {"equation": equation})


def quantized_product(draw: At, op_type: str) -> Spec:
    kinds = [draw.among(["uint8", "int8"]) for _ in range(3)]
    a, b = draw.dice.ints(0, 9, 2, 3, dtype=kinds[0]), draw.dice.ints(0, 9, 3, 4, dtype=kinds[1])
    scale = [np.array(each, np.float32) for each in (0.5, 0.25, 2.0)]
    if draw.chance(0.3):
        scale = [each.reshape(1) for each in scale]
    points = [np.full(s.shape, 1, kind) for s, kind in zip(scale, kinds, strict=True)]
    inputs = [a, scale[0], points[0], b, scale[1], points[1], scale[2], points[2]]
    return Spec(op_type, draw.at, inputs)


def cast_like(draw: At, op_type: str) -> Spec:
    formal = draw.formals(op_type, draw.at)[0]
    inputs = [draw.array(draw.shape(), draw.dtype(formal)) for _ in range(2)]
    attributes = {"saturate": draw.integer(0, 1)} if draw.at >= 19 and draw.chance(0.3) else {}
    return Spec(op_type, draw.at, inputs, {**attributes})


def cast(draw: At, op_type: str) -> Spec:
    if draw.at >= 6:
        return spec_of(cases.cast(draw, op_type))
    formal = draw.formals(op_type, draw.at)[0]
    to = draw.among(["FLOAT", "DOUBLE", "INT32", "INT64", "BOOL", "UINT8"])
    return Spec(op_type, draw.at, [draw.array(draw.shape(), draw.dtype(formal))], {"to": to})


def bit_cast(draw: At, op_type: str) -> Spec:
    data = draw.array(draw.shape(), draw.dtype(draw.formals(op_type, draw.at)[0]))
    names = ["FLOAT", "INT32", "UINT32", "DOUBLE", "INT64", "FLOAT16", "INT16", "UINT8", "INT8"]
    kinds = [k for name in names if (k := _dtype(name)).itemsize == data.dtype.itemsize]
    return Spec(op_type, draw.at, [data], {"to": int(draw.among(kinds or [_dtype("FLOAT")]))})


def _dtype(name: str) -> ir.DataType:
    return ir.DataType[name]


UNARY = re.findall(
    r"\w+",
    """Acos Acosh Asin Asinh Atan Atanh Cos Cosh Sin Sinh Tan Tanh Log Sigmoid Softsign Softplus
    HardSwish Mish Celu Elu Selu LeakyRelu ThresholdedRelu HardSigmoid Gelu Shrink Swish IsInf Mean
    SwiGLU StringConcat""",
)
_FOLDED = [name for name, draw in cases.GENERATORS.items() if draw is cases.elementwise]

GENERATORS: dict[str, Generator] = {
    **{
        name: elementwise
        for name in cases.GENERATORS
        if cases.GENERATORS[name] is cases.elementwise
    },
    **dict.fromkeys(UNARY, elementwise),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "MeanVarianceNormalization"),
        along_an_axis,
    ),
    **{name: reduction for name in RECIPES if name.startswith("Reduce")},
    **dict.fromkeys(("ArgMax", "ArgMin"), arg),
    "Concat": concat,
    "PRelu": prelu,
    "TopK": top_k,
    "CumProd": cumulation,
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": einsum,
    "QLinearMatMul": quantized_product,
    "CastLike": cast_like,
    "Cast": cast,
    "BitCast": bit_cast,
}
