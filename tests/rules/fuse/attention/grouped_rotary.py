"""Rules of fuse.attention.grouped_rotary: what they do, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

HEAD = """(float[1,4,3,16] q, float[1,2,3,16] k, float[1,3,32] v, float[3,8] c, float[3,8] s,
    float[3,8] d) => (float[1,3,64] y)"""
LENGTHS = """n = Constant<value = int32[1] {2}>() t = Constant<value = int32 {3}>()
    wide = Constant<value_ints=[0, 0, 64]>() narrow = Constant<value_ints=[0, 0, 32]>() """
TURNED = """at = Constant<value_ints=[0]>() qr = com.microsoft.RotaryEmbedding(q, at, c, s)
    kr = com.microsoft.RotaryEmbedding(k, at, c, s) """
ROWS = """qt = Transpose<perm=[0,2,1,3]>(qr) qf = Reshape(qt, wide)
    kt = Transpose<perm=[0,2,1,3]>(kr) kf = Reshape(kt, narrow) """
MADE = """y, k1, v1 = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>
    (qf, kf, v, , , n, t)"""


def _refused(old: str, new: str, reason: str) -> tuple[str, str, str]:
    whole = LENGTHS + TURNED + ROWS + MADE
    assert old in whole
    return HEAD, whole.replace(old, new), reason


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "rotary-of-grouped-query-attention": [(HEAD, LENGTHS + TURNED + ROWS + MADE, "")],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "rotary-of-grouped-query-attention": [
        _refused("(k, at, c, s)", "(k, at, d, s)", "not known to turn by the same angles"),
        _refused("RotaryEmbedding(k", "RotaryEmbedding<interleaved=1>(k", "turn other pairs"),
        _refused("RotaryEmbedding(k", "RotaryEmbedding<scale=2.0>(k", "is told more than which"),
        _refused("ints=[0]>", "ints=[1]>", "does not begin with the first angles"),
        _refused("int32[1] {2}", "int32[1] {1}", "is not known to be told that all keys count"),
        _refused("n, t)", "n, t, c, s)", "turns already, or is told more"),
    ],
}

HEADS, SIZE = 2, 16


def _angles(draw: Draw) -> list[ir.Value]:
    """From the first place on, the same for queries and for keys."""
    if "angles" not in draw.made:
        tables = [draw.input((draw.dim("s"), SIZE // 2), draw.dtype) for _ in range(2)]
        draw.made["angles"] = [draw.constant(np.array([0])), *tables]
    return draw.made["angles"]  # type: ignore[return-value]


def _lengths(draw: Draw) -> list[ir.Value]:
    length = draw.dim("s")
    ends = np.full(draw.dim("b"), length - 1, np.int32)
    return [draw.constant(ends), draw.constant(np.array(length, np.int32))]


# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "rotary-of-grouped-query-attention": {
        "query": f"T[b,{2 * HEADS},s,{SIZE}]", "key": f"T[b,{HEADS},s,{SIZE}]",
        "value": f"T[b,s,{HEADS * SIZE}]", "any": lambda draw: np.array([0, 0, -1]),
        "RotaryEmbedding+": _angles, "GroupQueryAttention+": _lengths,
        "dtypes": ("float32",), "opset": (17, 21),
        "core": lambda draw: {"num_heads": 2 * HEADS, "kv_num_heads": HEADS},
    },
}  # fmt: skip
