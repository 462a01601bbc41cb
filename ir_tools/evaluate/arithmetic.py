"""Numpy kernels of the operators that compute element by element or along one axis.

Every kernel is exact, or correctly rounded where the runtime is within 1 ulp of that. Log, Sin,
Cos, Tanh and the like are not here: runtimes are several ulps off, so folding them would show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.weights.arrays import AnyArray

__all__ = ["KERNELS", "Array", "Inputs", "Kernel", "has_negative_zero", "is_float", "ordered"]

Array = AnyArray
Inputs = Sequence["Array | None"]
Kernel = Callable[[ir.Node, list[Array]], "Array | None"]


def is_float(array: Array) -> bool:
    """Whether an array holds floating-point numbers, the small types of ml_dtypes included."""
    return array.dtype.kind == "f" or ir.DataType.from_numpy(array.dtype).is_floating_point()


def _ufunc(compute: Callable[..., Array]) -> Kernel:
    def kernel(node: ir.Node, inputs: list[Array]) -> Array | None:
        return compute(*inputs)

    return kernel


def _rounded(compute: Callable[..., Array]) -> Kernel:
    """Compute one type wider, so that the result is correctly rounded."""

    def kernel(node: ir.Node, inputs: list[Array]) -> Array | None:
        dtype = inputs[0].dtype
        if any(array.dtype != dtype for array in inputs) or not is_float(inputs[0]):
            return None
        return compute(*(array.astype(np.float64) for array in inputs)).astype(dtype)

    return kernel


def has_negative_zero(array: Array) -> bool:
    """Whether an array holds a -0, which runtimes keep or lose where the standard is silent."""
    return is_float(array) and bool((np.signbit(array) & (array == 0)).any())


def ordered(arrays: Sequence[Array]) -> bool:
    """Whether the larger of any two numbers is the same everywhere: no NaN, zeros of one sign."""
    floats = [array for array in arrays if is_float(array)]
    if any(np.isnan(array).any() for array in floats):
        return False
    signs = [np.signbit(array)[array == 0] for array in floats]
    return len(np.unique(np.concatenate(signs))) <= 1 if signs else True


def _div(node: ir.Node, inputs: list[Array]) -> Array | None:
    a, b = inputs
    if is_float(a):
        return np.divide(a, b)
    if not b.all() or (a.dtype.kind == "i" and (a == np.iinfo(a.dtype).min).any()):
        return None
    quotient = np.floor_divide(a, b)
    if a.dtype.kind == "u":
        return quotient
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype))


def _mod(node: ir.Node, inputs: list[Array]) -> Array | None:
    a, b = inputs
    if is_float(a):
        return np.fmod(a, b) if node.attributes.get_int("fmod", 0) else None
    if not b.all():
        return None
    return np.fmod(a, b) if node.attributes.get_int("fmod", 0) else np.mod(a, b)


def _pow(node: ir.Node, inputs: list[Array]) -> Array | None:
    base, exponent = inputs
    if is_float(base):
        if base.dtype == np.float64:
            return np.power(base, exponent.astype(np.float64))
        return np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(base.dtype)
    if is_float(exponent) or (exponent < 0).any():
        return None
    exact = np.asarray(np.power(base.astype(object), exponent.astype(object)), object)
    if exact.size and max(abs(int(item)) for item in np.ravel(exact)) > 2**53:
        return None  # runtimes go through double
    return exact.astype(base.dtype)


def _bit_shift(node: ir.Node, inputs: list[Array]) -> Array | None:
    a, b = inputs
    if (b >= a.dtype.itemsize * 8).any():
        return None
    left = node.attributes.get_string("direction") == "LEFT"
    return np.left_shift(a, b) if left else np.right_shift(a, b)


def _relu(node: ir.Node, inputs: list[Array]) -> Array | None:
    (array,) = inputs
    if has_negative_zero(array) or not ordered(inputs):
        return None
    return np.maximum(array, np.zeros((), array.dtype))


def _sign(node: ir.Node, inputs: list[Array]) -> Array | None:
    (array,) = inputs
    if is_float(array) and (np.isnan(array).any() or has_negative_zero(array)):
        return None
    return np.sign(array)


def _variadic(compute: Callable[[Array, Array], Array], *, exact: bool) -> Kernel:
    def kernel(node: ir.Node, inputs: list[Array]) -> Array | None:
        if is_float(inputs[0]):
            if not exact and (len(inputs) > 2 or any(map(has_negative_zero, inputs))):
                return None
            if exact and not ordered(inputs):
                return None
        total = inputs[0]
        for array in inputs[1:]:
            total = compute(total, array)
        return total

    return kernel


def _axes(node: ir.Node, inputs: list[Array], rank: int) -> tuple[int, ...] | None:
    """Return the axes of a reduction; None if there is nothing to reduce."""
    given = inputs[1].tolist() if len(inputs) > 1 else node.attributes.get_ints("axes")
    noop: int = node.attributes.get_int("noop_with_empty_axes", 0)
    if not given and noop:
        return None
    return tuple(range(rank)[axis] for axis in given) if given else tuple(range(rank))


def _extreme(compute: Callable[..., Array]) -> Kernel:
    """Choose the largest or smallest along axes."""

    def kernel(node: ir.Node, inputs: list[Array]) -> Array | None:
        data = inputs[0]
        if data.size == 0 or not ordered([data]):
            return None
        axes = _axes(node, inputs, data.ndim)
        if axes is None:
            return data
        keep = node.attributes.get_int("keepdims", 1) == 1
        return np.asarray(compute(data, axis=axes, keepdims=keep)).astype(data.dtype)

    return kernel


def _reduce(compute: Callable[..., Array]) -> Kernel:
    """Reduce integers, which is exact in any order and by way of doubles if it fits these."""

    def kernel(node: ir.Node, inputs: list[Array]) -> Array | None:
        data = inputs[0]
        if data.size == 0 or is_float(data):
            return None
        axes = _axes(node, inputs, data.ndim)
        if axes is None:
            return data
        size = compute(np.maximum(np.abs(data.astype(np.float64)), 1), axis=axes)
        if size.size and size.max() > min(2.0**53, float(np.iinfo(data.dtype).max)):
            return None
        keep = node.attributes.get_int("keepdims", 1) == 1
        return np.asarray(compute(data, axis=axes, keepdims=keep)).astype(data.dtype)

    return kernel


def _arg(compute: Callable[..., Array]) -> Kernel:
    def kernel(node: ir.Node, inputs: list[Array]) -> Array | None:
        (data,) = inputs
        if data.size == 0 or not data.ndim or (is_float(data) and np.isnan(data).any()):
            return None
        axis = node.attributes.get_int("axis", 0)
        if node.attributes.get_int("select_last_index", 0):
            last = compute(np.flip(data, axis), axis=axis)
            found = data.shape[axis] - 1 - last
        else:
            found = compute(data, axis=axis)
        keep = node.attributes.get_int("keepdims", 1) == 1
        return np.expand_dims(found, axis) if keep else np.asarray(found)

    return kernel


def _cum_sum(node: ir.Node, inputs: list[Array]) -> Array | None:
    data, where = inputs
    if is_float(data):
        return None
    axis = int(where.reshape(()))
    reverse = node.attributes.get_int("reverse", 0)
    data = np.flip(data, axis) if reverse else data
    total = np.cumsum(data, axis, dtype=data.dtype)
    if node.attributes.get_int("exclusive", 0):
        total = total - data
    return np.flip(total, axis) if reverse else total


def _range(node: ir.Node, inputs: list[Array]) -> Array | None:
    if any(array.ndim for array in inputs):
        return None
    start, limit, delta = (array.item() for array in inputs)
    dtype = inputs[0].dtype
    if delta == 0 or not all(math.isfinite(number) for number in (start, limit, delta)):
        return None
    count = max(0, math.ceil((limit - start) / delta))
    last = start + count * delta
    whole = all(float(number).is_integer() for number in (start, delta))
    if not whole or (is_float(inputs[0]) and max(abs(start), abs(last)) > 2**11):
        return None  # sums of fractions depend on how they are made
    return (np.arange(count) * int(delta) + int(start)).astype(dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])

KERNELS: dict[str, Kernel] = {
    "Add": _ufunc(np.add),
    "Sub": _ufunc(np.subtract),
    "Mul": _ufunc(np.multiply),
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Neg": _ufunc(np.negative),
    "Abs": _ufunc(np.abs),
    "Sign": _sign,
    "Floor": _ufunc(np.floor),
    "Ceil": _ufunc(np.ceil),
    "Round": _ufunc(np.rint),
    "Sqrt": _rounded(np.sqrt),
    "Exp": _rounded(np.exp),
    "Erf": _rounded(_erf),
    "Reciprocal": _ufunc(lambda array: np.divide(np.ones((), array.dtype), array)),
    "Relu": _relu,
    "Sum": _variadic(np.add, exact=False),
    "Max": _variadic(np.maximum, exact=True),
    "Min": _variadic(np.minimum, exact=True),
    "Equal": _ufunc(np.equal),
    "Less": _ufunc(np.less),
    "Greater": _ufunc(np.greater),
    "LessOrEqual": _ufunc(np.less_equal),
    "GreaterOrEqual": _ufunc(np.greater_equal),
    "And": _ufunc(np.logical_and),
    "Or": _ufunc(np.logical_or),
    "Xor": _ufunc(np.logical_xor),
    "Not": _ufunc(np.logical_not),
    "BitwiseAnd": _ufunc(np.bitwise_and),
    "BitwiseOr": _ufunc(np.bitwise_or),
    "BitwiseXor": _ufunc(np.bitwise_xor),
    "BitwiseNot": _ufunc(np.bitwise_not),
    "BitShift": _bit_shift,
    "IsNaN": _ufunc(np.isnan),
    "Range": _range,
    "CumSum": _cum_sum,
    "ReduceSum": _reduce(np.sum),
    "ReduceProd": _reduce(np.prod),
    "ReduceMax": _extreme(np.max),
    "ReduceMin": _extreme(np.min),
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
}
