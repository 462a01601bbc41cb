"""Normalisation over the last axis, in all its spellings, as one operator."""

from __future__ import annotations

import numpy as np
from onnx_ir import DataType, Node, TensorProtocol, Value

from vlmpass.ir_tools.rewrite import (
    Declined,
    FloatAttr,
    P,
    Pattern,
    Replacement,
    Tape,
    refuse,
    rule,
)
from vlmpass.rewriter_rules.fuse.spellings import (
    NOT_IN_FUNCTIONS,
    ORT,
    mean,
    mean_of_squares,
    over_root,
    square,
)
from vlmpass.rewriter_rules.simplify.known import FLOATS, dim, rank, same_shape

__all__ = ["NORMS"]

WIDE = P.maybe.Cast("x", to="given").named("wide")
"""What the statistics are computed of: x itself, or x in a wider type."""


NARROW = (DataType.FLOAT16, DataType.BFLOAT16)


def _root(x: Pattern, mean_square: Pattern) -> Pattern:
    """Match x / sqrt(mean_square + eps); an eps that rounds to 0 may have been dropped."""
    return over_root(x, mean_square + P("eps") | mean_square)


def _source(
    op: Tape,
    x: Value,
    wide: Value,
    narrow: DataType | None,
    count: float | None,
    share: float | None,
) -> Value | Declined:
    """Return the one operator's operand: x if its own type comes back at the end, else `wide`.

    Args:
        op: The tape.
        x: What is normalised.
        wide: It, in the type of its mean.
        narrow: The type that comes out, None for that of `wide`.
        count: What a sum is divided by in place of a mean.
        share: What a sum is multiplied by.
    """
    size = dim(op, x, -1)
    over = size if share is None or not isinstance(size, int) else 1 / size
    if over not in (count, share) and (count, share) != (None, None):
        return refuse("a sum over {} elements is scaled by {}", size, count or share)
    if wide.dtype not in FLOATS:
        return refuse("the element type of {} is {}", wide, wide.dtype or "not known")
    if narrow in (None, wide.dtype):
        return x if x.dtype == wide.dtype else wide  # a Cast to the same type is none
    return x if narrow == x.dtype else refuse("{} comes out as {}", x.dtype, narrow)


def _per_element(op: Tape, vector: Value | None, source: Value) -> Declined | None:
    """Return why a value is not one number of the same type for each element of a row."""
    if vector is None:
        return None
    size = dim(op, vector, 0) if rank(vector) == 1 else None
    if size is None or size != dim(op, source, -1):
        return refuse("{} is not known to have one number for each element of a row", vector)
    if vector.dtype != source.dtype:
        return refuse("{} is {} and {} is {}", vector, vector.dtype, source, source.dtype)
    return None


def _normal(
    op: Tape,
    operator: str,
    source: Value | Declined,
    stash: DataType | None,
    eps: FloatAttr | None,
    scale: Value | None,
    bias: Value | None = None,
) -> Replacement:
    """Build one normalisation, with a scale of ones where there is none.

    The statistics of a half are computed in float32 at most: the operator has no wider ones.
    """
    if isinstance(source, Declined):
        return source
    unfit = _per_element(op, scale, source) or _per_element(op, bias, source)
    if unfit is not None:
        return unfit
    if stash == DataType.DOUBLE and source.dtype in NARROW:
        stash = DataType.FLOAT
    if scale is None:
        size = dim(op, source, -1)
        if not isinstance(size, int) or source.dtype is None:
            return refuse("the size of a row of {} is not known", source)
        scale = op.const(np.ones(size, source.dtype.numpy()), name="ones")
    attributes = {"axis": -1, "epsilon": 0.0 if eps is None else eps, "stash_type": stash}
    return op.node(operator, [source, scale, bias], attributes)[0]


def _scaled(normal: Pattern) -> Pattern:
    narrowed = P.maybe.Cast(normal, to="narrow")
    return P.Mul(narrowed, "scale") | narrowed


@rule(
    _scaled(_root(WIDE, mean_of_squares(WIDE))),
    opset=(23, None),
    or_emits=ORT,
)
def rms_normalization(
    op: Tape,
    x: Value,
    wide: Value,
    given: DataType | None,
    count: float | None,
    share: float | None,
    eps: FloatAttr | None,
    narrow: DataType | None,
    scale: Value | None,
) -> Replacement:
    """x / sqrt(mean(x * x) + eps) * scale -> RMSNormalization(x, scale)."""
    older = op.opsets[""] < 23  # ONNX Runtime has the standard one too, and is as fast with it
    operator = "SimplifiedLayerNormalization" if older else "RMSNormalization"
    if op.in_function and older:
        return refuse(NOT_IN_FUNCTIONS, operator)
    source = _source(op, x, wide, narrow, count, share)
    return _normal(op, operator, source, wide.dtype, eps, scale)


CENTRED = P.maybe.Cast(P.Sub(WIDE, mean(WIDE)), to="late")
"""What is around its mean, which may be widened only afterwards."""

# torch.var computes a mean of its own, in float32, and rounds the variance.
VAR_WIDE = P.maybe.Cast("x", to="var_given")
VAR = P.maybe.Cast(mean(square(P.Sub(VAR_WIDE, mean(VAR_WIDE)))), to="var_type")
VARIANCE = mean(square(CENTRED)) | VAR
STANDARD = _scaled(_root(CENTRED, VARIANCE))


@rule(P.Add(STANDARD, "bias") | STANDARD, opset=(17, None), or_emits=ORT)
def layer_normalization(
    op: Tape,
    x: Value,
    wide: Value,
    given: DataType | None,
    late: DataType | None,
    var_given: DataType | None,
    var_type: DataType | None,
    count: float | None,
    share: float | None,
    eps: FloatAttr | None,
    narrow: DataType | None,
    scale: Value | None,
    bias: Value | None,
) -> Replacement:
    """(x - mean(x)) / sqrt(var(x) + eps) * scale + bias -> LayerNormalization(x, scale, bias)."""
    if op.in_function and op.opsets[""] < 17:
        return refuse(NOT_IN_FUNCTIONS, "LayerNormalization")
    source = _source(op, x, wide, narrow or late, count, share)
    return _normal(op, "LayerNormalization", source, late or wide.dtype, eps, scale, bias)


@rule(P.Add(P.LayerNormalization("x", "scale", _node="norm"), "bias"))
def bias_of_layer_normalization(
    op: Tape, x: Value, scale: Value, norm: Node, bias: Value
) -> Replacement:
    """LayerNormalization(x, scale) + bias -> LayerNormalization(x, scale, bias)."""
    unfit = _per_element(op, bias, x)
    return unfit or op.node("LayerNormalization", [x, scale, bias], norm.attributes)[0]


@rule(P.SimplifiedLayerNormalization("x", "scale", _node="node"), opset=(23, None))
def simplified_to_rms_normalization(op: Tape, x: Value, scale: Value, node: Node) -> Replacement:
    """SimplifiedLayerNormalization(x, s) -> RMSNormalization(x, s)."""
    if x.dtype != scale.dtype or x.dtype is None:
        return refuse("{} is {} and {} is {}", x, x.dtype, scale, scale.dtype)
    return op.node("RMSNormalization", [x, scale], node.attributes)[0]


RMS = P.RMSNormalization | P.SimplifiedLayerNormalization
NORM = P.LayerNormalization | RMS
VECTOR = 1 << 20
"""No row is longer; a longer constant is not read to see whether it is all ones."""


@rule(P.Mul(NORM("x", "ones", _node="norm").shared, "scale"))
def scale_of_normalization(
    op: Tape, x: Value, ones: TensorProtocol, norm: Node, scale: Value
) -> Replacement:
    """LayerNormalization(x, 1) * scale -> LayerNormalization(x, scale); RMSNormalization too."""
    if ones.size > VECTOR or not bool((ones.numpy() == 1).all()):
        return refuse("it is scaled already")
    normal = norm.outputs[0]
    if normal.is_graph_output():
        return refuse("{} inside the match is an output of the graph", normal)
    unfit = next(filter(None, (_used_else(op, normal, *use, x) for use in normal.uses())), None)
    return unfit or op.node(norm.op_type, [x, scale], norm.attributes)[0]


def _used_else(op: Tape, normal: Value, user: Node, at: int, x: Value) -> Declined | None:
    """Return why a user of what is normalised may not take it scaled in its place."""
    factor = user.inputs[1 - at] if user.op_type == "Mul" else None
    if factor is None:
        return refuse("{} is also used by {} ({})", normal, user, user.op_type)
    return _per_element(op, factor, x)


@rule(
    RMS(CENTRED, "scale", axis=-1, epsilon="eps", stash_type="stash"),
    opset=(17, None),
)
def centred_rms_normalization(
    op: Tape,
    x: Value,
    wide: Value,
    given: DataType | None,
    stash: DataType,
    late: DataType | None,
    count: float | None,
    share: float | None,
    eps: FloatAttr,
    scale: Value,
) -> Replacement:
    """RMSNormalization(x - mean(x), scale) -> LayerNormalization(x, scale)."""
    source = _source(op, x, wide, late, count, share)
    return _normal(op, "LayerNormalization", source, stash, eps, scale)


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
    op: Tape, a: Value, b: Value, scale: Value, bias: Value | None, eps: FloatAttr
) -> Replacement:
    """LayerNormalization(a + b, scale, bias), a + b -> SkipLayerNormalization(a, b, ...)."""
    inputs = [a, b, scale, bias]
    results = op.node("SkipLayerNormalization", inputs, {"epsilon": eps}, domain=ORT, outputs=4)
    return _addable(a, b) or (results[0], results[3])


@rule(
    RMS(SUM, "scale", axis=-1, epsilon="eps", stash_type=1),
    SUM,
    emits=ORT,
    dtypes={"a": [DataType.FLOAT, DataType.FLOAT16]},
)
def skip_simplified_layer_normalization(
    op: Tape, a: Value, b: Value, scale: Value, eps: FloatAttr
) -> Replacement:
    """RMSNormalization(a + b, s), a + b -> SkipSimplifiedLayerNormalization."""
    results = op.node(
        "SkipSimplifiedLayerNormalization",
        [a, b, scale],
        {"epsilon": eps},
        domain=ORT,
        outputs=4,
    )
    return _addable(a, b) or _per_element(op, scale, a) or (results[0], results[3])


# What is centred first is no root mean square of itself: the longer spelling comes first.
NORMS = (
    simplified_to_rms_normalization
    + layer_normalization
    + rms_normalization
    + centred_rms_normalization
    + scale_of_normalization
    + bias_of_layer_normalization
    + narrow_rms_normalization
    + skip_layer_normalization
    + skip_simplified_layer_normalization
)
