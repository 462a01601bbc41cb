"""Chains of products at random, in all spellings, for what rounds their weights."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper

from vlmpass.passes.sensitivity import _Trial

NUMPY = {"float": np.float32, "float16": np.float16}
ONNX = {"float": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}


def weight(dice: np.random.Generator, name: str, *shape: int, dtype: str = "float"):
    scale = 1 / np.sqrt(max(1, shape[0]))
    return numpy_helper.from_array((dice.standard_normal(shape) * scale).astype(NUMPY[dtype]), name)


def product(dice, kind: str, x: str, y: str, sizes: tuple[int, int], dtype: str):
    """One product in one spelling, with its weights."""
    inputs, outputs = sizes
    w, b = f"{y}.w", f"{y}.b"
    if kind == "turned":
        node = helper.make_node("Gemm", [x, w, b], [y], transB=1, name=y)
        return [node], [
            weight(dice, w, outputs, inputs, dtype=dtype), weight(dice, b, outputs, dtype=dtype)
        ]  # fmt: skip
    if kind == "gemm":
        node = helper.make_node("Gemm", [x, w, b], [y], name=y)
        return [node], [
            weight(dice, w, inputs, outputs, dtype=dtype), weight(dice, b, outputs, dtype=dtype)
        ]  # fmt: skip
    node = helper.make_node("MatMul", [x, w], [y], name=y)
    return [node], [weight(dice, w, inputs, outputs, dtype=dtype)]


def chain(seed: int, opset: int, dtype: str) -> onnx.ModelProto:
    """A few products, one after the other, with a weight used twice now and then."""
    dice, choose = np.random.default_rng(seed), random.Random(seed)
    sizes = [choose.choice([1, 16, 33, 64, 70]) for _ in range(4)]
    nodes, weights = [], []
    for at in range(3):
        kind = choose.choice(["matmul", "gemm", "turned"])
        made, constants = product(
            dice, kind, f"v{at}", f"v{at + 1}", (sizes[at], sizes[at + 1]), dtype
        )
        nodes += made
        weights += constants
    last = f"v{len(sizes) - 1}"
    if choose.random() < 0.5:
        # the last product once more, on other rows
        again = helper.make_node("Neg", ["v2"], ["n2"])
        twin = onnx.NodeProto()
        twin.CopyFrom(nodes[-1])
        twin.name, twin.input[0], twin.output[0] = "twin", "n2", "t"
        total = helper.make_node("Sub", [last, "t"], ["y"])
        nodes += [again, twin, total]
    else:
        nodes.append(helper.make_node("Relu", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("v0", ONNX[dtype], ["n", sizes[0]])],
        [helper.make_tensor_value_info("y", ONNX[dtype], ["n", sizes[-1]])],
        weights,
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=choose.choice([8, 10]))


def within(trial: _Trial, model: ir.Model) -> list[dict[str, np.ndarray]]:
    """What `_Trial` asks of a model, in this process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(source, options)
    return [{"y": session.run(["y"], each)[0].astype(np.float64)} for each in trial._feeds]


class Here:
    """What runs a model whole and in this process, where segments are proven elsewhere."""

    def __init__(self, model: ir.Model, **_: object) -> None:
        self.model = model

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run_all(self, feeds, watch) -> None:
        copy = ir.from_proto(ir.to_proto(self.model))
        watch.prepare(copy)
        names = [value.name for value in copy.graph.outputs]
        session = onnxruntime.InferenceSession(ir.to_proto(copy).SerializeToString())
        for feed in feeds:
            watch.see(dict(zip(names, session.run(None, feed), strict=True)))
