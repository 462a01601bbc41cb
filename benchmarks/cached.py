"""A decoder with a cache, as exporters write it: every size is computed in the graph.

The inputs share named sizes (batch, seq, past, total), the positions and the mask come from Shape
operators, each layer takes sizes apart and puts them together again, and the cache grows by Concat.

    python benchmarks/cached.py /tmp/cached.onnx --nodes 20000
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from decoder import (
    IR_VERSION,
    Builder,
    Config,
    WeightWriter,
    feed_forward,
    rms_norm,
    rotary,
    rotate,
)

PER_LAYER = 113
"""Nodes of a layer."""
SMALL = Config(hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)


def size(b: Builder, x: ir.Value, axis: int) -> ir.Value:
    """Return the length of an axis, computed in the graph."""
    return b("Gather", b("Shape", x), b.const(axis), axis=0)


def vector(b: Builder, *sizes: ir.Value | int) -> ir.Value:
    """Return a shape of sizes that are known and such that are computed."""
    parts = [
        b.const([size]) if isinstance(size, int) else b("Unsqueeze", size, b.const([0]))
        for size in sizes
    ]
    return b("Concat", *parts, axis=0)


def _heads(b: Builder, x: ir.Value, count: int) -> ir.Value:
    target = vector(b, size(b, x, 0), size(b, x, 1), count, b.config.head_dim)
    return b("Transpose", b("Reshape", x, target), perm=[0, 2, 1, 3])


def _repeat(b: Builder, x: ir.Value) -> ir.Value:
    """Repeat key or value heads up to the number of query heads."""
    c = b.config
    batch, length = size(b, x, 0), size(b, x, 2)
    wide = vector(b, batch, c.kv_heads, c.heads // c.kv_heads, length, c.head_dim)
    flat = vector(b, batch, c.heads, length, c.head_dim)
    return b("Reshape", b("Expand", b("Unsqueeze", x, b.const([2])), wide), flat)


def _mask(b: Builder, ids: ir.Value, kept: ir.Value, past: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the mask, [batch, 1, seq, total], and the positions, [batch, seq]."""
    length = size(b, ids, 1)
    total = b("Add", past, length)
    positions = b("Unsqueeze", b("Range", past, total, b.const(1)), b.const([0]))
    columns = b("Range", b.const(0), total, b.const(1))
    seen = b("LessOrEqual", columns, b("Unsqueeze", positions, b.const([2])))
    kept = b("Unsqueeze", b("Cast", kept, to=ir.DataType.BOOL.value), b.const([1, 2]))
    both = b("And", b("Unsqueeze", seen, b.const([1])), kept)
    lowest = float(np.finfo(np.float32).min)
    mask = b("Where", both, b.number(0.0), b.number(lowest))
    return mask, b("Expand", positions, b("Shape", ids))


def _attention(
    b: Builder,
    x: ir.Value,
    name: str,
    mask: ir.Value,
    angles: tuple[ir.Value, ir.Value],
    past: tuple[ir.Value, ir.Value],
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return the result and what the cache holds after it."""
    c = b.config
    kv = c.kv_heads * c.head_dim

    def project(label: str, width: int) -> ir.Value:
        return b("MatMul", x, b.weight(f"{name}.{label}.weight", c.hidden, width))

    query = rotate(b, _heads(b, project("q_proj", c.hidden), c.heads), *angles)
    key = rotate(b, _heads(b, project("k_proj", kv), c.kv_heads), *angles)
    value = _heads(b, project("v_proj", kv), c.kv_heads)
    key, value = b("Concat", past[0], key, axis=-2), b("Concat", past[1], value, axis=-2)
    scores = b("MatMul", query, b("Transpose", _repeat(b, key), perm=[0, 1, 3, 2]))
    scaled = b("Mul", scores, b.number(c.head_dim**-0.5))
    end = b("Unsqueeze", size(b, key, 2), b.const([0]))
    part = b("Slice", mask, b.const([0]), end, b.const([3]))
    mixed = b("MatMul", b("Softmax", b("Add", scaled, part), axis=-1), _repeat(b, value))
    mixed = b("Transpose", mixed, perm=[0, 2, 1, 3])
    joined = b("Reshape", mixed, vector(b, size(b, x, 0), size(b, x, 1), -1))
    result = b("MatMul", joined, b.weight(f"{name}.o_proj.weight", c.hidden, c.hidden))
    return result, key, value


def build(path: Path, config: Config) -> ir.Model:
    """Stream the weights next to `path` and return the model, not yet written."""
    weights = WeightWriter(path, config)
    b = Builder(config, weights)
    b.scope = "/model"
    integer, cache = ir.DataType.INT64, ["batch", config.kv_heads, "past", config.head_dim]
    ids = ir.val("input_ids", dtype=integer, shape=["batch", "seq"])
    kept = ir.val("attention_mask", dtype=integer, shape=["batch", "total"])
    pasts = [
        tuple(
            ir.val(f"past_key_values.{layer}.{part}", dtype=b.dtype, shape=cache)
            for part in ("key", "value")
        )
        for layer in range(config.layers)
    ]
    outputs: list[ir.Value] = []
    x = b("Gather", b.weight("model.embed_tokens.weight", config.vocab, config.hidden), ids, axis=0)
    mask, positions = _mask(b, ids, kept, size(b, pasts[0][0], 2))
    angles = rotary(b, positions)
    for layer, (key, value) in enumerate(pasts):
        b.scope, name = f"/model/layers.{layer}", f"model.layers.{layer}"
        normal = rms_norm(b, x, f"{name}.input_layernorm")
        mixed, *present = _attention(b, normal, f"{name}.self_attn", mask, angles, (key, value))
        x = b("Add", x, mixed)
        normal = rms_norm(b, x, f"{name}.post_attention_layernorm")
        x = b("Add", x, feed_forward(b, normal, f"{name}.mlp"))
        for part, each in zip(("key", "value"), present, strict=True):
            each.name = f"present.{layer}.{part}"
            outputs.append(each)
    b.scope = "/model"
    logits = b(
        "MatMul", rms_norm(b, x, "model.norm"), b.weight("head", config.hidden, config.vocab)
    )
    logits.name = "logits"
    for value, shape in [
        (logits, ["batch", "seq", config.vocab]),
        *((each, [*cache[:2], "total", cache[3]]) for each in outputs),
    ]:
        value.type, value.shape = ir.TensorType(b.dtype), ir.Shape(shape)
    weights.close()
    graph = ir.Graph(
        [ids, kept, *(each for pair in pasts for each in pair)],
        [logits, *outputs],
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports={"": config.opset},
        name="decoder",
    )
    return ir.Model(graph, ir_version=IR_VERSION[config.opset], producer_name="cached")


def write(
    build: Callable[[Path, Config], ir.Model], per_layer: int, path: Path, nodes: int, opset: int
) -> None:
    """Write a model of about so many nodes and its data file.

    Args:
        build: Streams the weights next to a path and returns the model.
        per_layer: Nodes of a layer of it.
        path, nodes, opset: Of the model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = max(1, round(nodes / per_layer))
    ir.save(build(path, dataclasses.replace(SMALL, layers=layers, opset=opset)), path)


def make(path: Path, nodes: int, opset: int = 17) -> None:
    """Write a decoder of about so many nodes and its data file."""
    write(build, PER_LAYER, path, nodes, opset)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--opset", type=int, choices=IR_VERSION, default=17)
    arguments = parser.parse_args()
    make(arguments.path, arguments.nodes, arguments.opset)


if __name__ == "__main__":
    main()
