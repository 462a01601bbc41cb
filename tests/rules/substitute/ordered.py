"""Rules of substitute.ordered: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

_TYPES = ("float32", "float64", "int32", "int64")


def along(draw: Draw) -> Mapping[str, object]:
    return {"axis": int(draw.rng.integers(-2, 2)), "keepdims": int(draw.rng.integers(2))}


def smallest(draw: Draw) -> Mapping[str, object]:
    return {"axis": int(draw.rng.integers(-2, 2))}


def one(draw: Draw) -> list[ir.Value]:
    return [draw.constant(np.array([1], np.int64))]


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "last-index-to-reversed": [
        (
            "(int64[2,n] x) => (int64[2] y)",
            "y = ArgMax<axis=-1, keepdims=0, select_last_index=1>(x)",
            "",
        ),
        ("(float[2,n] x) => (int64[1,n] y)", "y = ArgMin<axis=0, select_last_index=1>(x)", ""),
    ],
    "arg-extreme-to-topk": [
        (
            "(float[2,n] x) => (int64[2,1] y)",
            "y = ArgMax<axis=1>(x)",
            "",
        ),
        (
            "(int64[2,n] x) => (int64[2,1] y)",
            "y = ArgMax<axis=1>(x)",
            "k = Constant<value_ints=[1]>() v, y = TopK<axis=1, largest=1>(x, k)",
        ),
    ],
    "smallest-to-largest": [
        (
            "(float[2,n] x) => (float[2,1] v, int64[2,1] y)",
            "k = Constant<value_ints=[1]>() v, y = TopK<axis=1, largest=0>(x, k)",
            """n = IsNaN(x) i = Constant<value_float=inf>() c = Where(n, i, x)
            k = Constant<value_ints=[1]>() a = Neg(c) b, y = TopK<axis=1, largest=1>(a, k)
            v = GatherElements<axis=1>(x, y)""",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "last-index-to-reversed": [
        ("(x) => (y)", "y = ArgMax<axis=-1, select_last_index=1>(x)", "rank"),
    ],
    "arg-extreme-to-topk": [
        (
            "(float[2,n] x) => (int64[2,1] y)",
            "y = ArgMax<axis=1, select_last_index=1>(x)",
            "the last of equal elements is wanted",
        )
    ],
    "smallest-to-largest": [
        (
            "(int64[2,n] x) => (int64[2,1] v, int64[2,1] y)",
            "k = Constant<value_ints=[1]>() v, y = TopK<axis=1, largest=0>(x, k)",
            "no negative",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "last-index-to-reversed": {"any": "T[a,b]", "node": along, "dtypes": _TYPES},
    "arg-extreme-to-topk": {"any": "T[a,b]", "node": along, "dtypes": _TYPES},
    "smallest-to-largest": {
        "any": "T[a,b]",
        "TopK+": one,
        "node": smallest,
        "dtypes": ("float32", "float64"),
    },
}
