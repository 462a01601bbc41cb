"""Decoders as ONNX Runtime's builder of generative models writes them, small and random."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from unfuse.cases import ORT, TYPES, Array
from unfuse.quantised import packed

SIZE, HEADS, KEYS, WIDTH, INNER, WORDS, LONGEST = 16, 4, 2, 64, 96, 50, 64


@dataclass
class Writer:
    """A graph being written.

    Attributes:
        rng: Where weights come from.
        kind: Their type.
        bits: Of quantised weights; 0 for plain ones.
    """

    rng: np.random.Generator
    kind: np.dtype
    bits: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, name: str, array: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(
        self,
        operator: str,
        inputs: list[str],
        outputs: list[str] | str,
        domain: str = ORT,
        **attributes: object,
    ) -> str:
        given = [outputs] if isinstance(outputs, str) else outputs
        name = f"/{given[0]}/{operator}"
        made = helper.make_node(operator, inputs, given, name=name, domain=domain, **attributes)
        self.nodes.append(made)
        return given[0]

    def product(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """Write a linear layer."""
        if not self.bits:
            matrix = self.rng.standard_normal((inputs, outputs)) / np.sqrt(inputs)
            weight = self.weight(f"{name}.weight", matrix.astype(self.kind))
            return self.node("MatMul", [x, weight], name, "")
        blocks = inputs // 32
        numbers = self.rng.integers(0, 1 << self.bits, (outputs, blocks, 32))
        scales = self.rng.uniform(0.5, 1.5, (outputs, blocks)) / (1 << self.bits) / np.sqrt(inputs)
        inputs_of = [
            x,
            self.weight(f"{name}.qweight", packed(numbers, self.bits)),
            self.weight(f"{name}.scales", (4 * scales).astype(self.kind)),
        ]
        sizes = {"K": inputs, "N": outputs, "bits": self.bits, "block_size": 32}
        return self.node("MatMulNBits", inputs_of, name, **sizes)

    def ones(self, name: str) -> str:
        return self.weight(name, self.rng.uniform(0.5, 1.5, WIDTH).astype(self.kind))


def _angles(kind: np.dtype) -> tuple[Array, Array]:
    places = np.arange(LONGEST)[:, None] / 1e4 ** (np.arange(SIZE // 2) / (SIZE // 2))
    return np.cos(places).astype(kind), np.sin(places).astype(kind)


def _layer(out: Writer, index: int, x: str, normal: str, window: int) -> tuple[str, str]:
    """Write a layer; return the residual stream and what is added to it next."""
    lead = f"l{index}"
    whole = out.product(normal, f"{lead}.qkv", WIDTH, (HEADS + 2 * KEYS) * SIZE)
    past, present = (
        [f"{word}.{index}.{part}" for part in ("key", "value")] for word in ("past", "present")
    )
    found = out.node(
        "GroupQueryAttention",
        [whole, "", "", *past, "seqlens", "total", "cos", "sin"],
        [f"{lead}.attn", *present],
        num_heads=HEADS,
        kv_num_heads=KEYS,
        do_rotary=1,
        local_window_size=window,
    )
    added = out.product(found, f"{lead}.o", HEADS * SIZE, WIDTH)
    mid = [f"{lead}.norm2", "", "", f"{lead}.stream2"]
    out.node(
        "SkipSimplifiedLayerNormalization", [x, added, out.ones(f"{lead}.g2")], mid, epsilon=1e-6
    )
    gate, up = (out.product(mid[0], f"{lead}.{name}", WIDTH, INNER) for name in ("gate", "up"))
    active = out.node("QuickGelu", [gate], f"{lead}.active", alpha=1.0)
    both = out.node("Mul", [active, up], f"{lead}.both", "")
    return mid[3], out.product(both, f"{lead}.down", INNER, WIDTH)


def decoder(
    seed: int, *, kind: type = np.float32, bits: int = 4, opset: int = 21, layers: int = 2
) -> onnx.ModelProto:
    """Return a decoder with caches, whose lengths come from the attention mask."""
    out = Writer(np.random.default_rng(seed), np.dtype(kind), bits)
    for name, array in zip(("cos", "sin"), _angles(out.kind), strict=True):
        out.weight(name, array)
    table = out.weight("words", out.rng.standard_normal((WORDS, WIDTH)).astype(out.kind))
    out.weight("one", np.array([1], np.int64))
    out.weight("at1", np.array(1, np.int64))
    out.node("ReduceSum", ["attention_mask", "one"], "sums", "", keepdims=0)
    out.node("Sub", ["sums", "one"], "less", "")
    out.node("Cast", ["less"], "seqlens", "", to=TensorProto.INT32)
    out.node("Shape", ["attention_mask"], "sizes", "")
    out.node("Gather", ["sizes", "at1"], "length", "")
    out.node("Cast", ["length"], "total", "", to=TensorProto.INT32)
    x = out.node("Gather", [table, "input_ids"], "embedded", "")
    normal = out.node(
        "SimplifiedLayerNormalization", [x, out.ones("g0")], "norm0", "", axis=-1, epsilon=1e-6
    )
    for index in range(layers):
        x, added = _layer(out, index, x, normal, 4 if index else -1)
        outputs = [f"l{index}.next", "", "", f"l{index}.stream"]
        gain = out.ones(f"l{index}.g3")
        normal = out.node(
            "SkipSimplifiedLayerNormalization", [x, added, gain], outputs, epsilon=1e-6
        )
        x = outputs[3]
    out.product(normal, "logits", WIDTH, WORDS)
    return _model(out, layers, opset)


def _model(out: Writer, layers: int, opset: int) -> onnx.ModelProto:
    kind = TYPES[out.kind]
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.INT64, ["b", s]) for name, s in _INPUTS.items()]
    outputs = [value("logits", kind, ["b", "s", WORDS])]
    for index in range(layers):
        for part in ("key", "value"):
            inputs.append(value(f"past.{index}.{part}", kind, ["b", KEYS, "p", SIZE]))
            outputs.append(value(f"present.{index}.{part}", kind, ["b", KEYS, "t", SIZE]))
    graph = helper.make_graph(out.nodes, "decoder", inputs, outputs, out.weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ORT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


_INPUTS = {"input_ids": "s", "attention_mask": "t"}


def first_feed(model: onnx.ModelProto, ids: Array, room: int = 0) -> dict[str, Array]:
    """Return what a decoder is given for a prompt, with a cache that nothing is in yet."""
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for value in model.graph.input:
        if value.name.startswith("past"):
            kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feed[value.name] = np.zeros((len(ids), KEYS, room, SIZE), kind)
    return feed


def next_feed(feed: dict[str, Array], found: dict[str, Array], ids: Array) -> dict[str, Array]:
    """Return what a decoder is given for a token after what it found."""
    mask = np.concatenate([feed["attention_mask"], np.ones_like(ids)], 1)
    caches = {name.replace("present", "past"): x for name, x in found.items() if "present" in name}
    return {"input_ids": ids, "attention_mask": mask, **caches}
