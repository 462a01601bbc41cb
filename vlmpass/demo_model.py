"""A small vision-language model, spelled as exporters spell them, for `vlmpass demo` and tests."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.save import save

__all__ = ["Sizes", "build_demo_model", "write_demo_model"]

_OPSET, _IR_VERSION = 17, 8
_BF16 = ir.DataType.BFLOAT16
_FLOAT = ir.DataType.FLOAT
_INT64 = ir.DataType.INT64


@dataclass(frozen=True)
class Sizes:
    """How large the model is; by default its embedding in float32 is larger than a shard of 8 MB.

    Attributes:
        hidden: Width of decoder and vision encoder.
        heads: Attention heads.
        kv_heads: Heads of keys and values in the decoder.
        intermediate: Width of the decoder's gated layer.
        vocab: Tokens; the last one stands for an image patch.
        layers: Blocks of encoder and decoder each.
        image: Side of the image in pixels.
        patch: Side of a patch in pixels.
    """

    hidden: int = 256
    heads: int = 8
    kv_heads: int = 2
    intermediate: int = 688
    vocab: int = 8192
    layers: int = 2
    image: int = 56
    patch: int = 14

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image // self.patch) ** 2


def write_demo_model(path: str | os.PathLike[str], sizes: Sizes | None = None) -> Path:
    """Write the model and return its path.

    Args:
        path: The model file; data go beside it.
        sizes: How large it is.
    """
    save(build_demo_model(sizes or Sizes()), path)
    return Path(path)


def build_demo_model(sizes: Sizes, seed: int = 0) -> ir.Model:
    """Return the model in memory.

    It takes pixel_values, input_ids, attention_mask, position_ids and a cache, and gives logits and
    the new cache; weights and arithmetic are bfloat16, norms and angles float32.

    Args:
        sizes: How large it is.
        seed: Of the weights.
    """
    builder = _Builder(sizes, np.random.default_rng(seed))
    image = _vision(builder, builder.feed("pixel_values", _BF16, 3, sizes.image, sizes.image))
    logits = _decoder(builder, image)
    builder.outputs.insert(0, builder.out(logits, "logits", "seq", sizes.vocab))
    return builder.model()


class _Builder:
    """A tape whose hint is the module's scope, and the weights that go with it."""

    def __init__(self, sizes: Sizes, rng: np.random.Generator) -> None:
        self.sizes = sizes
        self.tape = Tape(Names(), {"": _OPSET}, "")
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self._rng = rng

    def scope(self, path: str) -> Tape:
        """Return the tape, naming what follows after a module."""
        self.tape.hint = f"/{path}"
        return self.tape

    def feed(self, name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
        """Add a graph input; the batch dimension comes first."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(("batch", *shape)))
        self.inputs.append(value)
        return value

    def out(self, value: ir.Value, name: str, *shape: int | str) -> ir.Value:
        """Declare a value as one that the graph gives; the batch dimension comes first."""
        value.name, value.type, value.shape = (
            name,
            ir.TensorType(_BF16),
            ir.Shape(("batch", *shape)),
        )
        return value

    def weight(self, name: str, *shape: int, dtype: ir.DataType = _BF16) -> ir.Value:
        """Add a weight: ones for norms, else normal, scaled by its rows."""
        if name.endswith("norm.weight"):
            array = np.ones(shape) + 0.1 * self._rng.standard_normal(shape)
        elif len(shape) == 1:
            array = 0.02 * self._rng.standard_normal(shape)
        else:
            array = self._rng.standard_normal(shape) / np.sqrt(shape[-2])
        narrow = array.astype(np.float32 if dtype is _FLOAT else ml_dtypes.bfloat16)
        hint, self.tape.hint = self.tape.hint, ""
        value = self.tape.const(ir.tensor(narrow, dtype=dtype), name=name)
        self.tape.hint = hint
        value.name = name
        assert value.const_value is not None
        value.const_value.name = name
        return value

    def ints(self, *numbers: int) -> ir.Value:
        """Add a small vector of integers."""
        return self.tape.const(np.array(numbers, np.int64))

    def number(self, number: float, dtype: ir.DataType = _BF16) -> ir.Value:
        """Add a scalar."""
        return self.tape.const(number, dtype)

    def linear(
        self, x: ir.Value, name: str, inner: int, width: int, *, bias: bool = False
    ) -> ir.Value:
        """Multiply by a weight [inner, width], and add a bias if asked to."""
        tape = self.scope(_path(name))
        y = tape.MatMul(x, self.weight(f"{name}.weight", inner, width))
        return tape.Add(y, self.weight(f"{name}.bias", width)) if bias else y

    def model(self) -> ir.Model:
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.tape.nodes,
            initializers=self.tape.constants,
            opset_imports={"": _OPSET},
            name="tiny_vlm",
        )
        return ir.Model(graph, ir_version=_IR_VERSION, producer_name="vlmpass demo")


def _path(name: str) -> str:
    """Return a module's scope: ``model.layers.0.mlp`` is ``model/layers.0/mlp``."""
    return re.sub(r"\.(?!\d)", "/", name)


def _layer_norm(b: _Builder, x: ir.Value, name: str) -> ir.Value:
    hidden = b.sizes.hidden
    tape = b.scope(_path(name))
    scale, bias = b.weight(f"{name}.norm.weight", hidden), b.weight(f"{name}.norm.bias", hidden)
    return tape.LayerNormalization(x, scale, bias, axis=-1, epsilon=1e-6)


def _rms_norm(b: _Builder, x: ir.Value, name: str) -> ir.Value:
    """weight * x / sqrt(mean(x^2) + eps), computed in float32 as torch does."""
    tape = b.scope(_path(name))
    wide = tape.Cast(x, to=_FLOAT)
    square = tape.Pow(wide, b.number(2.0, _FLOAT))
    mean = tape.ReduceMean(square, axes=[-1], keepdims=1)
    root = tape.Sqrt(tape.Add(mean, b.number(1e-6, _FLOAT)))
    unit = tape.Cast(tape.Mul(wide, tape.Reciprocal(root)), to=_BF16)
    return tape.Mul(b.weight(f"{name}.norm.weight", b.sizes.hidden), unit)


def _heads(b: _Builder, x: ir.Value, count: int) -> ir.Value:
    """[batch, length, heads * head] to [batch, heads, length, head]."""
    split = b.tape.Reshape(x, b.ints(0, -1, count, b.sizes.head))
    return b.tape.Transpose(split, perm=[0, 2, 1, 3])


def _attend(
    b: _Builder, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value | None = None
) -> ir.Value:
    """softmax(q k^T / sqrt(head) + mask) v, back to [batch, length, hidden]."""
    tape = b.tape
    scores = tape.MatMul(q, tape.Transpose(k, perm=[0, 1, 3, 2]))
    scores = tape.Mul(scores, b.number(b.sizes.head**-0.5))
    if mask is not None:
        scores = tape.Add(scores, mask)
    mixed = tape.MatMul(tape.Softmax(scores, axis=-1), v)
    return tape.Reshape(tape.Transpose(mixed, perm=[0, 2, 1, 3]), b.ints(0, -1, b.sizes.hidden))


def _vision(b: _Builder, pixels: ir.Value) -> ir.Value:
    """Image patches to [batch, patches, hidden]: an encoder with LayerNorm and Gelu."""
    sizes, hidden = b.sizes, b.sizes.hidden
    side, patch = sizes.image // sizes.patch, sizes.patch
    pixels_of = 3 * patch * patch
    tape = b.scope("vision/patch_embed")
    tiles = tape.Reshape(pixels, b.ints(0, 3, side, patch, side, patch))
    tiles = tape.Transpose(tiles, perm=[0, 2, 4, 1, 3, 5])
    flat = tape.Reshape(tiles, b.ints(0, sizes.patches, pixels_of))
    x = b.linear(flat, "vision.patch_embed.proj", pixels_of, hidden, bias=True)
    x = tape.Add(x, b.weight("vision.pos_embed", 1, sizes.patches, hidden))
    for index in range(sizes.layers):
        name = f"vision.blocks.{index}"
        y = _layer_norm(b, x, f"{name}.ln1")
        qkv = b.linear(y, f"{name}.attn.qkv", hidden, 3 * hidden, bias=True)
        parts = tape.node("Split", [qkv], {"axis": -1}, outputs=3)
        q, k, v = (_heads(b, part, sizes.heads) for part in parts)
        y = _attend(b, q, k, v)
        x = tape.Add(x, b.linear(y, f"{name}.attn.proj", hidden, hidden, bias=True))
        y = b.linear(_layer_norm(b, x, f"{name}.ln2"), f"{name}.mlp.fc1", hidden, 4 * hidden)
        x = tape.Add(x, b.linear(_gelu(b, y), f"{name}.mlp.fc2", 4 * hidden, hidden))
    return b.linear(_layer_norm(b, x, "vision.post"), "projector", hidden, hidden, bias=True)


def _gelu(b: _Builder, x: ir.Value) -> ir.Value:
    """0.5 x (1 + erf(x / sqrt 2)), spelled out as below opset 20."""
    tape = b.tape
    erf = tape.Erf(tape.Div(x, b.number(2**0.5)))
    return tape.Mul(tape.Mul(x, tape.Add(erf, b.number(1.0))), b.number(0.5))


def _merge(b: _Builder, ids: ir.Value, image: ir.Value) -> ir.Value:
    """Put image features where the image token stands, in order, and embeddings elsewhere."""
    sizes = b.sizes
    tape = b.scope("model/embed_tokens")
    table = b.weight("model.embed_tokens.weight", sizes.vocab, sizes.hidden)
    text = tape.Gather(table, ids)
    tape = b.scope("model/merge")
    is_image = tape.Equal(ids, b.tape.const(np.array(sizes.vocab - 1)))
    order = tape.CumSum(tape.Cast(is_image, to=_INT64), b.tape.const(np.array(1)))
    place = tape.Max(tape.Sub(order, b.tape.const(np.array(1))), b.tape.const(np.array(0)))
    place = tape.Min(place, b.tape.const(np.array(sizes.patches - 1)))
    index = tape.Expand(tape.Unsqueeze(place, b.ints(-1)), tape.Shape(text))
    features = tape.GatherElements(image, index, axis=1)
    return tape.Where(tape.Unsqueeze(is_image, b.ints(-1)), features, text)


def _rotary(b: _Builder, positions: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return cos and sin of the rotary embedding, [batch, 1, seq, head]."""
    head = b.sizes.head
    tape = b.scope("model/rotary_emb")
    frequencies = 1e4 ** -(np.arange(0, head, 2) / head)
    wide = tape.Cast(tape.Unsqueeze(positions, b.ints(-1)), to=_FLOAT)
    angles = tape.Mul(wide, tape.const(frequencies.astype(np.float32)))
    both = tape.Unsqueeze(tape.node("Concat", [angles, angles], {"axis": -1})[0], b.ints(1))
    return tape.Cast(tape.Cos(both), to=_BF16), tape.Cast(tape.Sin(both), to=_BF16)


def _rotate(b: _Builder, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    """X cos + rotate_half(x) sin."""
    tape = b.tape
    half = b.sizes.head // 2
    low = tape.Slice(x, b.ints(0), b.ints(half), b.ints(3))
    high = tape.Slice(x, b.ints(half), b.ints(np.iinfo(np.int64).max), b.ints(3))
    turned = tape.node("Concat", [tape.Neg(high), low], {"axis": -1})[0]
    return tape.Add(tape.Mul(x, cos), tape.Mul(turned, sin))


def _causal_mask(b: _Builder, mask: ir.Value, positions: ir.Value) -> ir.Value:
    """Return 0 where a query may look, a very negative number elsewhere: [batch, 1, seq, total]."""
    tape = b.scope("model/mask")
    total = tape.Gather(tape.Shape(mask), b.tape.const(np.array(1)))
    zero, one = b.tape.const(np.array(0)), b.tape.const(np.array(1))
    keys = tape.Unsqueeze(tape.Range(zero, total, one), b.ints(0, 1))
    earlier = tape.LessOrEqual(keys, tape.Unsqueeze(positions, b.ints(-1)))
    there = tape.Unsqueeze(tape.Cast(mask, to=ir.DataType.BOOL), b.ints(1))
    visible = tape.Unsqueeze(tape.And(earlier, there), b.ints(1))
    return tape.Where(visible, b.number(0.0), b.number(-3.3e38))


def _repeat(b: _Builder, x: ir.Value) -> ir.Value:
    """Repeat the heads of keys and values for the queries that share them."""
    sizes, tape = b.sizes, b.tape
    times = sizes.heads // sizes.kv_heads
    wide = tape.Unsqueeze(x, b.ints(2))
    wide = tape.node("Concat", [wide] * times, {"axis": 2})[0]
    return tape.Reshape(wide, b.ints(0, sizes.heads, -1, sizes.head))


def _decoder(b: _Builder, image: ir.Value) -> ir.Value:
    """Tokens and image features to logits, [batch, seq, vocab]."""
    sizes = b.sizes
    ids = b.feed("input_ids", _INT64, "seq")
    mask = b.feed("attention_mask", _INT64, "past + seq")
    positions = b.feed("position_ids", _INT64, "seq")
    x = _merge(b, ids, image)
    cos, sin = _rotary(b, positions)
    bias = _causal_mask(b, mask, positions)
    tape, hidden = b.tape, sizes.hidden
    for index in range(sizes.layers):
        name = f"model.layers.{index}"
        y = _rms_norm(b, x, f"{name}.input_layernorm")
        q, k, v = (
            _heads(b, b.linear(y, f"{name}.self_attn.{part}", hidden, n * sizes.head, bias=True), n)
            for part, n in (
                ("q_proj", sizes.heads),
                ("k_proj", sizes.kv_heads),
                ("v_proj", sizes.kv_heads),
            )
        )
        b.scope(f"model/layers.{index}/self_attn")
        q, k = _rotate(b, q, cos, sin), _rotate(b, k, cos, sin)
        k, v = (_cached(b, index, part, value) for part, value in (("key", k), ("value", v)))
        y = _attend(b, q, _repeat(b, k), _repeat(b, v), bias)
        x = tape.Add(x, b.linear(y, f"{name}.self_attn.o_proj", hidden, hidden))
        x = tape.Add(x, _swiglu(b, _rms_norm(b, x, f"{name}.post_layernorm"), f"{name}.mlp"))
    return b.linear(_rms_norm(b, x, "model.final"), "lm_head", hidden, sizes.vocab)


def _cached(b: _Builder, layer: int, part: str, value: ir.Value) -> ir.Value:
    """Append to the cache, which goes in and out of the graph."""
    past = b.feed(f"past_key_values.{layer}.{part}", _BF16, b.sizes.kv_heads, "past", b.sizes.head)
    both = b.tape.node("Concat", [past, value], {"axis": 2})[0]
    shape = (b.sizes.kv_heads, "past + seq", b.sizes.head)
    b.outputs.append(b.out(both, f"present.{layer}.{part}", *shape))
    return both


def _swiglu(b: _Builder, x: ir.Value, name: str) -> ir.Value:
    """down(silu(gate(x)) * up(x))."""
    outer, inner = b.sizes.hidden, b.sizes.intermediate
    gate = b.linear(x, f"{name}.gate_proj", outer, inner)
    silu = b.tape.Mul(gate, b.tape.Sigmoid(gate))
    up = b.linear(x, f"{name}.up_proj", outer, inner)
    return b.linear(b.tape.Mul(silu, up), f"{name}.down_proj", inner, outer)
