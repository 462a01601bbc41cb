"""Vision towers with functions and subgraphs: what exporters of modules and of control flow write.

Each tower takes its own image: a convolution into patches, layers whose norms are calls of a
function, every fourth layer behind an If, every eighth with a Loop; then all towers are pooled.

    python benchmarks/towers.py /tmp/towers.onnx --nodes 20000
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from decoder import IR_VERSION, Builder, Config, WeightWriter

PER_LAYER = 47
"""Nodes of a layer, those in its subgraphs included."""
LAYERS = 24
SMALL = Config(hidden=16, heads=2, kv_heads=2, intermediate=32)
DOMAIN = "vision.modules"
PATCH = 4


def _norm_function(config: Config) -> ir.Function:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias, as a module's function."""
    x, weight, bias = (ir.val(name) for name in ("x", "weight", "bias"))
    nodes: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(kind, inputs, attributes=attributes)  # type: ignore[arg-type]
        node.name, node.outputs[0].name = f"{kind}_{len(nodes)}", f"{kind}_{len(nodes)}_out"
        nodes.append(node)
        return node.outputs[0]

    def number(value: float) -> ir.Value:
        return op("Constant", value=ir.tensor(np.array(value, np.float32)))

    centred = op("Sub", x, op("ReduceMean", x, axes=[-1], keepdims=1))
    square = op("ReduceMean", op("Pow", centred, number(2.0)), axes=[-1], keepdims=1)
    normal = op("Div", centred, op("Sqrt", op("Add", square, number(1e-5))))
    result = op("Add", op("Mul", normal, weight), bias)
    imports = {"": config.opset}
    graph = ir.Graph([x, weight, bias], [result], nodes=nodes, opset_imports=imports, name="norm")
    return ir.Function(DOMAIN, "LayerNorm", "", graph=graph, attributes=[])


def _call(b: Builder, node: ir.Node, label: str) -> ir.Value:
    node.name = f"{b.scope}/{label}_{len(b.initializers)}_{len(b.nodes)}"
    node.outputs[0].name = f"{node.name}_output_0"
    b.nodes.append(node)
    return node.outputs[0]


def _norm(b: Builder, x: ir.Value, name: str) -> ir.Value:
    width = b.config.hidden
    inputs = [x, b.weight(f"{name}.weight", width, ones=True), b.weight(f"{name}.bias", width)]
    return _call(b, ir.node("LayerNorm", inputs, domain=DOMAIN), "norm")


def _linear(b: Builder, x: ir.Value, name: str, width: int, out: int) -> ir.Value:
    product = b("MatMul", x, b.weight(f"{name}.weight", width, out))
    return b("Add", b.weight(f"{name}.bias", out), product)


def _graph(
    b: Builder, name: str, build: Callable[[], list[ir.Value]], inputs: tuple[ir.Value, ...] = ()
) -> ir.Graph:
    """Return a subgraph of the nodes that a function appends."""
    outer, b.nodes = b.nodes, []
    outputs = build()
    graph = ir.Graph(inputs, outputs, nodes=b.nodes, name=name)
    b.nodes = outer
    return graph


def _mlp(b: Builder, x: ir.Value, name: str) -> ir.Value:
    """Two linear layers around a GELU in primitive operators."""
    c = b.config
    wide = _linear(b, x, f"{name}.fc1", c.hidden, c.intermediate)
    error = b("Erf", b("Div", wide, b.number(2**0.5)))
    half = b("Mul", b("Mul", wide, b("Add", error, b.number(1.0))), b.number(0.5))
    return _linear(b, half, f"{name}.fc2", c.intermediate, c.hidden)


def _heads(b: Builder, x: ir.Value) -> ir.Value:
    c = b.config
    shape = b("Shape", x)
    kept = b("Slice", shape, b.const([0]), b.const([2]), b.const([0]))
    target = b("Concat", kept, b.const([c.heads, c.head_dim]), axis=0)
    return b("Transpose", b("Reshape", x, target), perm=[0, 2, 1, 3])


def _attention(b: Builder, x: ir.Value, name: str) -> ir.Value:
    c = b.config
    query, key, value = (
        _heads(b, _linear(b, x, f"{name}.{part}", c.hidden, c.hidden)) for part in "qkv"
    )
    scores = b("MatMul", query, b("Transpose", key, perm=[0, 1, 3, 2]))
    weights = b("Softmax", b("Mul", scores, b.number(c.head_dim**-0.5)), axis=-1)
    mixed = b("Transpose", b("MatMul", weights, value), perm=[0, 2, 1, 3])
    kept = b("Slice", b("Shape", x), b.const([0]), b.const([2]), b.const([0]))
    joined = b("Reshape", mixed, b("Concat", kept, b.const([-1]), axis=0))
    return _linear(b, joined, f"{name}.out", c.hidden, c.hidden)


def _either(b: Builder, x: ir.Value, name: str, training: ir.Value) -> ir.Value:
    """Choose between a feed-forward and half of its input."""
    full = _graph(b, f"{name}.full", lambda: [_mlp(b, x, name)])
    short = _graph(b, f"{name}.short", lambda: [b("Mul", x, b.number(0.5))])
    branches = {"then_branch": short, "else_branch": full}
    return _call(b, ir.node("If", [training], attributes=branches), "If")


def _smoothed(b: Builder, x: ir.Value, name: str, training: ir.Value) -> ir.Value:
    """Average with the mean over tokens, twice."""
    step, kept = ir.val("step", ir.DataType.INT64, []), ir.val("kept", ir.DataType.BOOL, [])
    carried = ir.val(f"{name}.carried", b.dtype, list(x.shape or ["b", "t", b.config.hidden]))
    step.name, kept.name = f"{name}.step", f"{name}.kept"

    def body() -> list[ir.Value]:
        mean = b("ReduceMean", carried, axes=[1], keepdims=1)
        mixed = b("Mul", b("Add", carried, mean), b.number(0.5))
        return [b("Identity", kept), mixed]

    graph = _graph(b, f"{name}.body", body, (step, kept, carried))
    go = b("Not", training)
    inputs = [b.const(2), go, x]
    return _call(b, ir.node("Loop", inputs, attributes={"body": graph}), "Loop")


def _tower(b: Builder, pixels: ir.Value, name: str, layers: int, training: ir.Value) -> ir.Value:
    c = b.config
    kernel = b.weight(f"{name}.patch.weight", c.hidden, 3, PATCH, PATCH)
    patches = b("Conv", pixels, kernel, strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH])
    kept = b("Slice", b("Shape", patches), b.const([0]), b.const([2]), b.const([0]))
    flat = b("Reshape", patches, b("Concat", kept, b.const([-1]), axis=0))
    x = b("Transpose", flat, perm=[0, 2, 1])
    for layer in range(layers):
        b.scope = f"/{name}/layers.{layer}"
        here = f"{name}.layers.{layer}"
        x = b("Add", x, _attention(b, _norm(b, x, f"{here}.norm1"), f"{here}.attn"))
        normal = _norm(b, x, f"{here}.norm2")
        made = _either(b, normal, f"{here}.mlp", training) if layer % 4 == 3 else None
        x = b("Add", x, _mlp(b, normal, f"{here}.mlp") if made is None else made)
        if layer % 8 == 7:
            x = _smoothed(b, x, f"{here}.smooth", training)
    return b("ReduceMean", _norm(b, x, f"{name}.norm"), axes=[1], keepdims=0)


def build(path: Path, config: Config) -> ir.Model:
    """Stream the weights next to `path`; `config.layers` counts those of all towers."""
    weights = WeightWriter(path, config)
    b = Builder(config, weights)
    training = ir.val("training", ir.DataType.BOOL, [])
    inputs, pooled, left = [training], [], config.layers
    while left > 0:
        name = f"tower{len(pooled)}"
        pixels = ir.val(f"{name}.pixels", b.dtype, ["batch", 3, f"height{len(pooled)}", "width"])
        inputs.append(pixels)
        b.scope = f"/{name}"
        pooled.append(_tower(b, pixels, name, min(left, LAYERS), training))
        left -= LAYERS
    b.scope = "/head"
    result = b("Concat", *pooled, axis=-1)
    result.name, result.type = "embedding", ir.TensorType(b.dtype)
    result.shape = ir.Shape(["batch", len(pooled) * config.hidden])
    weights.close()
    imports = {"": config.opset, DOMAIN: 1}
    graph = ir.Graph(
        inputs,
        [result],
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports=imports,
        name="towers",
    )
    functions = [_norm_function(config)]
    version = max(8, IR_VERSION[config.opset])
    return ir.Model(graph, ir_version=version, functions=functions, producer_name="towers")


def make(path: Path, nodes: int, opset: int = 17) -> None:
    """Write towers of about so many nodes and their data file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = max(8, round(nodes / PER_LAYER))
    ir.save(build(path, dataclasses.replace(SMALL, layers=layers, opset=opset)), path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--opset", type=int, choices=(13, 14, 15, 16, 17), default=17)
    arguments = parser.parse_args()
    make(arguments.path, arguments.nodes, arguments.opset)


if __name__ == "__main__":
    main()
