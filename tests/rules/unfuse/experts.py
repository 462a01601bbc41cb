"""Rules of unfuse.experts: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.experts import experts, quantised_experts

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = """(float[n,4] x, float[n,3] r, float[3,6,4] v, float[3,4,3] w, float[3,4,6] u)
    => (float[n,4] y)"""
BYTES = "(float[n,2] x, float[n,1] r, float[1,2] s) => (float[n,2] y)"
WEIGHT = "w = Constant<value = uint8[1,2,1] {18, 250}>()"
NODE = "com.microsoft.QMoE"
RAW = "weights_prepacked=0, normalize_routing_weights=1"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-moe": [
        (HEAD, "y = com.microsoft.MoE<k=2>(x, r, v, , u)", ""),
        (
            HEAD,
            """y = com.microsoft.MoE<k=2, activation_type="swiglu", swiglu_fusion=1>
                (x, r, v, , w)""",
            "",
        ),
    ],
    "unfuse-quantized-moe": [
        (BYTES, f"{WEIGHT} y = {NODE}<{RAW}>(x, r, w, s, , w, s)", ""),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-moe": [
        (
            HEAD,
            "y = com.microsoft.MoE<k=2, use_sparse_mixer=1>(x, r, v, , u)",
            "its sparse mixer drops experts by a threshold",
        ),
        (
            HEAD,
            'y = com.microsoft.MoE<k=2, activation_type="tanh">(x, r, v, , u)',
            "its activation is tanh",
        ),
        (
            HEAD,
            'y = com.microsoft.MoE<k=2, activation_type="swiglu">(x, r, v, , u)',
            "swiglu has its other half twice, or not at all",
        ),
    ],
    "unfuse-quantized-moe": [
        (
            BYTES,
            f"{WEIGHT} y = {NODE}<normalize_routing_weights=1>(x, r, w, s, , w, s)",
            "its bytes are laid out for one kind of device",
        ),
        (
            BYTES,
            f"{WEIGHT} y = {NODE}<weights_prepacked=0>(x, r, w, s, , w, s)",
            "its documentation and its kernel differ in shares that are not normalised",
        ),
        (
            BYTES,
            f'{WEIGHT} y = {NODE}<{RAW}, quant_type="fp8">(x, r, w, s, , w, s)',
            "its weights are quantised as fp8",
        ),
        (
            BYTES,
            f"{WEIGHT} y = {NODE}<{RAW}, expert_weight_bits=3>(x, r, w, s, , w, s)",
            "its weights are of 3 bits",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "unfuse-moe": of_cases(experts, lambda case: case.reference is None),
    "unfuse-quantized-moe": of_cases(quantised_experts, lambda case: not case.may_stay),
}
