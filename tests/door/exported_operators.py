"""Operators that PyTorch's exporters refuse or lower late, through both at opsets 14 to 18.

    python tests/door/exported_operators.py  # prints the table of docs/pytorch.md

Every export is compared with the module at two sizes of every dynamic dimension. A test takes a
sample with a seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import vlmpass

EXPORTERS = ("dynamo", "torchscript")
OPSETS = (14, 15, 16, 17, 18)
resize = torch.nn.functional.interpolate


class Resized(torch.nn.Module):
    """An antialiased resize, to a size or by scales."""

    def __init__(self, mode, **asked):
        super().__init__()
        self.asked = {"mode": mode, "antialias": True, **asked}

    def forward(self, x):
        return resize(x, **self.asked)


class ToGrid(torch.nn.Module):
    """Positions brought to the grid of an image, as a MiniCPM-V does it."""

    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.positions = torch.nn.Parameter(torch.randn(1, 4, 8, 8))

    def forward(self, x):
        size = x.shape[-2:]
        return resize(self.positions, size=size, mode=self.mode, antialias=True) + x[:, :1]


class Buckets(torch.nn.Module):
    """Places of fractions between borders, as a NaViT's position ids are computed."""

    def __init__(self, **asked):
        super().__init__()
        self.asked = asked
        self.register_buffer("borders", torch.arange(1 / 8, 1.0, 1 / 8))

    def forward(self, x):
        return torch.bucketize(x, self.borders, **self.asked)


class Placed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("borders", torch.linspace(-1, 1, 9))

    def forward(self, x):
        return torch.searchsorted(self.borders, x)


MODULES = {
    "`_upsample_bicubic2d_aa`, a size": lambda: Resized("bicubic", size=(5, 13)),
    "`_upsample_bicubic2d_aa`, the size of another": lambda: ToGrid("bicubic"),
    "`_upsample_bicubic2d_aa`, scales": lambda: Resized("bicubic", scale_factor=(0.5, 1.5)),
    "`_upsample_bicubic2d_aa`, corners": lambda: Resized(
        "bicubic", size=(5, 13), align_corners=True
    ),
    "`_upsample_bilinear2d_aa`, a size": lambda: Resized("bilinear", size=(5, 13)),
    "`_upsample_bilinear2d_aa`, scales": lambda: Resized("bilinear", scale_factor=(0.5, 1.5)),
    "`_upsample_bilinear2d_aa`, corners": lambda: Resized(
        "bilinear", size=(5, 13), align_corners=True
    ),
    "`bucketize`": Buckets,
    "`bucketize`, right": lambda: Buckets(right=True),
    "`searchsorted`": Placed,
}
CASES = [(name, exporter, opset) for name in MODULES for exporter in EXPORTERS for opset in OPSETS]


def off_by(name: str, exporter: str, opset: int, path: Path) -> float:
    """Export one, and return by how much it is off at most at the two sizes.

    Raises:
        AssertionError: It was compared at one size only.
        VlmpassError: It is refused.
    """
    torch.manual_seed(opset)
    varies = torch.export.Dim.DYNAMIC
    axes = {0: varies, 2: varies, 3: varies} if "another" not in name else {2: varies, 3: varies}
    report = vlmpass.export(
        MODULES[name]().eval(), (torch.rand(2, 4, 9, 11),), path,
        dynamic=(axes,), opset=opset, exporter=exporter,
    )  # fmt: skip
    told = [note for note in report.notes if note.startswith("computes what the module does at")]
    assert len(told) == 2, report.notes
    assert report.model.opset_imports[""] == opset
    return max(float(note.split("off by ")[1].split()[0]) for note in told)


def main() -> None:
    print("| operator | dynamo | TorchScript |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODULES:
            cells = []
            for exporter in EXPORTERS:
                try:
                    path = Path(folder) / "m.onnx"
                    most = max(off_by(name, exporter, opset, path) for opset in OPSETS)
                    cells.append(f"{most:.1e}")
                except vlmpass.VlmpassError as error:
                    cells.append(f"refused: {str(error).splitlines()[0]}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
