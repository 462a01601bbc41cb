"""One generator of cases for every operator that is folded, those of structure aside."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from tests.evaluate.differential.draw import Case, Draw, element_type

__all__ = ["GENERATORS", "Generator", "wild"]

Generator = Callable[[Draw, str], Case]
I64 = ir.DataType.INT64


def elementwise(draw: Draw, op_type: str) -> Case:
    """Draw operands that broadcast; the schema says how many and which types agree."""
    opset = draw.opset(op_type)
    formals = draw.formals(op_type, opset)
    if formals[-1].variadic:
        formals = formals[:1] * draw.integer(1, 4)
    whole = draw.shape()
    bound: dict[str, ir.DataType] = {}
    inputs: list[np.ndarray | None] = []
    for formal in formals:
        dtype = bound.setdefault(formal.parameter, draw.dtype(formal))
        shape = draw.narrowed(whole) if len(formals) > 1 else whole
        inputs.append(draw.array(shape, dtype))
    return Case(op_type, opset, inputs, _attributes(draw, op_type, inputs))


def _attributes(draw: Draw, op_type: str, inputs: list[np.ndarray | None]) -> dict[str, object]:
    if op_type == "BitShift":
        assert inputs[1] is not None
        inputs[1] = inputs[1] % 70 if draw.chance(0.3) else inputs[1] % 7
        return {"direction": draw.among(["LEFT", "RIGHT"])}
    if op_type == "Mod":
        floats = inputs[0] is not None and inputs[0].dtype.kind not in "iu"
        return {"fmod": 1} if draw.chance(0.9 if floats else 0.4) else {}
    return {}


def power(draw: Draw, op_type: str) -> Case:
    case = elementwise(draw, op_type)
    exponent = case.inputs[1]
    if exponent is not None and draw.chance(0.6):
        small = draw.rng.integers(0, 4, exponent.shape)
        case.inputs[1] = np.asarray(small).astype(exponent.dtype)
    return case


def division(draw: Draw, op_type: str) -> Case:
    case = elementwise(draw, op_type)
    divisor = case.inputs[1]
    if divisor is not None and draw.chance(0.7):
        case.inputs[1] = np.where(divisor == 0, np.ones((), divisor.dtype), divisor)
    return case


def range_(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    dtype = draw.dtype(draw.formals(op_type, opset)[0])
    step = draw.among([1, 1, 2, 3, -1, -2, 7, 0])
    start, span = draw.integer(-20, 20), draw.integer(-3, 12)
    numbers = [start, start + span * step + draw.integer(-1, 1), step]
    if dtype.is_floating_point() and draw.chance(0.4):
        numbers = [number + draw.among([0, 0.5, 0.1, 0.25]) for number in numbers]
    if draw.chance(0.1):
        numbers[draw.integer(0, 1)] = draw.among([1, -1]) * 2**31 - 1
        numbers[2] = draw.among([1, -1]) * 2**28
    if dtype.is_floating_point() and draw.chance(0.1):
        numbers[draw.integer(0, 2)] = draw.among([np.nan, np.inf, -np.inf])
    with np.errstate(all="ignore"):
        inputs = [np.array(number).astype(dtype.numpy()) for number in numbers]
    return Case(op_type, opset, [*inputs])


def cumsum(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, opset)[0]))
    axis = np.array(draw.axis(data.ndim), draw.among([np.int64, np.int32]))
    flags = {name: 1 for name in ("exclusive", "reverse") if draw.chance(0.4)}
    return Case(op_type, opset, [data, axis], {**flags})


def reduction(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    formals = draw.formals(op_type, opset)
    data = draw.array(draw.shape(), draw.dtype(formals[0]))
    attributes: dict[str, object] = {}
    if draw.chance(0.5):
        attributes["keepdims"] = draw.integer(0, 1)
    inputs: list[np.ndarray | None] = [data]
    axes = draw.axes(data.ndim)
    if len(formals) > 1:
        if draw.chance(0.75):
            inputs.append(np.array(axes, np.int64))
        if draw.chance(0.4):
            attributes["noop_with_empty_axes"] = draw.integer(0, 1)
    elif draw.chance(0.75) and axes:
        attributes["axes"] = axes
    return Case(op_type, opset, inputs, attributes)


def arg(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(), draw.dtype(draw.formals(op_type, opset)[0]))
    attributes: dict[str, object] = {"axis": draw.axis(data.ndim)} if draw.chance(0.8) else {}
    if draw.chance(0.5):
        attributes["keepdims"] = draw.integer(0, 1)
    if opset >= 12 and draw.chance(0.4):
        attributes["select_last_index"] = 1
    return Case(op_type, opset, [data], attributes)


def clip(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(), draw.dtype(draw.formals(op_type, opset)[0]))
    if opset < 11:
        bounds = {name: float(draw.integer(-3, 3)) for name in ("min", "max") if draw.chance(0.7)}
        return Case(op_type, opset, [data], {**bounds})
    dtype = element_type(data)
    low, high = (draw.array((), dtype) if draw.chance(0.75) else None for _ in range(2))
    return Case(op_type, opset, _without_tail([data, low, high]))


def _without_tail(inputs: list[np.ndarray | None]) -> list[np.ndarray | None]:
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    return inputs


def cast(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    formals = draw.formals(op_type, opset)
    data = draw.array(draw.shape(), draw.dtype(formals[0], common=0.6))
    target = draw.dtype(formals[0], common=0.6)  # outputs admit what inputs do
    attributes: dict[str, object] = {"to": int(target)}
    if opset >= 19 and draw.chance(0.3):
        attributes["saturate"] = draw.integer(0, 1)
    return Case(op_type, opset, [data], attributes)


def wild(draw: Draw, case: Case) -> Case:
    """Change the shape or the type of one input, which may make the node invalid."""
    given = [index for index, array in enumerate(case.inputs) if array is not None]
    if not given:
        return case
    index = draw.among(given)
    array = case.inputs[index]
    assert array is not None
    kind = draw.integer(0, 3)
    if kind == 0:
        array = array[None]
    elif kind == 1 and array.ndim:
        array = array.reshape(-1)
    elif kind == 2 and array.ndim and array.shape[0]:
        array = array[:1]
    elif array.dtype == np.int64:
        array = array.astype(np.int32)
    case.inputs[index] = array
    case.wild = True
    return case


_ELEMENTWISE = re.findall(
    r"\w+",
    """Add Sub Mul Neg Abs Sign Floor Ceil Round Sqrt Exp Erf Reciprocal Relu Sum Max Min Equal Less
    Greater LessOrEqual GreaterOrEqual And Or Xor Not BitwiseAnd BitwiseOr BitwiseXor BitwiseNot
    BitShift IsNaN Identity Size NonZero Where""",
)
GENERATORS: dict[str, Generator] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(("Div", "Mod"), division),
    **dict.fromkeys(("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin"), reduction),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg),
    "Pow": power,
    "Range": range_,
    "CumSum": cumsum,
    "Clip": clip,
    "Cast": cast,
}
