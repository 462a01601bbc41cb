"""Rules of substitute.approximate: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from rules.instances import Hints

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "erf-to-exp": [("(float[n] x) => (float[n] y)", "y = Erf(x)", "")],
    "sinh-to-exp": [("(float[n] x) => (float[n] y)", "y = Sinh(x)", "")],
    "cosh-to-exp": [("(float[n] x) => (float[n] y)", "y = Cosh(x)", "")],
    "tan-to-sin-and-cos": [
        ("(float[n] x) => (float[n] y)", "y = Tan(x)", "s = Sin(x) c = Cos(x) y = Div(s, c)")
    ],
    "asinh-to-log": [("(float[n] x) => (float[n] y)", "y = Asinh(x)", "")],
    "acosh-to-log": [("(float[n] x) => (float[n] y)", "y = Acosh(x)", "")],
    "atanh-to-log": [("(float[n] x) => (float[n] y)", "y = Atanh(x)", "")],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "erf-to-exp": [("(double[n] x) => (double[n] y)", "y = Erf(x)", "DOUBLE")],
    "sinh-to-exp": [("(double[n] x) => (double[n] y)", "y = Sinh(x)", "DOUBLE")],
    "cosh-to-exp": [("(double[n] x) => (double[n] y)", "y = Cosh(x)", "DOUBLE")],
    "tan-to-sin-and-cos": [("(double[n] x) => (double[n] y)", "y = Tan(x)", "DOUBLE")],
    "asinh-to-log": [("(double[n] x) => (double[n] y)", "y = Asinh(x)", "DOUBLE")],
    "acosh-to-log": [("(double[n] x) => (double[n] y)", "y = Acosh(x)", "DOUBLE")],
    "atanh-to-log": [("(double[n] x) => (double[n] y)", "y = Atanh(x)", "DOUBLE")],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {name: {"dtypes": ("float32",)} for name in FIRES}
