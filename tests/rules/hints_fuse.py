"""What random graphs for the rules that fuse and unfuse need to know beyond their patterns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

ORT_TYPES = ("float32", "float16")
FLOAT = ir.DataType.FLOAT.value


def own_type(draw: Draw) -> int:
    return int(ir.DataType.from_numpy(draw.dtype).value)


def row_size(draw: Draw) -> float:
    return float(draw.dim("d"))


def row_share(draw: Draw) -> float:
    return 1.0 / draw.dim("d")


def number(value: float) -> Callable[[Draw], np.ndarray]:
    return lambda draw: np.asarray(value, draw.dtype)


NORM: Hints = {
    "x": "T[a,b,d]",
    "given": [FLOAT],
    "late": [FLOAT],
    "var_given": [FLOAT],
    "var_type": own_type,
    "narrow": own_type,
    "eps": [1e-5, 1e-6, 1e-3],
    "count": row_size,
    "share": row_share,
    "scale": "T[d]",
    "bias": "T[d]",
    "dtypes": ORT_TYPES,
}
SKIP: Hints = {
    "a": "T[a,b,8]",
    "b": "T[a,b,8]",
    "scale": "T[8]",
    "beta": "T[8]",
    "bias": "T[8]",
    "eps": [1e-5, 1e-3],
    "dtypes": ORT_TYPES,
    "opset": (17, 18, 20),
}


def more(*texts: str) -> Callable[[Draw], list[ir.Value]]:
    """Return a hint: further inputs of an open pattern, the last one now and then."""

    def make(draw: Draw) -> list[ir.Value]:
        kept = texts if draw.rng.random() < 0.5 else texts[:1]
        return [draw.input(shape, dtype) for dtype, shape in (draw.typed(t, None) for t in kept)]

    return make


def epsilon(draw: Draw) -> Mapping[str, object]:
    return {"epsilon": float(draw.choose((1e-5, 1e-3))), "axis": -1}  # type: ignore[arg-type]


def maybe_tanh(draw: Draw) -> Mapping[str, object]:
    return {"approximate": "tanh"} if draw.rng.random() < 0.5 else {}


FUSE_HINTS: dict[str, Hints] = {
    "rms-normalization": NORM,
    "layer-normalization": NORM,
    "centred-rms-normalization": {**NORM, "stash": [FLOAT], "opset": (23,)},
    "scale-of-normalization": {
        "x": "T[a,b,d]",
        "ones": lambda draw: np.ones(draw.dim("d"), draw.dtype),
        "scale": "T[d]",
        "norm": epsilon,
        "opset": (23,),
        "dtypes": ORT_TYPES,
    },
    "axis-put-back": {
        "x": "T[2,3,4]",
        "axes": [(1,), (-2,)],
        "any": lambda draw: np.array([2, 1, 4]),
        "Unsqueeze+": lambda draw: [draw.constant(np.array([1]))],
    },
    "bias-of-layer-normalization": {**NORM, "norm": epsilon, "opset": (17, 18, 21)},
    "narrow-rms-normalization": {
        "x": "T[a,d]",
        "scale": "T[d]",
        "wide": [FLOAT],
        "narrow": own_type,
        "norm": epsilon,
        "dtypes": ("float16",),
        "opset": (23,),
    },
    "skip-layer-normalization": SKIP,
    "skip-simplified-layer-normalization": SKIP,
    "softmax": {"x": "T[a,b]", "axes": [(-1,), (0,)], "wide": [FLOAT], "narrow": own_type},
    "log-softmax": {"x": "T[a,b]", "axis": [-1, 0]},
    "swish": {"alpha": [1.702, 0.5], "dtypes": ORT_TYPES},
    "gelu-erf": {"dtypes": ORT_TYPES},
    "gelu-tanh": {"dtypes": ORT_TYPES},
    "softplus": {"dtypes": ("float32",)},
    "hard-swish": {"dtypes": ("float32",)},
    "mish": {"dtypes": ("float32",)},
    "unfuse-layer-normalization": {
        "any": "T[a,b,d]",
        "LayerNormalization+": more("T[d]", "T[d]"),
        "node": epsilon,
        "opset": (17, 18, 21),
        "dtypes": ORT_TYPES,
    },
    "unfuse-rms-normalization": {
        "any": "T[a,b,d]",
        "RMSNormalization+": more("T[d]"),
        "node": epsilon,
        "opset": (23,),
    },
    "unfuse-gelu": {"any": "T[a,b]", "node": maybe_tanh, "opset": (20, 21), "dtypes": ORT_TYPES},
    "unfuse-swish": {
        "any": "T[a,b]",
        "node": lambda draw: {"alpha": draw.choose((1.0, 1.702))},
        "opset": (24,),
        "dtypes": ORT_TYPES,
    },
    "unfuse-mish": {"any": "T[a,b]", "opset": (18, 21), "dtypes": ("float32",)},
    "unfuse-hard-swish": {"any": "T[a,b]", "opset": (14, 18), "dtypes": ("float32",)},
    "simplified-to-rms-normalization": {
        "x": "T[a,b,d]",
        "scale": "T[d]",
        "node": epsilon,
        "dtypes": ORT_TYPES,
    },
    "unfuse-simplified-layer-normalization": {
        "x": "T[a,b,d]",
        "scale": "T[d]",
        "node": epsilon,
        "dtypes": ORT_TYPES,
    },
    "unfuse-skip-layer-normalization": {**SKIP, "used": (0, 3)},
    "unfuse-skip-simplified-layer-normalization": {**SKIP, "used": (0, 3)},
    "unfuse-contrib-gelu": {"dtypes": ("float32",), "opset": (17, 18, 20, 21)},
    "unfuse-bias-gelu": {
        "x": "T[a,b]",
        "bias": "T[b]",
        "dtypes": ("float32",),
        "opset": (17, 18, 20, 21),
    },
    "unfuse-fast-gelu": {
        "x": "T[a,b]",
        "bias": "T[b]",
        "dtypes": ORT_TYPES,
        "opset": (17, 18, 20, 21),
    },
    "unfuse-quick-gelu": {"alpha": [1.0, 1.702], "dtypes": ORT_TYPES},
}
