"""Rules of fuse.attention.attention_core: what they do, why they leave some alone, hints."""

from __future__ import annotations

from rules.attention_spellings import rows, values
from rules.drawing import FLOAT, ORT_TYPES, own_type
from rules.instances import Hints

HEADS = "(float[b,4,s,8] q, float[b,4,t,8] k, float[b,4,t,8] v) => (float[b,4,s,8] y)"
GROUPED = "(float[b,4,s,8] q, float[b,2,t,8] k, float[b,2,t,8] v) => (float[b,4,s,8] y)"
MASKED = HEADS.replace("8] v)", "8] v, float[b,1,s,t] m)")
SELECTED = HEADS.replace("8] v)", "8] v, bool[b,1,s,t] c)")
BOTH = HEADS.replace("8] v)", "8] v, float[b,1,s,t] m, bool[b,1,s,t] c)")
TWO = HEADS.replace("8] v)", "8] v, float[b,1,s,t] m, float[b,1,s,t] o)")

NUMBERS = """scale = Constant<value_float=0.25>() zero = Constant<value_float=0.0>()
    low = Constant<value_float=-3.4028234663852886e38>()
    down = Constant<value_float=-3.4028232635611926e38>()
    infinite = Constant<value = float {-inf}>() cap = Constant<value_float=2.0>()
    nan = Constant<value = float {nan}>() far = Constant<value_float=-1e9>()
    last = Constant<value_ints=[-1]>() """

RAISED = "a = Equal(m, low) g = Where(a, down, m) "
NOTHING = "b = ReduceMax(g, last) e = Equal(b, infinite) n = Where(e, nan, g) "
GUARD = "r = Softmax(z) i = IsNaN(r) w = Where(i, zero, r) y = MatMul(w, v)"

TURN = "kt = Transpose<perm=[0,1,3,2]>(k) "
PRODUCT = TURN + "p = MatMul(q, kt) "
MEAN = "r = Softmax(z) y = MatMul(r, v)"

REPEAT = """two = Constant<value_ints=[2]>() e = Constant<value_ints=[1,1,2,1,1]>()
    f = Constant<value_ints=[0,4,-1,8]>()
    ku = Unsqueeze(k, two) ke = Expand(ku, e) kr = Reshape(ke, f)
    vu = Unsqueeze(v, two) ve = Expand(vu, e) vr = Reshape(ve, f)
    kt = Transpose<perm=[0,1,3,2]>(kr) p = MatMul(q, kt) z = Mul(p, scale)
    r = Softmax(z) y = MatMul(r, vr) """


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "attention": [
        (
            HEADS,
            NUMBERS + PRODUCT + "z = Mul(p, scale) " + MEAN,
            "y = Attention<scale=0.25>(q, k, v)",
        ),
        (
            HEADS,
            NUMBERS + TURN + "a = Mul(q, scale) b = Mul(kt, scale) z = MatMul(a, b) " + MEAN,
            "y = Attention<scale=0.0625>(q, k, v)",
        ),
        (
            MASKED,
            NUMBERS + PRODUCT + "a = Mul(p, scale) z = Add(m, a) " + MEAN,
            NUMBERS + RAISED + NOTHING + "y = Attention<scale=0.25>(q, k, v, n)",
        ),
        (
            SELECTED,
            NUMBERS + PRODUCT + "a = Where(c, zero, low) z = Add(p, a) " + MEAN,
            NUMBERS + "n = Where(c, zero, down) y = Attention<scale=1.0>(q, k, v, n)",
        ),
        (
            SELECTED,
            NUMBERS + PRODUCT + "z = Where(c, low, p) " + MEAN,
            NUMBERS + "n = Where(c, down, zero) y = Attention<scale=1.0>(q, k, v, n)",
        ),
        (
            MASKED,
            NUMBERS + PRODUCT + "a = Mul(p, scale) z = Add(m, a) " + GUARD,
            NUMBERS + RAISED + "y = Attention<scale=0.25>(q, k, v, g)",
        ),
        (
            SELECTED,
            NUMBERS + PRODUCT + "z = Where(c, p, far) " + MEAN,
            NUMBERS + "n = Where(c, zero, down) y = Attention<scale=1.0>(q, k, v, n)",
        ),
        (
            SELECTED,
            NUMBERS + PRODUCT + "z = Where(c, p, infinite) " + MEAN,
            NUMBERS
            + "g = Where(c, zero, infinite) "
            + NOTHING
            + "y = Attention<scale=1.0>(q, k, v, n)",
        ),
        (
            BOTH,
            NUMBERS + PRODUCT + "a = Add(p, m) z = Where(c, a, low) " + GUARD,
            NUMBERS
            + "m2 = Where(c, m, down) "
            + RAISED.replace("m", "m2")
            + "y = Attention<scale=1.0>(q, k, v, g)",
        ),
        (
            BOTH,
            NUMBERS + PRODUCT + "a = Where(c, p, low) z = Add(m, a) " + MEAN,
            "",
        ),
        (
            MASKED,
            NUMBERS
            + PRODUCT
            + """a = Div(p, cap) b = Tanh(a) d = Mul(b, cap) n = Max(m, down)
            z = Add(d, n) r = Softmax(z) i = IsNaN(r) w = Where(i, zero, r) y = MatMul(w, v)""",
            "",
        ),
        (GROUPED, NUMBERS + REPEAT, "y = Attention<scale=0.25>(q, k, v)"),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "attention": [
        (HEADS, NUMBERS + "p = MatMul(q, k) z = Mul(p, scale) " + MEAN, "is no Transpose of keys"),
        (
            HEADS.replace("=> (", "=> (float[b,4,s,t] z, "),
            NUMBERS + PRODUCT + "z = Mul(p, scale) " + MEAN,
            "is an output of the graph",
        ),
        (
            HEADS.replace("8] v)", "8] v, float f)"),
            NUMBERS + PRODUCT + "z = Mul(p, f) " + MEAN,
            "scaled by a constant",
        ),
        (
            SELECTED,
            NUMBERS + PRODUCT + "z = Where(c, p, scale) " + MEAN,
            "scores may be as low as 0.25",
        ),
        (
            SELECTED.replace("bool[b,1,s,t]", "bool[x,1,s,t]"),
            NUMBERS + PRODUCT + "z = Where(c, p, low) " + MEAN,
            "is not known to have heads and batch",
        ),
        (
            MASKED.replace("float[b,1,s,t] m", "float[b,1,s,x] m").replace("t,8] v", "x,8] v"),
            NUMBERS + PRODUCT + "z = Add(p, m) " + MEAN,
            "as many columns as there are keys",
        ),
        (
            BOTH,
            NUMBERS + PRODUCT + "a = Add(p, m) z = Where(c, a, far) " + MEAN,
            "what else masks scores is not known to differ from",
        ),
        (
            TWO,
            NUMBERS + PRODUCT + "a = Add(p, m) z = Add(a, o) " + MEAN,
            "are added one after the other, and rounded",
        ),
        (HEADS, NUMBERS + PRODUCT + "z = Mul(p, nan) " + MEAN, "scaled by nan"),
        (HEADS, NUMBERS + PRODUCT + "z = Mul(p, infinite) " + MEAN, "scaled by -inf"),
        (
            HEADS.replace("t,8]", "0,8]"),
            NUMBERS + PRODUCT + "z = Mul(p, scale) " + MEAN,
            "has no queries or no keys",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "attention": {
        "rows": rows,
        "value": values,
        "wide": [FLOAT],
        "narrow": own_type,
        "dtypes": ORT_TYPES,
        "opset": (17, 21, 23, 24),
    },
}
