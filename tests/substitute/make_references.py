"""Write what PyTorch computes for test_substitute_aten.py and …_operators.py; needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from tests.substitute.aten_cases import CASES

image = np.random.default_rng(0).standard_normal((1, 2, 32, 30)).astype(np.float32)
x = torch.from_numpy(image).double()  # float32 rounds the places, up to 1e-5 in the result
references = {}
for kind in ("bicubic", "bilinear"):
    for size in ("13,11", "45,50", "9,40", "1,7", "16,16"):
        for corners in (0, 1):
            y = interpolate(
                x,
                size=tuple(int(part) for part in size.split(",")),
                mode=kind,
                antialias=True,
                align_corners=bool(corners),
            )
            references[f"{kind} {size} {corners}"] = y.numpy()
y = interpolate(x, scale_factor=(0.5, 1.5), mode="bicubic", antialias=True)
references["bicubic scales"] = y.numpy()
np.savez_compressed(Path(__file__).parent / "references.npz", **references)

found = {}
for case in CASES.values():
    given = zip("abcdefgh", case.inputs, strict=False)
    arrays = {n: each[0] if isinstance(each, tuple) else each for n, each in given}
    tensors = {n: torch.from_numpy(each) for n, each in arrays.items() if each is not None}
    found[case.name] = eval(
        case.torch, {"torch": torch, "F": torch.nn.functional, **tensors}
    ).numpy()
np.savez_compressed(Path(__file__).parent / "references_operators.npz", **found)
