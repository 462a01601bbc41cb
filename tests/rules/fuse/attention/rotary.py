"""Rules of fuse.attention.rotary: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np

from rules.drawing import ORT_TYPES
from rules.instances import Hints
from rules.rotary_spellings import (
    doubled_angles,
    even,
    first_half,
    half_angles,
    odd,
    paired_angles,
    part_angles,
    part_attributes,
    part_of_row,
    rest_of_row,
    second_half,
    turned_input,
)

HEAD = "(float[b,4,s,8] x, float[b,s,4] f) => (float[b,4,s,8] y)"
BY_TOKEN = "(float[b,s,4,8] x, float[b,s,4] f) => (float[b,s,4,8] y)"
FRONT = """w8 = Slice(x, zero, eight, all, one) x1 = Slice(w8, zero, eight, all, two)
    x2 = Slice(w8, one, eight, all, two) """
"""Pairs of neighbours in the front part of a head, as GPT-J has them."""
NUMBERS = """zero = Constant<value_ints=[0]>() two = Constant<value_ints=[2]>()
    four = Constant<value_ints=[4]>() eight = Constant<value_ints=[8]>()
    six = Constant<value_ints=[6]>() one = Constant<value_ints=[1]>()
    last = Constant<value_ints=[-1]>() all = Constant<value_ints=[3]>() """
ANGLES = """g = Concat<axis=-1>(f, f) gc = Cos(g) gs = Sin(g)
    c = Unsqueeze(gc, one) s = Unsqueeze(gs, one) """
HALVES = "x1 = Slice(x, zero, four, all, one) x2 = Slice(x, four, eight, all, one) "
TURN = "n = Neg(x2) r = Concat<axis=-1>(n, x1) p = Mul(x, c) q = Mul(r, s) y = Add(p, q)"

HALF = "gc = Cos(f) gs = Sin(f) c = Unsqueeze(gc, one) s = Unsqueeze(gs, one) "
PARTS = """a = Mul(x1, c) b = Mul(x2, s) d = Sub(a, b) e = Mul(x2, c) g = Mul(x1, s) h = Add(e, g)
    y = Concat<axis=-1>(d, h)"""

# What Qwen2-VL does to text: angles of three axes, section by section.
SECTIONS = """f1 = Slice(f, zero, one, last, one) f2 = Slice(f, one, four, last, one)
    h = Neg(f2) g = Concat<axis=-1>(f1, f2, f1, h) gc = Cos(g) gs = Sin(g)
    c = Unsqueeze(gc, one) s = Unsqueeze(gs, one) """

# Two axes of an image, each with half of a head: the elements of a pair are a quarter apart.
QUARTERS = """a = Slice(x, zero, two, all, one) b = Slice(x, two, four, all, one)
    d = Slice(x, four, six, all, one) e = Slice(x, six, eight, all, one)
    nb = Neg(b) ne = Neg(e) r = Concat<axis=-1>(nb, a, ne, d)
    p = Mul(x, c) q = Mul(r, s) y = Add(p, q)"""

PAIRED = """fu = Unsqueeze(f, last) fw = Concat<axis=-1>(fu, fu)
    sh = Constant<value_ints=[0,0,8]>() g = Reshape(fw, sh) gc = Cos(g) gs = Sin(g)
    c = Unsqueeze(gc, one) s = Unsqueeze(gs, one) """
STRIDED = "x1 = Slice(x, zero, eight, all, two) x2 = Slice(x, one, eight, all, two) "
STACK = """n = Neg(x2) nu = Unsqueeze(n, last) xu = Unsqueeze(x1, last)
    w = Concat<axis=-1>(nu, xu) xs = Shape(x) r = Reshape(w, xs)
    p = Mul(x, c) q = Mul(r, s) y = Add(p, q)"""

OTHER_ROWS = "Constant<value_ints=[4,-1,3,8]>()"
"""Of a batch of 1 this makes one of 4."""
TOKENS = "(float[b,s,4,8] x, float[b,s,2] c, float[b,s,2] s) => (float[b,s,4,8] y)"
"""Heads behind tokens."""
CUT = "a = Slice(x, zero, four, all, one) b = Slice(x, four, eight, all, one) "
TURNED_TOKENS = """t = Transpose<perm=[0,2,1,3]>(a) r = RotaryEmbedding(t, c, s)
    u = Transpose<perm=[0,2,1,3]>(r) y = Concat<axis=-1>(u, b)"""
PARTIAL = "(float[b,4,s,8] x, float[b,s,2] c, float[b,s,2] s) => (float[b,4,s,8] y)"


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "rotary-of-halves": [
        (
            HEAD,
            NUMBERS + ANGLES + HALVES + TURN,
            NUMBERS
            + ANGLES[: ANGLES.index("c = Unsqueeze")]
            + """d = Slice(gc, zero, four, two, one)
            e = Slice(gs, zero, four, two, one) y = RotaryEmbedding(x, d, e)""",
        ),
        (HEAD.replace("[b,s,4] f", "[1,s,4] f"), NUMBERS + ANGLES + HALVES + TURN, ""),
    ],
    "rotary-of-neighbours": [
        (HEAD, NUMBERS + PAIRED + STRIDED + STACK, ""),
        (BY_TOKEN, NUMBERS + PAIRED.replace(", one)", ", two)") + STRIDED + STACK, ""),
        (
            BY_TOKEN.replace("[b,s,4] f", "[1,s,4] f"),
            NUMBERS + PAIRED.replace(", one)", ", two)") + STRIDED + STACK,
            "",
        ),
        (
            BY_TOKEN.replace("s,4,8] x", "s,4,12] x"),
            NUMBERS
            + PAIRED.replace(", one)", ", two)")
            + FRONT
            + STACK.replace("x,", "w8,").replace("(x)", "(w8)"),
            "",
        ),
        (HEAD, NUMBERS + PAIRED + STRIDED + STACK.replace("Reshape(", "Reshape<allowzero=1>("), ""),
    ],
    "rotary-of-parts": [(HEAD, NUMBERS + HALF + HALVES + PARTS, "")],
    "rotary-of-a-part": [
        (
            PARTIAL,
            NUMBERS
            + """a = Slice(x, zero, four, all, one) b = Slice(x, four, eight, all, one)
            r = RotaryEmbedding(a, c, s) y = Concat<axis=-1>(r, b)""",
            "y = RotaryEmbedding<rotary_embedding_dim=4>(x, c, s)",
        )
    ],
    "rotary-of-a-part-of-tokens": [
        (
            TOKENS,
            NUMBERS + CUT + TURNED_TOKENS,
            """t = Transpose<perm=[0,2,1,3]>(x) r = RotaryEmbedding<rotary_embedding_dim=4>(t, c, s)
            y = Transpose<perm=[0,2,1,3]>(r)""",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "rotary-of-halves": [
        (HEAD, NUMBERS + SECTIONS + HALVES + TURN, "are not known to be equal"),
        (
            HEAD,
            NUMBERS
            + ANGLES
            + HALVES.replace("x1", "t").replace("x2", "x1").replace("t =", "x2 =")
            + TURN,
            "are no halves of",
        ),
        (HEAD, NUMBERS + PAIRED + HALVES + TURN, "are not known to be equal"),
        (
            HEAD.replace("[b,s,4] f", "[b,4,s,4] f").replace("s,8] y", "s,8] y"),
            NUMBERS + "g = Concat<axis=-1>(f, f) c = Cos(g) s = Sin(g) " + HALVES + TURN,
            "the same for all heads",
        ),
        (HEAD, NUMBERS + ANGLES + HALVES + TURN.replace("Mul(x, c)", "Mul(c, c)"), "or"),
    ],
    "rotary-of-neighbours": [
        (HEAD, NUMBERS + ANGLES + STRIDED + STACK, "are not known to be equal"),
        (HEAD, NUMBERS + PAIRED + HALVES + STACK, "are no neighbours of"),
        (
            "(float[b,4,3,8] x, float[1,3,4] f) => (float[p,4,3,8] y)",
            NUMBERS + PAIRED + STRIDED + STACK.replace("Shape(x)", OTHER_ROWS),
            "is not known to have the rows of",
        ),
    ],
    "rotary-of-parts": [
        (HEAD, NUMBERS + HALF + STRIDED + PARTS, "are no halves of one value"),
    ],
    "rotary-of-a-part-of-tokens": [
        (
            TOKENS,
            NUMBERS + CUT.replace("zero, four", "zero, two") + TURNED_TOKENS,
            "are no parts in a row",
        ),
    ],
    "rotary-of-a-part": [
        (
            PARTIAL,
            NUMBERS
            + """a = Slice(x, four, eight, all, one) b = Slice(x, zero, four, all, one)
            r = RotaryEmbedding(a, c, s) y = Concat<axis=-1>(r, b)""",
            "are no parts in a row",
        ),
        (
            PARTIAL.replace("b,s,2]", "b,s,1]"),
            NUMBERS
            + """a = Slice(x, zero, four, all, one) b = Slice(x, four, eight, all, one)
            r = RotaryEmbedding<rotary_embedding_dim=2>(a, c, s) y = Concat<axis=-1>(r, b)""",
            "does not turn whole rows of 4 axes",
        ),
        (
            PARTIAL.replace("[b,4,s,8]", "[b,s,8]").replace("b,s,2]", "b,s,1]"),
            NUMBERS
            + """a = Slice(x, zero, four, last, one) b = Slice(x, four, eight, last, one)
            r = RotaryEmbedding<num_heads=2>(a, c, s) y = Concat<axis=-1>(r, b)""",
            "does not turn whole rows of 4 axes",
        ),
    ],
}


# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "rotary-of-halves": {
        "x": turned_input,
        "cos": doubled_angles,
        "sin": doubled_angles,
        "first": first_half,
        "second": second_half,
        "dtypes": ORT_TYPES,
        "opset": (17, 21, 23, 24),
    },
    "rotary-of-neighbours": {
        "x": turned_input,
        "cos": paired_angles,
        "sin": paired_angles,
        "first": even,
        "second": odd,
        "any": lambda draw: np.array([*draw.shape("turned")]),
        "dtypes": ORT_TYPES,
        "opset": (17, 21, 23, 24),
    },
    "rotary-of-parts": {
        "cos": half_angles,
        "sin": half_angles,
        "first": first_half,
        "second": second_half,
        "dtypes": ORT_TYPES,
        "opset": (17, 21, 23, 24),
    },
    "rotary-of-a-part-of-tokens": {
        "part": part_of_row,
        "rest": rest_of_row,
        "cos": part_angles,
        "sin": part_angles,
        "node": part_attributes,
        "dtypes": ORT_TYPES,
        "opset": (23, 24),
    },
    "rotary-of-a-part": {
        "part": part_of_row,
        "rest": rest_of_row,
        "cos": part_angles,
        "sin": part_angles,
        "node": part_attributes,
        "dtypes": ORT_TYPES,
        "opset": (17, 21, 23, 24),
    },
}
