"""Rules of unfuse.grouped: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.decoders import grouped

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = """(float[2,n,32] q, float[2,n,16] k, float[2,n,16] v, int32[2] s, int32 t,
    int8[2,1,n,16] p, float[1] f) => (float[2,n,32] y)"""
NONE = "num_heads=2, kv_num_heads=1"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-group-query-attention": [
        (
            HEAD.replace("2,n,", "2,4,"),
            f"""a = Constant<value = int32[2] {{3, 3}}>() b = Constant<value = int32 {{4}}>()
            y, k1, v1 = com.microsoft.GroupQueryAttention<{NONE}>(q, k, v, , , a, b)""",
            "",
        )
    ]
}


def _refused(attributes: str, inputs: str, reason: str) -> tuple[str, str, str]:
    text = f"y, k1, v1 = com.microsoft.GroupQueryAttention<{NONE}{attributes}>({inputs})"
    return HEAD, text, reason


_ALONE = "q, k, v, , , s, t"

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-group-query-attention": [
        _refused(', k_quant_type="PER_TENSOR"', _ALONE, "its cache is quantised"),
        _refused(", kv_cache_bit_width=8", "q, k, v, p, p, s, t", "its cache is quantised"),
        _refused("", f"{_ALONE}, , , , , , f, f", "its cache is quantised"),
        _refused(", sliding_window_cache=1", _ALONE, "its cache holds a window of tokens"),
        _refused("", f"{_ALONE}, , , , , , , , , , s", "its padded chunks are not causal, or have"),
        (
            HEAD.replace("=> (float[2,n,32] y)", "=> (float[2,n,32] y, float[2,2,n,n] r)"),
            f"""y, k1, v1, r = com.microsoft.GroupQueryAttention<{NONE}, qk_output=1>({_ALONE})""",
            "its scores are an output",
        ),
    ]
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-group-query-attention": of_cases(
        grouped,
        lambda case: bool(case.compared["y"].all() and case.compared["pk"].all()),
        used=(0, 1, 2),
        outputs=3,
    )
}
