"""Make decoder models of any size, by streaming: nothing larger than one block is ever in memory.

The blocks are those of Llama- and Qwen-like decoders as exporters spell them: RMSNorm in primitive
operators (with the Casts to float32 in half types), rotary embedding, grouped attention with a
causal and padding mask, SwiGLU, an embedding and an untied output head.

    python benchmarks/decoder.py /tmp/big.onnx --size 8GB --dtype float32 --opset 17
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

DTYPES = {
    "float32": (ir.DataType.FLOAT, np.dtype(np.float32)),
    "float16": (ir.DataType.FLOAT16, np.dtype(np.float16)),
    "bfloat16": (ir.DataType.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
BLOCK_BYTES = 32 << 20
IR_VERSION = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8}


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of a decoder; the defaults make a model of a few megabytes."""

    layers: int = 2
    hidden: int = 256
    heads: int = 8
    kv_heads: int = 2
    intermediate: int = 688
    vocab: int = 1024
    dtype: str = "float32"
    opset: int = 17
    files: int = 1
    seed: int = 0
    sparse: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def layer_parameters(self) -> int:
        """Parameters of one block."""
        attention = self.hidden * (2 * self.hidden + 2 * self.kv_heads * self.head_dim)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @classmethod
    def of_size(cls, nbytes: int, **options: object) -> Config:
        """Return a config whose weights take about `nbytes`, in whole blocks of real width."""
        wide = nbytes > 1 << 30
        shape = (4096, 32, 8, 11008, 32000) if wide else (1024, 16, 4, 2752, 8000)
        names = ("hidden", "heads", "kv_heads", "intermediate", "vocab")
        config = cls(**dict(zip(names, shape, strict=True)), **options)  # type: ignore[arg-type]
        itemsize = DTYPES[config.dtype][1].itemsize
        rest = nbytes - 2 * config.vocab * config.hidden * itemsize
        layers = max(1, round(rest / (config.layer_parameters() * itemsize)))
        return dataclasses.replace(config, layers=layers)


class WeightWriter:
    """Writes tensors into data files one block at a time, cutting them from a seeded pool."""

    def __init__(self, path: Path, config: Config) -> None:
        self._dtype, self._numpy = DTYPES[config.dtype]
        self._sparse = config.sparse
        rng = np.random.default_rng(config.seed)
        count = BLOCK_BYTES // self._numpy.itemsize
        pool = rng.standard_normal(count, dtype=np.float32) * np.float32(0.02)
        self._pool = pool.astype(self._numpy)
        self._rng = rng
        stem = path.name
        names = [f"{stem}.data"] if config.files == 1 else []
        names += [f"{stem}.data.{i}" for i in range(config.files)] if config.files > 1 else []
        self._paths = [path.parent / name for name in names]
        self._files = [file.open("wb") for file in self._paths]
        self._count = 0

    def __call__(self, name: str, shape: tuple[int, ...], *, ones: bool = False) -> ir.Value:
        """Write a tensor of the model's element type and return it as an initializer."""
        file = self._files[self._count % len(self._files)]
        location = self._paths[self._count % len(self._files)]
        self._count += 1
        offset = file.tell()
        left = int(np.prod(shape))
        if self._sparse:  # zeros that take no room, for what looks at no weight
            file.truncate(offset + left * self._numpy.itemsize)
            file.seek(0, 2)
            left = 0
        while left:
            start = int(self._rng.integers(0, self._pool.size // 2))
            block = self._pool[start : start + min(left, self._pool.size // 2)]
            data = (block.astype(np.float32) + 1).astype(self._numpy) if ones else block
            file.write(data.tobytes())
            left -= block.size
        tensor = ir.ExternalTensor(
            location.name,
            offset,
            file.tell() - offset,
            self._dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=str(location.parent),
        )
        return ir.Value(
            name=name, type=ir.TensorType(self._dtype), shape=tensor.shape, const_value=tensor
        )

    def close(self) -> None:
        """Close the data files."""
        for file in self._files:
            file.close()


class Builder:
    """Nodes named by module scope, as exporters name them."""

    def __init__(self, config: Config, weights: WeightWriter) -> None:
        self.config = config
        self.weights = weights
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.scope = ""
        self._used: dict[str, int] = {}

    def __call__(self, op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        """Append a node in the current scope and return its output."""
        base = f"{self.scope}/{op}"
        number = self._used.get(base, 0)
        self._used[base] = number + 1
        name = f"{base}_{number}" if number else base
        node = ir.node(op, inputs, attributes=attributes, name=name)  # type: ignore[arg-type]
        node.outputs[0].name = f"{name}_output_0"
        self.nodes.append(node)
        return node.outputs[0]

    def weight(self, name: str, *shape: int, ones: bool = False) -> ir.Value:
        """Stream a weight to disk and return it."""
        value = self.weights(name, shape, ones=ones)
        self.initializers.append(value)
        return value

    def const(self, array: object, dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
        """Add a small constant initializer."""
        name = f"{self.scope}/const_{len(self.initializers)}"
        tensor = ir.tensor(array, dtype=dtype, name=name)  # type: ignore[arg-type]
        value = ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.initializers.append(value)
        return value

    @property
    def dtype(self) -> ir.DataType:
        """The model's element type."""
        return DTYPES[self.config.dtype][0]

    def number(self, value: float, dtype: ir.DataType | None = None) -> ir.Value:
        """Add a scalar of the model's element type, or of another."""
        return self.const(value, dtype or self.dtype)


def _to_float(b: Builder, x: ir.Value) -> ir.Value:
    return x if b.dtype == ir.DataType.FLOAT else b("Cast", x, to=ir.DataType.FLOAT.value)


def _back(b: Builder, x: ir.Value) -> ir.Value:
    return x if b.dtype == ir.DataType.FLOAT else b("Cast", x, to=b.dtype.value)


def rms_norm(b: Builder, x: ir.Value, name: str) -> ir.Value:
    """weight * x / sqrt(mean(x^2) + eps), computed in float32."""
    outer, b.scope = b.scope, f"{b.scope}/{name.rsplit('.', 1)[-1]}"
    wide = _to_float(b, x)
    square = b("Pow", wide, b.number(2.0, ir.DataType.FLOAT))
    if b.config.opset < 18:
        mean = b("ReduceMean", square, axes=[-1], keepdims=1)
    else:
        mean = b("ReduceMean", square, b.const([-1]), keepdims=1)
    root = b("Sqrt", b("Add", mean, b.number(1e-6, ir.DataType.FLOAT)))
    inverse = b("Div", b.number(1.0, ir.DataType.FLOAT), root)
    scaled = _back(b, b("Mul", wide, inverse))
    result = b("Mul", b.weight(f"{name}.weight", b.config.hidden, ones=True), scaled)
    b.scope = outer
    return result


def rotary(b: Builder, position_ids: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return cos and sin, shaped [batch, 1, seq, head_dim]."""
    dim = b.config.head_dim
    frequencies = 1.0 / 10000.0 ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    column = b.const(frequencies.reshape(1, -1, 1).astype(np.float32), ir.DataType.FLOAT)
    positions = b("Cast", b("Unsqueeze", position_ids, b.const([1])), to=1)
    angles = b("Transpose", b("MatMul", column, positions), perm=[0, 2, 1])
    both = b("Unsqueeze", b("Concat", angles, angles, axis=-1), b.const([1]))
    return _back(b, b("Cos", both)), _back(b, b("Sin", both))


def rotate(b: Builder, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    half, axis = b.config.head_dim // 2, b.const([3])
    first = b("Slice", x, b.const([0]), b.const([half]), axis)
    second = b("Slice", x, b.const([half]), b.const([np.iinfo(np.int64).max]), axis)
    turned = b("Concat", b("Neg", second), first, axis=-1)
    return b("Add", b("Mul", x, cos), b("Mul", turned, sin))


def _heads(b: Builder, x: ir.Value, count: int) -> ir.Value:
    shape = b.const([0, 0, count, b.config.head_dim])
    return b("Transpose", b("Reshape", x, shape), perm=[0, 2, 1, 3])


def _repeat(b: Builder, x: ir.Value) -> ir.Value:
    """Repeat key or value heads up to the number of query heads."""
    c = b.config
    dims = b("Shape", x)
    batch = b("Gather", dims, b.const([0]), axis=0)
    length = b("Gather", dims, b.const([2]), axis=0)
    groups = c.heads // c.kv_heads
    size = b.const([c.head_dim])
    wide = b("Concat", batch, b.const([c.kv_heads, groups]), length, size, axis=0)
    flat = b("Concat", batch, b.const([c.heads]), length, size, axis=0)
    return b("Reshape", b("Expand", b("Unsqueeze", x, b.const([2])), wide), flat)


def attention(
    b: Builder, x: ir.Value, name: str, mask: ir.Value, angles: tuple[ir.Value, ir.Value]
) -> ir.Value:
    """Grouped attention with rotary embedding."""
    c = b.config
    outer, b.scope = b.scope, f"{b.scope}/self_attn"
    kv = c.kv_heads * c.head_dim

    def project(label: str, width: int) -> ir.Value:
        return b("MatMul", x, b.weight(f"{name}.{label}.weight", c.hidden, width))

    query = rotate(b, _heads(b, project("q_proj", c.hidden), c.heads), *angles)
    key = _repeat(b, rotate(b, _heads(b, project("k_proj", kv), c.kv_heads), *angles))
    value = _repeat(b, _heads(b, project("v_proj", kv), c.kv_heads))
    scores = b("MatMul", query, b("Transpose", key, perm=[0, 1, 3, 2]))
    scaled = b("Mul", scores, b.number(c.head_dim**-0.5))
    weights = b("Softmax", _to_float(b, b("Add", scaled, mask)), axis=-1)
    mixed = b("Transpose", b("MatMul", _back(b, weights), value), perm=[0, 2, 1, 3])
    joined = b("Reshape", mixed, b.const([0, 0, c.hidden]))
    result = b("MatMul", joined, b.weight(f"{name}.o_proj.weight", c.hidden, c.hidden))
    b.scope = outer
    return result


def feed_forward(b: Builder, x: ir.Value, name: str) -> ir.Value:
    """down(silu(gate(x)) * up(x))."""
    c = b.config
    outer, b.scope = b.scope, f"{b.scope}/mlp"
    gate = b("MatMul", x, b.weight(f"{name}.gate_proj.weight", c.hidden, c.intermediate))
    up = b("MatMul", x, b.weight(f"{name}.up_proj.weight", c.hidden, c.intermediate))
    active = b("Mul", b("Mul", gate, b("Sigmoid", gate)), up)
    result = b("MatMul", active, b.weight(f"{name}.down_proj.weight", c.intermediate, c.hidden))
    b.scope = outer
    return result


def causal_mask(b: Builder, attention_mask: ir.Value) -> ir.Value:
    """0 where a query may look, the lowest number elsewhere: [batch, 1, seq, seq]."""
    length = b("Squeeze", b("Gather", b("Shape", attention_mask), b.const([1]), axis=0))
    steps = b("Range", b.const(0), length, b.const(1))
    rows, columns = b("Unsqueeze", steps, b.const([1])), b("Unsqueeze", steps, b.const([0]))
    seen = b("LessOrEqual", columns, rows)
    kept = b("Unsqueeze", b("Cast", attention_mask, to=ir.DataType.BOOL.value), b.const([1, 2]))
    lowest = float(np.asarray(ml_dtypes.finfo(DTYPES[b.config.dtype][1]).min))
    return b("Where", b("And", seen, kept), b.number(0.0), b.number(lowest))


def build(path: Path, config: Config) -> ir.Model:
    """Stream the weights next to `path` and return the model, not yet written."""
    weights = WeightWriter(path, config)
    b = Builder(config, weights)
    names = ("input_ids", "attention_mask", "position_ids")
    inputs = [ir.val(name, dtype=ir.DataType.INT64, shape=["batch", "seq"]) for name in names]
    b.scope = "/model"
    table = b.weight("model.embed_tokens.weight", config.vocab, config.hidden)
    x = b("Gather", table, inputs[0], axis=0)
    mask = causal_mask(b, inputs[1])
    angles = rotary(b, inputs[2])
    for layer in range(config.layers):
        b.scope, name = f"/model/layers.{layer}", f"model.layers.{layer}"
        normal = rms_norm(b, x, f"{name}.input_layernorm")
        x = b("Add", x, attention(b, normal, f"{name}.self_attn", mask, angles))
        normal = rms_norm(b, x, f"{name}.post_attention_layernorm")
        x = b("Add", x, feed_forward(b, normal, f"{name}.mlp"))
    b.scope = "/model"
    x = rms_norm(b, x, "model.norm")
    b.scope = ""
    logits = b("MatMul", x, b.weight("lm_head.weight", config.hidden, config.vocab))
    logits.name = "logits"
    logits.type = ir.TensorType(b.dtype)
    logits.shape = ir.Shape(["batch", "seq", config.vocab])
    weights.close()
    graph = ir.Graph(
        inputs,
        [logits],
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports={"": config.opset},
        name="decoder",
    )
    return ir.Model(graph, ir_version=IR_VERSION[config.opset], producer_name="decoder")


def make(path: Path, config: Config) -> None:
    """Write a decoder model and its data files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(build(path, config), path)


def parse_bytes(text: str) -> int:
    """Return the bytes of `500MB`, `8GB` and the like (powers of ten)."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    return round(float(text[:-2]) * units[text[-2:].upper()])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=parse_bytes, default=parse_bytes("64MB"))
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--opset", type=int, choices=IR_VERSION, default=17)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--layers", type=int, help="instead of what the size asks for")
    parser.add_argument("--vocab", type=int, help="rows of the embedding table")
    parser.add_argument("--sparse", action="store_true", help="files of zeros that take no room")
    arguments = parser.parse_args()
    config = Config.of_size(
        arguments.size,
        dtype=arguments.dtype,
        opset=arguments.opset,
        files=arguments.files,
        sparse=arguments.sparse,
    )
    changed = {k: v for k in ("layers", "vocab") if (v := getattr(arguments, k)) is not None}
    config = dataclasses.replace(config, **changed)
    make(arguments.path, config)
    print(json.dumps(dataclasses.asdict(config)))


if __name__ == "__main__":
    main()
