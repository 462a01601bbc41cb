"""Rules of fuse.attention.grouped_queries: what they do, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

CACHED = """(float[1,1,32] q, float[1,2,1,8] k, float[1,2,1,8] v, float[1,2,3,8] pk,
    float[1,2,3,8] pv) => (float[1,1,32] y, float[1,2,4,8] k1, float[1,2,4,8] v1)"""
KEYS = "k1 = Concat<axis=2>(pk, k) v1 = Concat<axis=-2>(pv, v) "
ROWS = """n = Constant<value = int32[1] {3}>() t = Constant<value = int32 {4}>()
    rows = Constant<value_ints=[0, 0, 16]>() kt = Transpose<perm=[0,2,1,3]>(k)
    kr = Reshape(kt, rows) vt = Transpose<perm=[0,2,1,3]>(v) vr = Reshape(vt, rows) """
GIVEN = "com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, kr, vr, pk, pv, n, t)"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "present-of-grouped-query-attention": [
        (CACHED, KEYS + ROWS + "y, k2, v2 = " + GIVEN, ROWS + "y, k1, v1 = " + GIVEN),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "present-of-grouped-query-attention": [
        (
            CACHED,
            KEYS.replace("-2", "1").replace("axis=2", "axis=1") + ROWS + "y, k2, v2 = " + GIVEN,
            "joined along other axes, 1",
        ),
        (
            CACHED.replace("1,8] v,", "u,8] v,"),
            KEYS + ROWS + "y, k2, v2 = " + GIVEN,
            "are not known to be equally many",
        ),
        (
            CACHED,
            KEYS + ROWS.replace("{3}", "{2}") + "y, k2, v2 = " + GIVEN,
            "is not known to be told that all keys count",
        ),
        (
            CACHED.replace("pv)", "pv, float[8,4] c)"),
            KEYS
            + ROWS
            + "y, k2, v2 = "
            + GIVEN.replace("heads=2", "heads=2, do_rotary=1").replace("t)", "t, c, c)"),
            "or turns them",
        ),
    ],
}

HEADS, SIZE = 2, 8


def _new(draw: Draw) -> ir.Value:
    return draw.input((draw.dim("b"), HEADS, 1, SIZE), draw.dtype)


def _past(draw: Draw) -> ir.Value:
    return draw.input((draw.dim("b"), HEADS, draw.dim("p"), SIZE), draw.dtype)


def _queries(draw: Draw) -> ir.Value:
    return draw.input((draw.dim("b"), 1, 2 * HEADS * SIZE), draw.dtype)


def _lengths(draw: Draw) -> list[ir.Value]:
    """Where each sequence ends, and how long all are: one token behind those of before."""
    last = draw.dim("p")
    ends = np.full(draw.dim("b"), last, np.int32)
    return [draw.constant(ends), draw.constant(np.array(last + 1, np.int32))]


# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "present-of-grouped-query-attention": {
        "query": _queries, "key": _new, "value": _new, "past_key": _past, "past_value": _past,
        "any": lambda draw: np.array([0, 0, HEADS * SIZE]), "axis": [2, -2], "along": [2, -2],
        "GroupQueryAttention+": _lengths, "dtypes": ("float32", "float16"), "opset": (17, 21),
        "outputs": 3, "core": lambda draw: {"num_heads": 2 * HEADS, "kv_num_heads": HEADS},
    },
}  # fmt: skip
