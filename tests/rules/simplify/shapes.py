"""Rules of simplify.shapes: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import onnx_ir as ir

from rules.instances import Draw, Hints


def gathers(draw: Draw) -> list[ir.Value]:
    """Elements of one vector or two, taken one or two at a time."""
    vectors = [draw.input((5,), draw.dtype) for _ in range(2)]
    made = []
    for _ in range(int(draw.rng.integers(2, 5))):
        index = draw.constant(draw.rng.integers(-5, 5, int(draw.rng.integers(1, 3))))
        vector = vectors[int(draw.rng.random() < 0.3)]
        made.append(draw.place(ir.Node("", "Gather", [vector, index])))
    return made


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "shape-of-elementwise": [
        ("(float[n,4] x) => (int64[2] y)", "c = Cast<to=10>(x) y = Shape(c)", "y = Shape(x)")
    ],
    "unsqueeze-of-gather": [
        (
            "(int64[4] x) => (int64[1] y)",
            """i = Constant<value_int=2>() z = Constant<value_ints=[0]>()
               g = Gather(x, i) y = Unsqueeze(g, z)""",
            "i = Constant<value_ints=[2]>() y = Gather(x, i)",
        )
    ],
    "concat-of-gathers": [
        (
            "(int64[4] x, int64[1] o) => (int64[4] y)",
            """i = Constant<value_ints=[2]>() j = Constant<value_ints=[0,1]>()
               g = Gather(x, i) h = Gather(x, j) y = Concat<axis=0>(o, g, h)""",
            "i = Constant<value_ints=[2,0,1]>() g = Gather(x, i) y = Concat<axis=0>(o, g)",
        )
    ],
    "gather-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            "i = Constant<value_ints=[0,1]>() s = Shape(x) y = Gather(s, i)",
            "y = Shape<start=0, end=2>(x)",
        )
    ],
    "slice-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            """a = Constant<value_ints=[1]>() b = Constant<value_ints=[9223372036854775807]>()
               z = Constant<value_ints=[0]>() s = Shape(x) y = Slice(s, a, b, z)""",
            "y = Shape<start=1>(x)",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "shape-of-elementwise": [
        ("(float[n,m] x) => (int64[2] y)", "t = Transpose(x) y = Shape(t)", "found Transpose")
    ],
    "unsqueeze-of-gather": [
        (
            "(int64[4,4] x) => (int64[1,4] y)",
            """i = Constant<value_int=2>() z = Constant<value_ints=[0]>()
               g = Gather(x, i) y = Unsqueeze(g, z)""",
            "v ('x') is not known to have 1 axes",
        )
    ],
    "concat-of-gathers": [
        (
            "(int64[4] x, int64[4] z) => (int64[2] y)",
            """i = Constant<value_ints=[2]>() g = Gather(x, i) h = Gather(z, i)
               y = Concat<axis=0>(g, h)""",
            "no neighbours are taken from one vector",
        )
    ],
    "gather-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            "i = Constant<value_ints=[0,2]>() s = Shape(x) y = Gather(s, i)",
            "(0, 2) are not neighbours",
        )
    ],
    "slice-of-shape": [
        (
            "(float[n,4,m] x) => (int64[2] y)",
            """a = Constant<value_ints=[0]>() b = Constant<value_ints=[3]>()
               t = Constant<value_ints=[2]>() s = Shape(x) y = Slice(s, a, b, a, t)""",
            "has a further input, [2]",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "shape-of-elementwise": {
        "x": "T[2,3,4]",
        "shape": lambda draw: {"start": 1} if draw.opset >= 15 and draw.rng.random() < 0.5 else {},
        "Cast()": lambda draw: {"to": 7},
        "LayerNormalization+": lambda draw: [draw.constant(draw.array((4,), draw.dtype))],
    },
    "unsqueeze-of-gather": {"v": "T[4]", "i": [0, 1, -1]},
    "concat-of-gathers": {"xs": gathers},
    "gather-of-shape": {
        "x": "T[a,b,c]",
        "indices": [(0,), (0, 1), (1, 2), (-1,), (-2, -1), (0, 2)],
    },
    "slice-of-shape": {
        "x": "T[a,b,c]",
        "start": [(0,), (1,), (-2,)],
        "end": [(2,), (-1,), (2**63 - 1,)],
        "any": "i64[1]",
    },
}
