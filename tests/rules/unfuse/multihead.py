"""Rules of unfuse.multihead: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.heads import decoder_masked, multi_head

from rules.from_cases import of_cases
from rules.instances import Hints

QKV = """(float[2,n,8] q, float[2,n,8] k, float[2,n,8] v, int32[2,2,n,n] m, int32[1,1,n] c)
    => (float[2,n,8] y)"""
ONE = """(float[2,1,8] q, float[2,1,8] k, float[2,1,8] v, float[2,2,5,4] p, int32[1,1,n] c)
    => (float[2,1,8] y)"""

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-multi-head-attention": [
        (QKV, "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v)", ""),
        (
            QKV,
            "y, pk, pv = com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v)",
            "",
        ),
    ],
    "unfuse-decoder-masked-multi-head-attention": [
        (
            ONE,
            """n = Constant<value = int32[1] {3}>()
            y, pk, pv = com.microsoft.DecoderMaskedMultiHeadAttention
                <num_heads=2, past_present_share_buffer=1>(q, k, v, , , p, p, n)""",
            "",
        )
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-multi-head-attention": [
        (
            QKV,
            "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, , m)",
            "its mask has 4 axes",
        ),
        (
            QKV.replace(",n,", ",3,").replace("int32[2,2,3,n] m", "int32[2,4] m"),
            "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, , m)",
            "its mask is for 4 keys, of which there are 3",
        ),
        (
            QKV.replace("[2,n,8] k", "[2,?,8] k").replace("[2,n,8] q", "[2,?,8] q"),
            "y = com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v)",
            "queries and keys are not known to be as many",
        ),
        (
            QKV,
            "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, , , , , , , c)",
            "beams are told by a cache_indirection",
        ),
        (
            QKV.replace("float[2,n,8] k", "float[2,m,8] k"),
            "y = com.microsoft.MultiHeadAttention<num_heads=2, unidirectional=1>(q, k, v)",
            "queries and keys are not known to be as many",
        ),
        (
            QKV.replace("float[2,n,8] q", "float[2,n,k] q"),
            "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v)",
            "the width of the query is not known before the model runs",
        ),
        ("(q) => (y)", "y = com.microsoft.MultiHeadAttention<num_heads=2>(q)", "types"),
    ],
    "unfuse-decoder-masked-multi-head-attention": [
        (
            ONE,
            """y = com.microsoft.DecoderMaskedMultiHeadAttention<num_heads=2>
                (q, k, v, , , p, p, , , c)""",
            "beams are told by a cache_indirection",
        )
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-multi-head-attention": of_cases(
        multi_head, lambda case: case.tolerance <= 2e-5 and "past_key" not in case.inputs
    ),
    "unfuse-decoder-masked-multi-head-attention": of_cases(
        decoder_masked,
        lambda case: case.tolerance <= 2e-5 and len(case.outputs) == 3,
        used=(0, 1, 2),
        outputs=3,
    ),
}
