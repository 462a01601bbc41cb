"""Rules of unfuse.projected: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.projections import attention, quantised_attention

from rules.from_cases import of_cases
from rules.instances import Hints

DENSE = """(float[2,n,4] x, float[4,24] w, float[24] b, int32[1] l, float[2,2,2,5,4] p)
    => (float[2,n,8] y)"""
BYTES = """(uint8[2,n,4] x, uint8[4,24] w, float[24] b, float i, float j) => (float[2,n,8] y)"""
PACKED = """(float[t,4] x, float[4,24] w, float[24] b, int32[2,n] o, int32[3] c)
    => (float[t,8] y)"""

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-contrib-attention": [
        (DENSE, "y = com.microsoft.Attention<num_heads=2>(x, w, b)", ""),
        (DENSE, "y, q = com.microsoft.Attention<num_heads=2, unidirectional=1>(x, w, b, , p)", ""),
        (
            DENSE.replace("[2,n,", "[2,1,"),
            "y = com.microsoft.Attention<num_heads=2, unidirectional=1>(x, w, b)",
            "",
        ),
    ],
    "unfuse-quantized-attention": [
        (BYTES, "y = com.microsoft.QAttention<num_heads=2>(x, w, b, i, j)", "")
    ],
    "unfuse-packed-attention": [
        (PACKED, "y = com.microsoft.PackedAttention<num_heads=2>(x, w, b, o, c)", "")
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-contrib-attention": [
        (
            DENSE,
            "y = com.microsoft.Attention<num_heads=2, do_rotary=1>(x, w, b)",
            "it turns queries and keys by angles that it does not say",
        ),
        (
            DENSE,
            """y, q = com.microsoft.Attention<num_heads=2, past_present_share_buffer=1>
                (x, w, b, , p, , l)""",
            "its past and present share a buffer",
        ),
        (
            DENSE.replace("int32[1] l", "int32[m] l").replace("float[2,n,4]", "float[k,n,4]"),
            "y = com.microsoft.Attention<num_heads=2>(x, w, b, l)",
            "depends on the size of the batch",
        ),
    ],
    "unfuse-quantized-attention": [
        (
            BYTES,
            "y = com.microsoft.QAttention<num_heads=2, do_rotary=1>(x, w, b, i, j)",
            "it turns queries and keys by angles that it does not say",
        )
    ],
    "unfuse-packed-attention": [
        (
            "(x, w, b, o, c) => (y)",
            "y = com.microsoft.PackedAttention<num_heads=2>(x, w, b, o, c)",
            "types",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-contrib-attention": of_cases(attention, lambda case: case.tolerance <= 2e-5),
    "unfuse-quantized-attention": of_cases(
        quantised_attention, lambda case: case.tolerance <= 2e-5
    ),
}
