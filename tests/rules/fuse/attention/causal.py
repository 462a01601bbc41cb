"""Rules of fuse.attention.causal: what they do, why they leave some alone, hints."""

from __future__ import annotations

from rules import attention_caches
from rules.instances import Hints

ALONE = "(float[b,4,s,8] q, float[b,2,s,8] k, float[b,2,s,8] v) => (float[b,4,s,8] y)"
CACHED = """(float[b,4,s,8] q, float[b,2,s,8] k, float[b,2,s,8] v, float[b,2,p,8] pk,
    float[b,2,p,8] pv) => (float[b,4,s,8] y, float[b,2,t,8] k1, float[b,2,t,8] v1)"""
NUMBERS = """zero = Constant<value_int=0>() one = Constant<value_int=1>()
    none = Constant<value_float=0.0>() low = Constant<value_float=-1e9>()
    few = Constant<value_float=-10.0>() before = Constant<value_ints=[0,1,2]>()
    after = Constant<value_ints=[0,1,3]>() axis = Constant<value_ints=[0]>()
    h = Shape<start=2, end=3>(q) n = Squeeze(h, axis) places = Range(zero, n, one) """
KEYS = "cols = Unsqueeze(places, before) rows = Unsqueeze(places, after) "
SEEN = KEYS + "c = LessOrEqual(cols, rows) "
PAST = """hp = Shape<start=2, end=3>(pk) m = Squeeze(hp, axis) t0 = Add(m, n)
    all = Range(zero, t0, one) moved = Add(places, m)
    cols = Unsqueeze(all, before) rows = Unsqueeze(moved, after) c = LessOrEqual(cols, rows) """
CORE = "y = Attention(q, k, v, f)"
CORE_OF_PAST = "y, k1, v1 = Attention(q, k, v, f, pk, pv)"
AFTER = "y = Attention<is_causal=1>(q, k, v)"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "causal-attention": [
        (ALONE, NUMBERS + SEEN + "f = Where(c, none, low)" + CORE, AFTER),
        (ALONE, NUMBERS + KEYS + "f = GreaterOrEqual(rows, cols)" + CORE, AFTER),
        (ALONE, NUMBERS + KEYS + "c = Greater(cols, rows) f = Where(c, low, none)" + CORE, AFTER),
        (
            CACHED,
            NUMBERS + PAST + "f = Where(c, none, low)" + CORE_OF_PAST,
            "y, k1, v1 = Attention<is_causal=1>(q, k, v, , pk, pv)",
        ),
        (
            ALONE.replace("s,8", "3,8"),
            "f = Constant<value = float[3,3] {0,-1e9,-1e9,0,0,-1e9,0,0,0}>()" + CORE,
            AFTER,
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "causal-attention": [
        (ALONE, NUMBERS + SEEN + "f = Where(c, low, none)" + CORE, "is not known to mask"),
        (ALONE, NUMBERS + SEEN + "f = Where(c, none, few)" + CORE, "is not known to mask"),
        (ALONE, NUMBERS + KEYS + "f = Less(cols, rows)" + CORE, "not known to see a key each"),
        (ALONE, NUMBERS + SEEN + "f = Not(c)" + CORE, "not known to see a key each"),
        (
            CACHED,
            NUMBERS + PAST.replace("Add(places, m)", "Add(places, one)") + "f = Not(c) "
            "g = Not(f)" + CORE_OF_PAST.replace("f,", "g,"),
            "not all queries and keys are known to be masked",
        ),
        (
            ALONE.replace("2,s,8", "2,t,8"),
            NUMBERS + SEEN + "f = Where(c, none, low)" + CORE,
            "are not known to be equally many",
        ),
        (
            ALONE.replace("s,8", "3,8").replace(" y)", " y)"),
            "f = Constant<value = bool[3,3] {1,1,0,1,1,1,1,1,1}>()" + CORE,
            "is not known to mask",
        ),
        (CACHED, NUMBERS + SEEN + "f = Identity(c)" + CORE_OF_PAST, "not known to begin where"),
        (
            ALONE.replace("s,8", "3,8"),
            "t = Constant<value = float[3,3] {0,-1e9,-1e9,0,0,-1e9,0,0,0}>() f = Cast<to=9>(t)"
            + CORE,
            "is not known to mask",
        ),
        (
            ALONE,
            NUMBERS + SEEN + "a = Where(c, none, low) e = Constant<value_ints=[2,1,1,1]>() "
            "g = Expand(a, e) f = Cast<to=9>(g)" + CORE,
            "is not known to mask",
        ),
        (
            ALONE,
            NUMBERS + SEEN + "a = Where(c, none, low) inf = Log(none) nan = Sub(inf, inf) "
            "last = Constant<value_ints=[-1]>() hi = ReduceMax(a, last) g = Equal(hi, none) "
            "f = Where(g, nan, a)" + CORE,
            "is not known to mask",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {"causal-attention": attention_caches.CAUSAL}
