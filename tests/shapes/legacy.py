"""Encoders and decoders as PyTorch's older exporter writes them: sizes taken apart and put back.

Nothing between inputs and outputs is declared, and each Reshape gets its target from a chain of
Shape, Gather, Unsqueeze and Concat of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS = 8, 2
Dims = Sequence["int | str | None"]


class Legacy:
    """A graph being written.

    Args:
        seed: Of the weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def __call__(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"/{operator}_{len(self.nodes)}_output_0"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def const(self, value: object, dtype: type = np.int64) -> str:
        return self("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def weight(self, *shape: int) -> str:
        name = f"onnx::MatMul_{len(self.weights)}"
        array = (self._random.standard_normal(shape) * 0.2).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def size(self, x: str, axis: int) -> str:
        return self("Gather", self("Shape", x), self.const(axis), axis=0)

    def target(self, *sizes: str | int) -> str:
        """Return a vector of sizes, each of which is a scalar of the graph or a number."""
        parts = [
            self("Unsqueeze", size, self.const([0]))
            if isinstance(size, str)
            else self.const([size])
            for size in sizes
        ]
        return self("Concat", *parts, axis=0)

    def linear(self, x: str, width: int = WIDTH, out: int = WIDTH) -> str:
        return self("Add", self.weight(out), self("MatMul", x, self.weight(width, out)))

    def norm(self, x: str) -> str:
        centred = self("Sub", x, self("ReduceMean", x, axes=[-1]))
        square = self("Pow", centred, self.const(2.0, np.float32))
        variance = self("ReduceMean", square, axes=[-1])
        root = self("Sqrt", self("Add", variance, self.const(1e-5, np.float32)))
        scaled = self("Mul", self("Div", centred, root), self.weight(WIDTH))
        return self("Add", scaled, self.weight(WIDTH))

    def split_heads(self, x: str) -> str:
        target = self.target(self.size(x, 0), self.size(x, 1), HEADS, WIDTH // HEADS)
        return self("Transpose", self("Reshape", x, target), perm=[0, 2, 1, 3])

    def attention(self, x: str, memory: str, mask: str = "") -> str:
        query = self.split_heads(self.linear(x))
        key, value = (self.split_heads(self.linear(memory)) for _ in range(2))
        scores = self("MatMul", query, self("Transpose", key, perm=[0, 1, 3, 2]))
        if mask:
            scores = self("Add", scores, mask)
        mixed = self("MatMul", self("Softmax", scores, axis=-1), value)
        merged = self("Transpose", mixed, perm=[0, 2, 1, 3])
        width = self("Mul", self.size(merged, 2), self.size(merged, 3))
        target = self.target(self.size(merged, 0), self.size(merged, 1), width)
        return self.linear(self("Reshape", merged, target))

    def feed_forward(self, x: str) -> str:
        return self.linear(self("Relu", self.linear(x, out=16)), 16)

    def model(self, inputs: dict[str, tuple[int, Dims]], output: str) -> onnx.ModelProto:
        """Return the model, its output of unknown sizes."""
        given = [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, None, None])
        graph = helper.make_graph(self.nodes, "main_graph", given, [result], self.weights)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
            producer_name="pytorch",
        )


def encoder(layers: int, dims: Dims) -> onnx.ModelProto:
    """Return a BERT: embeddings, a mask built from the input, norms after each residual."""
    b = Legacy()
    x = b("Gather", b.weight(20, WIDTH), "input_ids")
    places = b("Range", b.const(0), b.size("input_ids", 1), b.const(1))
    x = b.norm(b("Add", x, b("Gather", b.weight(32, WIDTH), places)))
    kept = b("Unsqueeze", b("Cast", "attention_mask", to=TensorProto.FLOAT), b.const([1, 2]))
    mask = b("Mul", b("Sub", b.const(1.0, np.float32), kept), b.const(-1e4, np.float32))
    for _ in range(layers):
        x = b.norm(b("Add", b.attention(x, x, mask), x))
        x = b.norm(b("Add", b.feed_forward(x), x))
    ids = (TensorProto.INT64, dims)
    return b.model({"input_ids": ids, "attention_mask": ids}, x)


def decoder(layers: int, dims: Dims) -> onnx.ModelProto:
    """Return a decoder with cross-attention as in Whisper and BLIP, norms before each block."""
    b = Legacy()
    x = "hidden"
    for _ in range(layers):
        normal = b.norm(x)
        x = b("Add", x, b.attention(normal, normal))
        x = b("Add", x, b.attention(b.norm(x), "memory"))
        x = b("Add", x, b.feed_forward(b.norm(x)))
    hidden = (TensorProto.FLOAT, [*dims, WIDTH])
    memory = (TensorProto.FLOAT, [dims[0], None, WIDTH])
    return b.model({"hidden": hidden, "memory": memory}, b.norm(x))


def vision(layers: int, dims: Dims) -> onnx.ModelProto:
    """Return a vision tower as in CLIP: patches, a class token repeated for the batch."""
    b = Legacy()
    patches = b("Conv", "pixels", b.weight(WIDTH, 3, 4, 4), strides=[4, 4])
    shape = b("Shape", patches)
    kept = b("Slice", shape, b.const([0]), b.const([2]), b.const([0]))
    flat = b("Reshape", patches, b("Concat", kept, b.const([-1]), axis=0))
    token = b("Expand", b.weight(1, 1, WIDTH), b.target(b.size("pixels", 0), 1, WIDTH))
    x = b("Concat", token, b("Transpose", flat, perm=[0, 2, 1]), axis=1)
    x = b.norm(b("Add", x, b.weight(1, 17, WIDTH)))
    for _ in range(layers):
        normal = b.norm(x)
        x = b("Add", x, b.attention(normal, normal))
        x = b("Add", x, b.feed_forward(b.norm(x)))
    return b.model({"pixels": (TensorProto.FLOAT, [dims[0], 3, 16, 16])}, b.norm(x))
