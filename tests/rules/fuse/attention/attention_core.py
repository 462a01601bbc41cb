"""Rules of fuse.attention.attention_core: what they do, why they leave some alone, hints."""

from __future__ import annotations

from rules.attention_spellings import rows, values
from rules.drawing import FLOAT, ORT_TYPES, own_type
from rules.instances import Hints

HEADS = "(float[b,4,s,8] q, float[b,4,t,8] k, float[b,4,t,8] v) => (float[b,4,s,8] y)"
GROUPED = "(float[b,4,s,8] q, float[b,2,t,8] k, float[b,2,t,8] v) => (float[b,4,s,8] y)"
MASKED = HEADS.replace("8] v)", "8] v, float[b,1,s,t] m)")
SELECTED = HEADS.replace("8] v)", "8] v, bool[b,1,s,t] c)")

NUMBERS = """scale = Constant<value_float=0.25>() zero = Constant<value_float=0.0>()
    low = Constant<value_float=-3.4028234663852886e38>()
    down = Constant<value_float=-3.4028232635611926e38>()
    infinite = Constant<value = float {-inf}>() cap = Constant<value_float=2.0>() """

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
            NUMBERS + "n = Max(m, down) y = Attention<scale=0.25>(q, k, v, n)",
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
