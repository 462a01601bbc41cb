"""Rules of fuse.attention.turned_keys: what they do, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np

from rules.instances import Hints

KEYS = "(float[2,3,n,4] x) => (float[2,3,4,n] y)"
SIZES = """flat = Constant<value_ints=[6,-1,4]>() back = Constant<value_ints=[2,3,4,-1]>()
    wrong = Constant<value_ints=[6,4,-1]>() """

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "transpose-of-flat": [
        (
            KEYS,
            SIZES + "f = Reshape(x, flat) t = Transpose<perm=[0,2,1]>(f) y = Reshape(t, back)",
            "y = Transpose<perm=[0,1,3,2]>(x)",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "transpose-of-flat": [
        (
            KEYS,
            SIZES + "f = Reshape(x, wrong) t = Transpose<perm=[0,2,1]>(f) y = Reshape(t, back)",
            "with its last axes swapped",
        )
    ],
}


# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "transpose-of-flat": {
        "x": "T[2,3,n,4]",
        "three": lambda draw: np.array([6, -1, 4]),
        "four": lambda draw: np.array([2, 3, 4, -1]),
    },
}
