"""Rules of unfuse.turned: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.decoders import rotary, sectioned

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = """(float[2,2,n,8] x, int64[2,n] p, float[9,4] c, float[9,4] s, int64[n] o)
    => (float[2,2,n,8] y)"""

SECTIONS = HEAD.replace("int64[2,n] p", "int64[3,2,n] p")

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-rotary-embedding": [
        (HEAD, "y = com.microsoft.RotaryEmbedding(x, p, c, s)", ""),
        (
            HEAD.replace("float[2,2,n,8]", "float[2,n,16]"),
            "y = com.microsoft.RotaryEmbedding<interleaved=1>(x, p, c, s)",
            "",
        ),
    ],
    "unfuse-m-rotary-embedding": [
        (SECTIONS, "y = com.microsoft.MRotaryEmbedding<mrope_section=[2, 1, 1]>(x, p, c, s)", ""),
        (
            SECTIONS,
            """y = com.microsoft.MRotaryEmbedding<mrope_section=[2, 1, 1], mrope_layout=1>
                (x, p, c, s)""",
            "",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-rotary-embedding": [
        (
            HEAD,
            "y = com.microsoft.RotaryEmbedding(x, o, c, s)",
            "one axis of more than one position",
        ),
        (
            HEAD.replace("float[9,4] c", "float[9,m] c"),
            "y = com.microsoft.RotaryEmbedding(x, p, c, s)",
            "the size of its caches is not known",
        ),
    ],
    "unfuse-m-rotary-embedding": [
        (
            SECTIONS,
            "y = com.microsoft.MRotaryEmbedding<mrope_section=[2, 1, 2]>(x, p, c, s)",
            "its sections [2, 1, 2] in layout 0 are not of 4",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-rotary-embedding": of_cases(rotary),
    "unfuse-m-rotary-embedding": of_cases(sectioned),
}
