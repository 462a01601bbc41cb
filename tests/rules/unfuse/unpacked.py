"""Rules of unfuse.unpacked: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.quantised import matmul_nbits

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = "(float[n,16] x, uint8[2,1,8] b, float[2,1] s) => (float[n,2] y)"
BYTES = "w = Constant<value = uint8[2,1,8] {1,2,3,4,5,6,7,8,9,250,11,12,13,14,15,16}>()"
SIZES = "K=16, N=2, bits=4, block_size=16"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-mat-mul-nbits": [(HEAD, f"{BYTES} y = com.microsoft.MatMulNBits<{SIZES}>(x, w, s)", "")]
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-mat-mul-nbits": [
        (
            HEAD,
            f"y = com.microsoft.MatMulNBits<{SIZES}>(x, b, s)",
            "its weights are no constant bytes",
        ),
        (
            HEAD,
            f"{BYTES} y = com.microsoft.MatMulNBits<{SIZES}, weight_prepacked=1>(x, w, s)",
            "packed for one kind of device",
        ),
        (
            HEAD,
            f"{BYTES} y = com.microsoft.MatMulNBits<{SIZES.replace('=2', '=3')}>(x, w, s)",
            "its weights are not 3 rows of 16 times 4 bits",
        ),
        (
            HEAD,
            f"""{BYTES} z = Constant<value = uint8[2,1] {{3, 4}}>()
            g = Constant<value = int32[16] {{{", ".join("0" * 16)}}}>()
            y = com.microsoft.MatMulNBits<{SIZES}>(x, w, s, z, g)""",
            "its kernel leaves out zero points of few bits beside a g_idx",
        ),
    ]
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {"unfuse-mat-mul-nbits": of_cases(matmul_nbits)}
