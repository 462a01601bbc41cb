"""Export quantised layers in their libraries' spellings with both torch exporters.

    python tests/quant/make_layers.py tests/quant/layers

Needs the `torch` extra; the files it writes are kept in the repository so that tests do not. Beside
each layer's exports lies what it was made of, an input and the weight that PyTorch computes.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Kind:
    """A layer: how it is quantised, how that is spelled, and what it is exported with."""

    name: str
    exports: tuple[str, ...]
    bits: int = 4
    inputs: int = 64
    outputs: int = 16
    group: int = 32
    spelling: str = "call"  # call, operator or division; awq for AWQ's order of columns
    one_less: bool = True  # the first GPTQ format stores zero points less one
    symmetric: bool = False
    act_order: bool = False
    single: bool = False  # float32 instead of float16


KINDS = (
    Kind("gptq2", ("ts18", "dyn18"), bits=2),
    Kind("gptq4_act", ("ts18", "dyn18"), act_order=True),
    Kind("gptq8_act_v2", ("ts17", "dyn18"), 8, act_order=True, spelling="division", one_less=False),
    Kind("gptq4_ragged", ("ts18",), inputs=80, act_order=True, spelling="operator"),
    Kind("gptq4_symmetric", ("dyn18",), symmetric=True, one_less=False),
    Kind("gptq4_one_group", ("ts18",), inputs=96, group=96, single=True),
    Kind("awq4", ("ts18", "dyn18"), spelling="awq", one_less=False),
)
_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]


def _words(numbers: Tensor, bits: int) -> Tensor:
    """Pack the last axis into int32."""
    parts = numbers.reshape(*numbers.shape[:-1], -1, 32 // bits).long()
    words = (parts << torch.arange(0, 32, bits)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


class Layer(nn.Module):
    """x @ weight + bias, the weight unpacked and dequantised on the way."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        dtype = torch.float32 if kind.single else torch.float16
        groups = -(-kind.inputs // kind.group)
        top = 1 << kind.bits
        zeros = torch.randint(1, top, (groups, kind.outputs))
        if kind.symmetric:
            zeros[...] = top // 2
        numbers = torch.randint(0, top, (kind.inputs, kind.outputs))
        stored = zeros - 1 if kind.one_less else zeros
        awq = kind.spelling == "awq"
        self.register_buffer(
            "qweight",
            _words(numbers, kind.bits) if awq else _words(numbers.T, kind.bits).T.contiguous(),
        )
        self.register_buffer("qzeros", _words(stored, kind.bits))
        self.register_buffer("scales", (0.01 + 0.01 * torch.rand(groups, kind.outputs)).to(dtype))
        order = torch.randperm(kind.inputs) if kind.act_order else torch.arange(kind.inputs)
        self.register_buffer("g_idx", (torch.arange(kind.inputs) // kind.group)[order].int())
        self.register_buffer("wf", torch.arange(0, 32, kind.bits, dtype=torch.int32)[None])
        self.bias = nn.Parameter(torch.randn(kind.outputs).to(dtype))

    def _unpack(self, packed: Tensor, shifts: Tensor) -> Tensor:
        mask = 2**self.kind.bits - 1
        if self.kind.spelling == "operator":
            return (packed >> shifts) & mask
        if self.kind.spelling == "division":
            wide = packed.to(torch.int64) % 2**32
            divided = torch.div(wide, 2 ** shifts.to(torch.int64), rounding_mode="floor")
            return divided % (mask + 1)
        small = torch.int16 if self.kind.bits == 8 else torch.int8
        return torch.bitwise_and(torch.bitwise_right_shift(packed, shifts).to(small), mask)

    def weight(self) -> Tensor:
        """As GPTQModel's plain torch kernel computes it."""
        if self.kind.spelling == "awq":
            return self._awq_weight()
        each = 32 // self.kind.bits
        zeros = self._unpack(self.qzeros[:, :, None].expand(-1, -1, each), self.wf[None])
        if self.kind.one_less:
            zeros = zeros + 1
        zeros = zeros.reshape(self.scales.shape)
        numbers = self._unpack(self.qweight[:, None, :].expand(-1, each, -1), self.wf[..., None])
        numbers = numbers.reshape(-1, numbers.shape[2])[: self.kind.inputs]
        groups = self.g_idx.long()
        return self.scales[groups] * (numbers - zeros[groups])

    def _awq_weight(self) -> Tensor:
        """As AutoAWQ's plain torch kernel computes it."""
        shifts = torch.arange(0, 32, self.kind.bits)
        each = 32 // self.kind.bits

        def spread(packed: Tensor) -> Tensor:
            parts = torch.bitwise_right_shift(packed[:, :, None], shifts[None, None, :])
            return parts.to(torch.int8).view(packed.shape[0], -1)

        numbers, zeros = spread(self.qweight), spread(self.qzeros)
        order = torch.arange(zeros.shape[-1]).view(-1, each)[:, _AWQ_ORDER].view(-1)
        zeros, numbers = zeros[:, order], numbers[:, order]
        mask = 2**self.kind.bits - 1
        numbers, zeros = torch.bitwise_and(numbers, mask), torch.bitwise_and(zeros, mask)
        scales = self.scales.repeat_interleave(self.kind.group, dim=0)
        return (numbers - zeros.repeat_interleave(self.kind.group, dim=0)) * scales

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.kind.outputs)
        made = torch.matmul(x.reshape(-1, x.shape[-1]), self.weight().to(x.dtype)).to(x.dtype)
        return made.reshape(shape) + self.bias


def _export(layer: Layer, x: Tensor, exporter: str, opset: int, path: Path) -> None:
    names = {"input_names": ["x"], "output_names": ["y"]}
    if exporter == "ts":
        torch.onnx.export(
            layer, (x,), str(path), dynamo=False, opset_version=opset, do_constant_folding=False,
            dynamic_axes={"x": {0: "batch", 1: "seq"}}, **names,
        )  # fmt: skip
        return
    free = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        layer, (x,), dynamo=True, opset_version=opset, dynamic_shapes=({0: free, 1: free},),
        optimize=False, verbose=False, **names,
    )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    model = onnx.load(str(path))
    for node in [*model.graph.node, *(node for each in model.functions for node in each.node)]:
        del node.metadata_props[:]  # stack traces, most of the file
    onnx.save(model, str(path))


def main(folder: Path) -> None:
    """Write every layer: `name.exporter.onnx`, `name.npz` and `index.json`."""
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for kind in KINDS:
        torch.manual_seed(0)
        layer = Layer(kind).eval()
        x = torch.randn(2, 3, kind.inputs).to(layer.scales.dtype)
        for export in kind.exports:
            exporter, opset = export[:-2], int(export[-2:])
            _export(layer, x, exporter, opset, folder / f"{kind.name}.{export}.onnx")
        arrays = {name: value.numpy() for name, value in layer.named_buffers() if name != "wf"}
        arrays |= {"x": x.numpy(), "bias": layer.bias.detach().numpy()}
        np.savez_compressed(folder / f"{kind.name}.npz", weight=layer.weight().numpy(), **arrays)
        index.append(asdict(kind))
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
