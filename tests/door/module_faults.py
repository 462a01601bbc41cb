"""Faults planted into modules and their exports: is the module named that they are in?

python tests/door/module_faults.py 12 0

Draws modules, exports each by both exporters, and makes one of the modules inside give something
else, or one node of the graph. `verify --layers` has to name that module; unharmed, none.
"""

from __future__ import annotations

import ast
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

import vlmpass
from vlmpass.ir_tools.run import compare_layers

WIDTH = 16


class Attention(nn.Module):
    """Gives two tensors, as attention does."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        """Attend to all."""
        scores = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2) / 4, -1)
        return self.o(scores @ x), scores


class Gated(nn.Module):
    """Two ways that meet."""

    def __init__(self, act):
        super().__init__()
        self.up, self.gate = nn.Linear(WIDTH, 24), nn.Linear(WIDTH, 24)
        self.down, self.act = nn.Linear(24, WIDTH, bias=False), act

    def forward(self, x):
        """Gate."""
        return self.down(self.act(self.gate(x)) * self.up(x))


class Mixer(nn.Module):
    """A convolution over what comes one after another."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=4)

    def forward(self, x):
        """Mix."""
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """A norm and something, beside the way through."""

    def __init__(self, inner):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(WIDTH), inner

    def forward(self, x, scale=1.0):
        """Add what is inside."""
        made = self.inner(self.norm(x))
        return x + scale * (made[0] if isinstance(made, tuple) else made)


class Net(nn.Module):
    """Blocks that are drawn, between an embedding and a head."""

    def __init__(self, rng):
        super().__init__()
        self.embed = nn.Embedding(40, WIDTH)
        shared = nn.SiLU()
        makes = {
            "attention": Attention,
            "gated": lambda: Gated(shared if rng.random() < 0.5 else nn.GELU()),
            "mixer": Mixer,
            "mlp": lambda: nn.Sequential(
                nn.Linear(WIDTH, 24), nn.ReLU(inplace=True), nn.Linear(24, WIDTH)
            ),
        }
        kinds = rng.choice([*makes], 3)
        self.layers = nn.ModuleList(Block(makes[kind]()) for kind in kinds)
        self.act, self.head = nn.Tanh(), nn.Linear(WIDTH, 5)

    def forward(self, ids):
        """Run all."""
        x = self.embed(ids)
        for number, layer in enumerate(self.layers):
            x = self.act(layer(x, scale=1.0 + number))
        return self.head(x)


def drawn(seed: int) -> nn.Module:
    """Return a module."""
    torch.manual_seed(seed)
    return Net(np.random.default_rng(seed)).eval()


def exported(module: nn.Module, path: Path, exporter: str) -> ir.Model:
    """Export a module."""
    axis = torch.export.Dim.DYNAMIC if exporter == "dynamo" else None
    sizes = {"ids": {0: axis or "batch", 1: axis or "length"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vlmpass.export(
            module, (torch.randint(0, 40, (2, 7)),), path, dynamic=sizes, exporter=exporter
        )
    return vlmpass.load(path)


def harmed(module: nn.Module, rng: np.random.Generator) -> tuple[str, object]:
    """Let one of the modules inside give something else; return its path and what undoes it."""
    own = [
        path
        for path, each in module.named_modules()
        if path and not isinstance(each, (nn.ModuleList, nn.Sequential))
    ]
    path = str(rng.choice(own))

    def change(_, __, made):
        first = made[0] if isinstance(made, tuple) else made
        moved = first * 1.05 + 0.02
        return (moved, *made[1:]) if isinstance(made, tuple) else moved

    return path, module.get_submodule(path).register_forward_hook(change)


def harmed_graph(model: ir.Model, rng: np.random.Generator) -> str:
    """Let a node of an export by dynamo give something else; return the module that it is of."""
    nodes = [
        node
        for node in model.graph
        if len(node.outputs) == 1 and node.outputs[0].dtype == ir.DataType.FLOAT
    ]
    node = nodes[rng.integers(len(nodes))]
    old = node.outputs[0]
    factor = ir.Value(name="off_by", const_value=ir.tensor(np.float32(1.05)))
    model.graph.register_initializer(factor)
    made = ir.node("Mul", [old, factor], name=f"{node.name}_off")
    made.metadata_props.update(node.metadata_props)
    new = made.outputs[0]
    new.name, old.name = old.name, f"{old.name}_right"
    new.type, new.shape = old.type, old.shape
    for user, index in tuple(old.uses()):
        if user is not made:
            user.replace_input_with(index, new)
    model.graph.outputs[:] = [new if each is old else each for each in model.graph.outputs]
    model.graph.insert_after(node, made)
    return ast.literal_eval(node.metadata_props["pkg.torch.onnx.name_scopes"])[-2]


def named(found) -> str | None:
    """Return the module that a comparison names."""
    return None if found.first is None else found.layers[found.first].module


def run(
    number: int, seed: int, folder: Path, exporters=("dynamo", "torchscript"), each: int = 4
) -> list[tuple[str | None, str | None]]:
    """Return what was planted and what was named, by pairs; the first of each module unharmed."""
    told = []
    for at in range(number):
        rng = np.random.default_rng((seed, at))
        module = drawn(1000 * seed + at)
        for exporter in exporters:
            path = folder / f"{at}.{exporter}.onnx"
            model = exported(module, path, exporter)
            told.append((None, named(compare_layers(module, model))))
            for turn in range(each):
                if turn % 2 and exporter == "dynamo":
                    wrong = vlmpass.load(path)
                    where = harmed_graph(wrong, rng)
                    told.append((where, named(compare_layers(module, wrong))))
                    continue
                where, hook = harmed(module, rng)
                sides = (module, model) if turn % 2 else (model, module)
                told.append((where, named(compare_layers(*sides))))
                hook.remove()
    return told


def main(number: int, seed: int) -> int:
    """Print how many were named; a fault beside work that an export moved may not be."""
    with tempfile.TemporaryDirectory() as folder:
        told = run(number, seed, Path(folder))
    wrong = [pair for pair in told if pair[0] != pair[1]]
    for where, found in wrong:
        print(f"planted in {where}, told {found}")
    print(f"{len(told) - len(wrong)} of {len(told)} named")
    return any(where is None for where, _ in wrong) or 20 * len(wrong) > len(told)


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:3])))
