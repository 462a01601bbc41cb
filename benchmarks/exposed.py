"""A tower whose every layer gives out what it computed, as models made for debugging do.

Half of the values of a layer are outputs of the graph; half precision comes and goes by Casts, a
mean has its axes as an attribute, and two Transposes undo each other.

    python benchmarks/growth.py --make exposed /tmp/exposed.onnx 20000
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
from cached import size, vector, write
from decoder import IR_VERSION, Builder, Config, WeightWriter, rms_norm

PER_LAYER = 29
"""Nodes of a layer."""


def _layer(b: Builder, x: ir.Value, name: str) -> Iterator[ir.Value]:
    """Yield what a layer gives out; the last one goes into the next layer."""
    yield b("Sub", x, b("ReduceMean", x, axes=[-1], keepdims=1))
    back = b("Transpose", b("Transpose", x, perm=[1, 0, 2]), perm=[1, 0, 2])
    yield back
    normal = rms_norm(b, back, f"{name}.norm")
    yield normal
    half = b("Cast", normal, to=ir.DataType.FLOAT16.value)
    yield b("Cast", b("Mul", half, half), to=ir.DataType.FLOAT.value)
    flat = b("Reshape", normal, vector(b, size(b, x, 0), -1))
    joined = b("Reshape", b("Tanh", flat), vector(b, size(b, x, 0), size(b, x, 1), b.config.hidden))
    yield b("Add", x, joined)


def build(path: Path, config: Config) -> ir.Model:
    """Stream the weights next to `path` and return the model, not yet written."""
    weights = WeightWriter(path, config)
    b = Builder(config, weights)
    shape = ["batch", "seq", config.hidden]
    x = first = ir.val("x", dtype=b.dtype, shape=shape)
    outputs: list[ir.Value] = []
    for layer in range(config.layers):
        b.scope = f"/model/layers.{layer}"
        made = [*_layer(b, x, f"model.layers.{layer}")]
        for part, value in enumerate(made):
            value.name = f"layers.{layer}.{part}"
        outputs += made
        x = made[-1]
    for value in outputs:
        value.type, value.shape = ir.TensorType(b.dtype), ir.Shape(shape)
    weights.close()
    graph = ir.Graph(
        [first],
        outputs,
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports={"": config.opset},
        name="exposed",
    )
    return ir.Model(graph, ir_version=IR_VERSION[config.opset], producer_name="exposed")


def make(path: Path, nodes: int, opset: int = 17) -> None:
    """Write a tower of about so many nodes and its data file."""
    write(build, PER_LAYER, path, nodes, opset)
