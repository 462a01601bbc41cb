"""Rules of unfuse.channels: what they do to graphs, why they leave some alone."""

from __future__ import annotations

HEAD = """(float[2,h,w,8] x, float[8] g, float[8] b, float[2,8] s)
    => (float[2,h,w,8] y, float[2,h,w,8] t)"""
ONE = HEAD.replace(", float[2,h,w,8] t", "")
GROUPS = "activation=1, groups=2"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-group-norm": [(ONE, f"y = com.microsoft.GroupNorm<{GROUPS}>(x, g, b)", "")],
    "unfuse-skip-group-norm": [
        (HEAD, f"y, t = com.microsoft.SkipGroupNorm<{GROUPS}>(x, g, b, s)", "")
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-group-norm": [
        (
            ONE,
            "y = com.microsoft.GroupNorm<activation=2, groups=2>(x, g, b)",
            "its activation is number 2",
        )
    ],
    "unfuse-skip-group-norm": [
        (
            "(x, g, b, s) => (y)",
            f"y = com.microsoft.SkipGroupNorm<{GROUPS}>(x, g, b, s)",
            "types",
        )
    ],
}
