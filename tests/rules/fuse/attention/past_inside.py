"""Rules of fuse.attention.past_inside: what they do, why they leave some alone, hints."""

from __future__ import annotations

from rules import attention_caches
from rules.instances import Hints

CACHED = """(float[b,4,s,8] q, float[b,2,s,8] k, float[b,2,s,8] v, float[b,2,p,8] pk,
    float[b,2,p,8] pv) => (float[b,4,s,8] y, float[b,2,t,8] k1, float[b,2,t,8] v1)"""
KEYS = "k1 = Concat<axis=2>(pk, k) v1 = Concat<axis=-2>(pv, v) "
OWN = """(float[b,s,32] q, float[b,4,s,8] k, float[b,4,s,8] v, float[b,4,p,8] pk,
    float[b,4,p,8] pv) => (float[b,s,32] y, float[b,4,t,8] k1, float[b,4,t,8] v1)"""
MULTI = "y = com.microsoft.MultiHeadAttention<num_heads=4>(q, k1, v1)"
SIZED = CACHED.replace("v1)", "v1, int64[1] n)")
CORE = "y = Attention<scale=0.25>(q, k1, v1) "
CUT = "n = Shape<start=-2, end=-1>(v1)"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "past-of-attention": [
        (
            CACHED,
            KEYS + "y = Attention<scale=0.25>(q, k1, v1)",
            "y, k1, v1 = Attention<scale=0.25>(q, k, v, , pk, pv)",
        ),
        (
            CACHED.replace("pv)", "pv, float[b,1,s,7] m)")
            .replace("p,8", "3,8")
            .replace("s,", "4,"),
            KEYS + "y = Attention<softcap=2.0>(q, k1, v1, m)",
            "y, k1, v1 = Attention<softcap=2.0>(q, k, v, m, pk, pv)",
        ),
    ],
    "size-of-joined": [(SIZED, KEYS + CORE + CUT, "")],
    "past-of-multi-head-attention": [
        (
            OWN,
            KEYS + MULTI,
            """rows = Constant<value_ints=[0, 0, 32]>()
            kt = Transpose<perm=[0,2,1,3]>(k) kr = Reshape(kt, rows)
            vt = Transpose<perm=[0,2,1,3]>(v) vr = Reshape(vt, rows)
            y, k1, v1 = com.microsoft.MultiHeadAttention<num_heads=4>(q, kr, vr, , , , pk, pv)""",
        ),
    ],
}


def _refused(model: str, core: str, keys: str = KEYS) -> list[tuple[str, str, str]]:
    """Return what both rules leave alone, in one's words."""
    return [
        (model, keys.replace("-2", "1").replace("2", "1") + core, "joined along other axes, 1"),
        (
            model,
            "k1 = Concat<axis=2>(pk, k) v1 = Identity(k1) " + core.replace("k1, v1", "k1, k1"),
            "is joined once, for keys and for values",
        ),
        (model.replace("s,8] v,", "u,8] v,"), keys + core, "are not known to be equally many"),
        (
            model.replace("p,8] pk", "3,8] pk").replace("p,8] pv", "4,8] pv"),
            keys + core,
            "3 keys and 4 values are of before",
        ),
    ]


# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "size-of-joined": [
        (SIZED, KEYS + CORE + CUT.replace("-2", "-3"), "not the size of tokens alone"),
        (SIZED, KEYS + CORE + CUT.replace("-1", "3"), "not the size of tokens alone"),
        (SIZED, KEYS + CORE.replace("k1", "k").replace("v1", "v") + CUT, "is not joined for"),
        (SIZED, KEYS.replace("-2", "1").replace("2", "1") + CORE + CUT, "is not joined for"),
    ],
    "past-of-attention": [
        *_refused(CACHED, "y = Attention(q, k1, v1)"),
        (CACHED, KEYS + "y = Attention<is_causal=1>(q, k1, v1)", "is causal from the first key on"),
        (CACHED, KEYS + "y = Attention<left_window_size=1>(q, k1, v1)", "has a window"),
        (CACHED, KEYS + "y = Attention<right_window_size=0>(q, k1, v1)", "has a window"),
    ],
    "past-of-multi-head-attention": [
        *_refused(OWN, MULTI),
        (
            OWN,
            KEYS + MULTI.replace("num_heads=4", "num_heads=4, unidirectional=1"),
            "is causal from the first key on",
        ),
        (
            OWN.replace("s,8] v", "s,6] v").replace("p,8] pv", "p,6] pv"),
            KEYS + MULTI,
            "are not known to be of one size",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "past-of-attention": attention_caches.PAST,
    "past-of-multi-head-attention": attention_caches.PAST_OWN,
    "size-of-joined": attention_caches.SIZE,
}
