"""Rules of unfuse.rows: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from unfuse.quantised import gather_blocks

from rules.from_cases import of_cases
from rules.instances import Hints

HEAD = "(uint8[2,8] t, int64[2] i, float[2,1] s) => (float[2,16] y)"
TABLE = "w = Constant<value = uint8[2,8] {1,2,3,4,5,6,7,8,9,250,11,12,13,14,15,16}>()"
ZERO = "i0 = Constant<value = int64[2] {1, 0}>()"
NODE = "com.microsoft.GatherBlockQuantized"

# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-gather-block-quantized": [
        (HEAD, f"{TABLE} {ZERO} y = {NODE}<block_size=16>(w, i0, s)", "")
    ]
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "unfuse-gather-block-quantized": [
        (HEAD, f"y = {NODE}<block_size=16>(t, i, s)", "its table is no constant"),
        (
            HEAD,
            f"{TABLE} y = {NODE}<block_size=16, gather_axis=1, quantize_axis=0>(w, i, s)",
            "it takes no rows of a matrix with blocks along them",
        ),
        (
            HEAD,
            f"{TABLE} y = {NODE}<block_size=32>(w, i, s)",
            "rows of 16 are no blocks of 32",
        ),
    ]
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {"unfuse-gather-block-quantized": of_cases(gather_blocks)}
