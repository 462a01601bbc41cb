"""Rules of restore.epsilons: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.drawing import half_array, more
from rules.instances import Hints
from rules.texts import brain, half, single

ROOT_MEAN = "m = ReduceMean<keepdims=1>(x, a) s = Add(m, c) y = Sqrt(s)"

AXIS = "a = Constant<value_ints=[-1]>()"

ROW = "(float[n,8] x) => (float[n,1] y)"


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "restore-epsilon": [
        (ROW, f"{brain('c', 1e-5)} {AXIS} {ROOT_MEAN}", f"{single('c', 1e-5)} {AXIS} {ROOT_MEAN}"),
        (
            "(float[n,8] x) => (float[n,1] y)",
            f"""{half("c", 1e-6)} {AXIS} e = Constant<value_float=-0.5>()
                m = ReduceMean<keepdims=0>(x, a) u = Unsqueeze(m, a) s = Add(c, u) y = Pow(s, e)""",
            f"""{single("c", 1e-6)} {AXIS} e = Constant<value_float=-0.5>()
                m = ReduceMean<keepdims=0>(x, a) u = Unsqueeze(m, a) s = Add(u, c) y = Pow(s, e)""",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "restore-epsilon": [
        (ROW, f"{brain('c', 3e-5)} {AXIS} {ROOT_MEAN}", "is not 1e-03, 5e-03"),
        (
            ROW,
            f"{brain('c', 1e-5)} {AXIS} m = ReduceMax<keepdims=1>(x, a) s = Add(m, c) y = Sqrt(s)",
            "expected ReduceMean",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "restore-epsilon": {
        "any": "T[a,b,4]",
        "ReduceMean+": more([-1]),
        "Cast()": lambda draw: {"to": 1},
        "c": lambda draw: half_array(1e-5),
        "dtypes": ("float32",),
    },
}
