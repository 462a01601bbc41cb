"""Rules of unfuse.embedded: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.layers import embed
from unfuse.tabled import q_embed

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = """(int32[2,n] i, float[9,8] w, float[9,8] p, float[8] g, float[8] b)
    => (float[2,n,8] y, int32[2] m, float[2,n,8] s)"""

NUMBERS = """(int32[2,n] i, uint8[9,8] w, uint8[9,8] p, uint8[8] g, uint8[8] b, float s, uint8 z)
    => (float[2,n,8] y, int32[2] m)"""
ROUNDED = """y, m = com.microsoft.QEmbedLayerNormalization(i, , w, p, , g, b, , s, s, , s, s,
    z, z, , z, z)"""

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-embed-layer-normalization": [
        (HEAD, "y, m, s = com.microsoft.EmbedLayerNormalization(i, , w, p, , g, b)", "")
    ],
    "unfuse-q-embed-layer-normalization": [(NUMBERS, ROUNDED, "")],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-embed-layer-normalization": [
        (
            "(i, w, p, g, b) => (y, m, s)",
            "y, m, s = com.microsoft.EmbedLayerNormalization(i, , w, p, , g, b)",
            "types",
        )
    ],
    "unfuse-q-embed-layer-normalization": [
        (NUMBERS, ROUNDED.replace("s, s, ,", "s, , ,"), "position_embedding_scale is missing")
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-embed-layer-normalization": of_cases(embed, outputs=3),
    "unfuse-q-embed-layer-normalization": of_cases(q_embed, outputs=2),
}
