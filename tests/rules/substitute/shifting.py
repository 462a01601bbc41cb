"""Rules of substitute.shifting: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints


def steps(draw: Draw) -> list[ir.Value]:
    width = draw.dtype.itemsize * 8
    return [draw.constant(np.array(draw.rng.integers(0, width)).astype(draw.dtype))]


def direction(draw: Draw) -> Mapping[str, object]:
    return {"direction": draw.choose(("LEFT", "RIGHT"))}


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "bit-shift-to-power": [
        (
            "(uint8[2,n] x, uint8[n] s) => (uint8[2,n] y)",
            f'y = BitShift<direction="{way}">(x, s)',
            "",
        )
        for way in ("LEFT", "RIGHT")
    ]
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "bit-shift-to-power": [
        (
            "(uint64[2,n] x, uint64[n] s) => (uint64[2,n] y)",
            'y = BitShift<direction="LEFT">(x, s)',
            "no signed type holds all of uint64",
        )
    ]
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "bit-shift-to-power": {
        "any": "T[a,b]",
        "BitShift+": steps,
        "node": direction,
        "dtypes": ("uint8", "uint16", "uint32"),
    }
}
