"""Export the vision tower and Resampler of a MiniCPM-V for two runtimes, image sizes left open.

The positions of the tower are interpolated to the image's grid, bicubic and antialiased, which no
opset before 18 has and TensorRT has in none; the result says that in products of matrices.

    python examples/pytorch/vision_tower.py  # two small layers
    python examples/pytorch/vision_tower.py --layers 27 --width 1152  # as in MiniCPM-V 2.0
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import vlmpass

PATCH, GRID, QUERIES = 14, 8, 16


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Tower(nn.Module):
    """Patches, positions for the grid that the image has, layers, and a fixed number of queries."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn(1, width, GRID, GRID) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.queries = nn.Parameter(torch.randn(1, QUERIES, width) * 0.02)
        self.resample = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image)
        x = x + nn.functional.interpolate(
            self.positions, size=x.shape[-2:], mode="bicubic", antialias=True, align_corners=False
        )
        x = self.norms[0](self.layers(x.flatten(2).transpose(1, 2)))
        queries = self.queries.expand(x.shape[0], -1, -1)
        return self.norms[1](self.resample(queries, x, x, need_weights=False)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    given = parser.parse_args()
    torch.manual_seed(0)
    tower = Tower(given.width, 16, given.layers).eval()
    image = torch.randn(1, 3, 6 * PATCH, 5 * PATCH)
    rows, columns = (
        torch.export.Dim("rows", min=2, max=64),
        torch.export.Dim("columns", min=2, max=64),
    )
    dynamic = {"image": {2: PATCH * rows, 3: PATCH * columns}}
    with tempfile.TemporaryDirectory() as folder:
        for target in ("ort-cpu", "tensorrt-10.15"):
            path = Path(folder) / f"{target}.onnx"
            try:
                report = vlmpass.export(
                    tower, (image,), path, dynamic=dynamic,
                    pipeline=vlmpass.Pipeline(opset=17, target=target),
                )  # fmt: skip
            except vlmpass.VlmpassError as error:  # nothing was written
                print(f"{target}: refused: {error}", file=sys.stderr)
                return 2
            nodes = [each.facts.nodes for each in (report.before, report.after)]
            print(f"{target}: {nodes[0]} nodes of the export, {nodes[1]} at opset 17")
            print(*(f"    {note}" for note in report.notes if "the module" in note), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
