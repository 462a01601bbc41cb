"""Rules that restore rounded numbers: hints for random graphs, and what they do to a few."""

from __future__ import annotations

import math

import numpy as np

from rules.hints import more
from rules.instances import Draw, Hints
from vlmpass.rewriter_rules.restore import RESTORE

ROUNDING = {rule.name: 4e-3 for rule in RESTORE}
"""How much of a result these rules change, as what they read was rounded to a half."""


def half(number: float) -> np.ndarray:
    return np.asarray(number, np.float16)


def root(draw: Draw) -> np.ndarray:
    return half(8.0 ** float(draw.choose((0.5, -0.5, 0.25, -0.25))))  # type: ignore[arg-type]


def bent(draw: Draw) -> np.ndarray:
    return half(0.044715)


def sloped(draw: Draw) -> np.ndarray:
    return half(math.sqrt(2 / math.pi))


RESTORE_HINTS: dict[str, Hints] = {
    "restore-erf-scale": {
        "c": lambda draw: half(math.sqrt(draw.choose((2, 0.5)))),  # type: ignore[arg-type]
        "dtypes": ("float32",),
    },
    "restore-gelu-tanh": {"c": bent, "slope": sloped, "dtypes": ("float32",)},
    "restore-gelu-tanh-of-product": {"c": bent, "slope": sloped, "dtypes": ("float32",)},
    "restore-quick-gelu": {"c": lambda draw: half(1.702), "dtypes": ("float32",)},
    "restore-root-of-size": {"x": "T[a,b,8]", "c": root, "dtypes": ("float32",)},
    "restore-epsilon": {
        "any": "T[a,b,4]",
        "ReduceMean+": more([-1]),
        "Cast()": lambda draw: {"to": 1},
        "c": lambda draw: half(1e-5),
        "dtypes": ("float32",),
    },
}
