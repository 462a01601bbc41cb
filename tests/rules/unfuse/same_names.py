"""Rules of unfuse.same_names: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.older import DRAWN

from rules.from_cases import of_cases
from rules.instances import Hints

X = "(float[3,4] x) => (float[3,4] y)"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-trilu": [(X, "y = com.microsoft.Trilu<upper=0>(x)", "y = Trilu<upper=0>(x)")],
    "unfuse-unique": [
        (
            "(float[n] x) => (float[m] y, int64[n] i, int64[m] c)",
            "y, i, c = com.microsoft.Unique(x)",
            "y, f, i, c = Unique<sorted=0>(x)",
        )
    ],
    "unfuse-expand-dims": [
        (
            "(float[3,4] x) => (float[1,3,4] y)",
            "a = Constant<value = int32 {0}>() y = com.microsoft.ExpandDims(x, a)",
            "",
        )
    ],
    "unfuse-gather-nd": [
        (
            "(float[3,4] x) => (float[2] y)",
            "i = Constant<value = int32[2,2] {0, 1, 2, 3}>() y = com.microsoft.GatherND(x, i)",
            "",
        )
    ],
    "unfuse-pad": [
        (
            "(float[3,4] x) => (float[4,4] y)",
            "p = Constant<value = int64[4] {0, 0, 1, 0}>() y = com.microsoft.Pad(x, p)",
            "",
        )
    ],
    "unfuse-range": [
        (
            "() => (float[3] y)",
            """a = Constant<value_float=0.0>() b = Constant<value_float=3.0>()
            y = com.microsoft.Range(a, b)""",
            "",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-trilu": [(X, "y = Trilu(x)", "")],
    "unfuse-unique": [("(float[n] x) => (float[m] y)", "y = Unique(x)", "")],
    "unfuse-expand-dims": [(X, "y = com.example.ExpandDims(x, x)", "")],
    "unfuse-gather-nd": [
        ("(float[3,4] x, int64[2,2] i) => (float[2] y)", "y = GatherND(x, i)", "")
    ],
    "unfuse-pad": [("(float[3,4] x, int64[4] p) => (y)", "y = Pad(x, p)", "")],
    "unfuse-range": [("(a, b) => (y)", "y = com.microsoft.Range(a, b)", "type of a is unknown")],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-trilu": of_cases(DRAWN["Trilu"]),
    "unfuse-unique": of_cases(DRAWN["Unique"], used=(0, 1, 2), outputs=3),
    "unfuse-expand-dims": of_cases(DRAWN["ExpandDims"]),
    "unfuse-gather-nd": of_cases(DRAWN["GatherND"]),
    "unfuse-pad": of_cases(DRAWN["Pad"]),
    "unfuse-range": of_cases(DRAWN["Range"]),
}
