"""The vision tower and Resampler of a MiniCPM-V 2.0 for two runtimes, image sizes left open.

The positions of the tower are interpolated to the image's grid, bicubic and antialiased, which no
opset before 18 has and TensorRT has in none; the result says that in products of matrices.

    python examples/systems/minicpm_v.py  # two small layers
    python examples/systems/minicpm_v.py --layers 26 --width 1152  # as in MiniCPM-V 2.0
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from shown import furthest, on_onnxruntime, refusal, show
from torch import nn

import vlmpass

PATCH, GRID, QUERIES, HEADS = 14, 8, 16, 16


class Layer(nn.Module):
    """A layer of SigLIP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Tower(nn.Module):
    """Patches, learned positions brought to the grid that the image has, and layers."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.positions = nn.Parameter(torch.randn(1, width, GRID, GRID) * 0.02)
        self.layers = nn.Sequential(*(Layer(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, int, int]:
        x = self.patches(image)
        rows, columns = x.shape[-2:]
        x = x + nn.functional.interpolate(
            self.positions, size=(rows, columns), mode="bicubic", antialias=True,
            align_corners=False,
        )  # fmt: skip
        return self.norm(self.layers(x.flatten(2).transpose(1, 2))), rows, columns


class Resampler(nn.Module):
    """A fixed number of queries look at the patches, whose place in the grid is added in waves."""

    def __init__(self, seen: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, QUERIES, width) * 0.02)
        side = int(QUERIES**0.5)
        self.register_buffer("frequencies", 1e4 ** -(torch.arange(width // 4) / (width // 4)))
        self.register_buffer("places", self.waves(side, side))
        self.keys = nn.Linear(seen, width, bias=False)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.out = nn.Parameter(torch.randn(width, width) * width**-0.5)

    def waves(self, rows: int, columns: int) -> torch.Tensor:
        row, column = (torch.arange(size)[:, None] * self.frequencies for size in (rows, columns))
        row, column = (torch.cat([x.sin(), x.cos()], -1) for x in (row, column))
        both = [column[None].expand(rows, -1, -1), row[:, None].expand(-1, columns, -1)]
        return torch.cat(both, -1).flatten(0, 1)

    def forward(self, seen: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        x = self.norms[0](self.keys(seen))
        queries = self.norms[1](self.queries).expand(seen.shape[0], -1, -1) + self.places
        x = self.attention(queries, x + self.waves(rows, columns), x, need_weights=False)[0]
        return self.norms[2](x) @ self.out


class Vision(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.vpm, self.resampler = Tower(width, layers), Resampler(width, 2 * width)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.resampler(*self.vpm(image))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    given, _ = parser.parse_known_args()  # the rest is what `show` takes
    torch.manual_seed(0)
    module = Vision(given.width, given.layers).eval()
    small, large = (torch.randn(1, 3, r * PATCH, c * PATCH) for r, c in ((6, 5), (9, 12)))
    rows, columns = (torch.export.Dim(name, min=2, max=64) for name in ("rows", "columns"))
    dynamic = {"image": {2: PATCH * rows, 3: PATCH * columns}}
    fine = True
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        before = refusal(
            lambda: torch.onnx.export(
                module, (small,), Path(folder) / "refused.onnx", opset_version=17, dynamo=False
            ),
            "Exporting the operator",
        )
        for target, name in (("ort-cpu", "ONNX Runtime"), ("tensorrt-10.15", "TensorRT's profile")):
            path = Path(folder) / f"{target}.onnx"
            report = vlmpass.export(
                module, (small,), path, dynamic=dynamic,
                pipeline=vlmpass.Pipeline(opset=17, target=target),
            )  # fmt: skip
            for size in ("rows=6 columns=5", "rows=7 columns=6"):
                assert any(f"what the module does at {size}" in note for note in report.notes)
            run = on_onnxruntime(path, {"image": large.numpy()})
            error = furthest([module(large).numpy()], run())
            system = f"MiniCPM-V vision tower and Resampler, opset 17, for {name}"
            fine &= show(system, before, report, error, 1e-5, run)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
