"""Rules of fuse.reductions: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np

from rules.instances import Hints
from rules.texts import NUMBERS, XN

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "axis-put-back": [
        (
            XN.replace("[2,n] y", "[2,1] y"),
            NUMBERS + "v = ReduceMean<keepdims=0>(x, axes) y = Unsqueeze(v, axes)",
            "axes = Constant<value_ints=[-1]>() y = ReduceMean(x, axes)",
        ),
        (
            "(float[2,n,8] x) => (float[2,1,8] y)",
            """k = Constant<value_ints=[1]>() d = Constant<value_ints=[2,1,8]>()
            v = ReduceMax<keepdims=0>(x, k) y = Reshape(v, d)""",
            "k = Constant<value_ints=[1]>() y = ReduceMax(x, k)",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "axis-put-back": [
        (
            "(float[2,2] x) => (float[1,2] y)",
            NUMBERS
            + """k = Constant<value_ints=[0]>() v = ReduceMean<keepdims=0>(x, axes)
            y = Unsqueeze(v, k)""",
            "is not known to have the shape of",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "axis-put-back": {
        "x": "T[2,3,4]",
        "axes": [(1,), (-2,)],
        "any": lambda draw: np.array([2, 1, 4]),
        "Unsqueeze+": lambda draw: [draw.constant(np.array([1]))],
    },
}
