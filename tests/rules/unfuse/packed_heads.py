"""Rules of unfuse.packed_heads: what they do to graphs, why they leave some alone."""

from __future__ import annotations

HEAD = """(float[t,8] q, float[t,8] k, float[t,8] v, int32[2,n] o, int32[3] c, float[t,2,3,4] p)
    => (float[t,8] y)"""

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-packed-multi-head-attention": [
        (
            HEAD,
            "y = com.microsoft.PackedMultiHeadAttention<num_heads=2>(q, k, v, , o, c)",
            "",
        )
    ]
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-packed-multi-head-attention": [
        (
            HEAD,
            "y = com.microsoft.PackedMultiHeadAttention<num_heads=2>(p, , , , o, c)",
            "its queries, keys and values are packed in one tensor",
        )
    ]
}
