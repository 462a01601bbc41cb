"""Write what PyTorch computes for the resizes of test_substitute_aten.py; needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

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
