"""Rules of unfuse.tabled: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.tabled import matmul_bnb4

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = "(float[n,16] x, uint8[16] b, float[2] s) => (float[n,2] y)"
SIZES = "K=16, N=2, block_size=16, quant_type=1"


def _product(sizes: str = SIZES) -> str:
    return f"y = com.microsoft.MatMulBnb4<{sizes}>(x, b, s)"


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {"unfuse-mat-mul-bnb4": [(HEAD, _product(), "")]}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-mat-mul-bnb4": [
        (HEAD, _product(f"{SIZES}, transB=0"), "its weight is not stored by outputs"),
        (HEAD, _product(SIZES.replace("type=1", "type=2")), "its quant_type is 2"),
        (HEAD, _product(SIZES.replace("K=16", "K=0")), "its K is 0"),
        (HEAD, _product(SIZES.replace("block_size=16", "block_size=0")), "its block_size is 0"),
        ("(x, b, s) => (y)", _product(), "types"),
    ]
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {"unfuse-mat-mul-bnb4": of_cases(matmul_bnb4)}
