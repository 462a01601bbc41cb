"""Normalisation over the last axis, in all its spellings, as one operator."""

from __future__ import annotations

import numpy as np
from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.rewrite import Declined, P, Pattern, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.spellings import ORT, mean, mean_of_squares, over_root, square
from vlmpass.rewriter_rules.simplify.known import FLOATS, dim, rank, same_shape

__all__ = ["NORMS"]

NOT_IN_FUNCTIONS = "ONNX Runtime crashes on its own {} in a function; run inline-functions first"
"""Seen with 1.31: loading dies where the operator is none of the standard's at that opset."""

WIDE = P.maybe.Cast("x", to="stash").named("wide")
"""What the statistics are computed of: x itself, or x in a wider type."""


def _source(
    x: Value, wide: Value, narrow: DataType | None, count: float | None, share: float | None
) -> Value | Declined:
    """Return the one operator's operand: x if its own type comes back at the end, else `wide`."""
    size = dim(x, -1)
    over = size if share is None or not isinstance(size, int) else 1 / size
    if over not in (count, share) and (count, share) != (None, None):
        return refuse("a sum over {} elements is scaled by {}", size, count or share)
    if wide.dtype not in FLOATS:
        return refuse("the element type of {} is {}", wide, wide.dtype or "not known")
    if narrow in (None, wide.dtype):
        return wide
    return x if narrow == x.dtype else refuse("{} comes out as {}", x.dtype, narrow)


def _per_element(vector: Value | None, source: Value) -> Declined | None:
    """Return why a value is not one number of the same type for each element of a row."""
    if vector is None:
        return None
    size = dim(vector, 0) if rank(vector) == 1 else None
    if size is None or size != dim(source, -1):
        return refuse("{} is not known to have one number for each element of a row", vector)
    if vector.dtype != source.dtype:
        return refuse("{} is {} and {} is {}", vector, vector.dtype, source, source.dtype)
    return None


def _normal(
    op: Tape,
    operator: str,
    source: Value | Declined,
    stash: DataType | None,
    eps: float,
    scale: Value | None,
    bias: Value | None = None,
) -> Replacement:
    """Build one normalisation, with a scale of ones where there is none."""
    if isinstance(source, Declined):
        return source
    unfit = _per_element(scale, source) or _per_element(bias, source)
    if unfit is not None:
        return unfit
    if scale is None:
        size = dim(source, -1)
        if not isinstance(size, int) or source.dtype is None:
            return refuse("the size of a row of {} is not known", source)
        scale = op.const(np.ones(size, source.dtype.numpy()), name="ones")
    attributes = {"axis": -1, "epsilon": eps, "stash_type": stash}
    return op.node(operator, [source, scale, bias], attributes)[0]


def _scaled(normal: Pattern) -> Pattern:
    narrowed = P.maybe.Cast(normal, to="narrow")
    return P.Mul(narrowed, "scale") | narrowed


@rule(
    _scaled(over_root(WIDE, mean_of_squares(WIDE) + P("eps"))),
    opset=(23, None),
    or_emits=ORT,
)
def rms_normalization(
    op: Tape,
    x: Value,
    wide: Value,
    stash: DataType | None,
    count: float | None,
    share: float | None,
    eps: float,
    narrow: DataType | None,
    scale: Value | None,
) -> Replacement:
    """x / sqrt(mean(x * x) + eps) * scale -> RMSNormalization(x, scale)."""
    operator = "SimplifiedLayerNormalization" if ORT in op.emits else "RMSNormalization"
    if op.in_function and op.opsets[""] < 23:
        return refuse(NOT_IN_FUNCTIONS, operator)
    operator = "RMSNormalization" if op.in_function else operator
    source = _source(x, wide, narrow, count, share)
    return _normal(op, operator, source, wide.dtype, eps, scale)


CENTRED = P.Sub(WIDE, mean(WIDE))
STANDARD = _scaled(over_root(CENTRED, mean(square(CENTRED)) + P("eps")))


@rule(P.Add(STANDARD, "bias") | STANDARD, opset=(17, None), or_emits=ORT)
def layer_normalization(
    op: Tape,
    x: Value,
    wide: Value,
    stash: DataType | None,
    count: float | None,
    share: float | None,
    eps: float,
    narrow: DataType | None,
    scale: Value | None,
    bias: Value | None,
) -> Replacement:
    """(x - mean(x)) / sqrt(var(x) + eps) * scale + bias -> LayerNormalization(x, scale, bias)."""
    if op.in_function and op.opsets[""] < 17:
        return refuse(NOT_IN_FUNCTIONS, "LayerNormalization")
    source = _source(x, wide, narrow, count, share)
    return _normal(op, "LayerNormalization", source, wide.dtype, eps, scale, bias)


@rule(P.Add(P.LayerNormalization("x", "scale", _node="norm"), "bias"))
def bias_of_layer_normalization(
    op: Tape, x: Value, scale: Value, norm: Node, bias: Value
) -> Replacement:
    """LayerNormalization(x, scale) + bias -> LayerNormalization(x, scale, bias)."""
    unfit = _per_element(bias, x)
    return unfit or op.node("LayerNormalization", [x, scale, bias], norm.attributes)[0]


RMS = P.RMSNormalization | P.SimplifiedLayerNormalization
GAIN = P.Cast("scale", to="wide")


@rule(P.Cast(RMS(P.Cast("x", to="wide").shared, GAIN.shared, _node="norm"), to="narrow"))
def narrow_rms_normalization(
    op: Tape, x: Value, scale: Value, norm: Node, wide: DataType, narrow: DataType
) -> Replacement:
    """Cast(RMSNormalization(Cast(x), Cast(s))) -> RMSNormalization(x, s), rounded before s."""
    if not narrow == x.dtype == scale.dtype:
        return refuse("{} and {} come out as {}", x.dtype, scale.dtype, narrow)
    kept = {**norm.attributes, "stash_type": wide}
    return op.node(norm.op_type, [x, scale], kept)[0]


SUM = P.Add("a", "b")


def _addable(a: Value, b: Value) -> Declined | None:
    if not same_shape(a, b) or rank(a) not in (2, 3):
        return refuse("{} and {} are not known to have one shape of 2 or 3 axes", a, b)
    return None


@rule(
    P.LayerNormalization(SUM, "scale", "bias?", axis=-1, epsilon="eps", stash_type=1),
    SUM,
    emits=ORT,
    dtypes={"a": [DataType.FLOAT, DataType.FLOAT16]},
)
def skip_layer_normalization(
    op: Tape, a: Value, b: Value, scale: Value, bias: Value | None, eps: float
) -> Replacement:
    """LayerNormalization(a + b, scale, bias), a + b -> SkipLayerNormalization(a, b, ...)."""
    inputs = [a, b, scale, bias]
    results = op.node("SkipLayerNormalization", inputs, {"epsilon": eps}, domain=ORT, outputs=4)
    return _addable(a, b) or (results[0], results[3])


@rule(
    P.SimplifiedLayerNormalization(SUM, "scale", axis=-1, epsilon="eps", stash_type=1),
    SUM,
    emits=ORT,
    dtypes={"a": [DataType.FLOAT, DataType.FLOAT16]},
)
def skip_simplified_layer_normalization(
    op: Tape, a: Value, b: Value, scale: Value, eps: float
) -> Replacement:
    """SimplifiedLayerNormalization(a + b, s), a + b -> SkipSimplifiedLayerNormalization."""
    results = op.node(
        "SkipSimplifiedLayerNormalization",
        [a, b, scale],
        {"epsilon": eps},
        domain=ORT,
        outputs=4,
    )
    return _addable(a, b) or (results[0], results[3])


# What is centred first is no root mean square of itself: the longer spelling comes first.
NORMS = (
    layer_normalization
    + rms_normalization
    + bias_of_layer_normalization
    + narrow_rms_normalization
    + skip_layer_normalization
    + skip_simplified_layer_normalization
)
