"""infer: what follows is written, what contradicts is replaced, nothing declared is lost."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from pass_models import content, model

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.proto.proto_view import inline, skeleton
from vlmpass.passes.infer import Infer

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"


def inferred(text: str, header: str | None = None) -> dict[str, str]:
    """Infer twice and return the type and shape of every value by name."""
    m = model(text) if header is None else model(text, header)
    Infer().run(m)
    before = content(m)
    assert not Infer().run(m)
    assert content(m) == before
    return {
        value.name or "": f"{value.dtype and value.dtype.name.lower()}{dims(value)}"
        for graph in m.graphs()
        for node in graph
        for value in node.outputs
    }


def dims(value: ir.Value) -> list[int | str | None] | None:
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def test_sizes_that_follow_are_written() -> None:
    assert inferred(
        """g (float[batch, 3, h, w] x, float[8, 3, 2, 2] k) => (y) {
        a = Conv<strides = [2, 2]>(x, k)  s = Shape(x)  b = Flatten(x)  c = Concat<axis = 0>(x, x)
        d = Transpose<perm = [0, 2, 3, 1]>(x)  n = NonZero(x)  y = Relu(d) }"""
    ) == {
        "a": "float['batch', 8, 'floor((h)/(2))', 'floor((w)/(2))']",
        "s": "int64[4]",
        "b": "float['batch', '3*h*w']",
        "c": "float['2*batch', 3, 'h', 'w']",
        "d": "float['batch', 'h', 'w', 3]",
        "n": "int64[4, None]",
        "y": "float['batch', 'h', 'w', 3]",
    }


def test_a_stale_size_is_replaced_and_unconfirmed_ones_are_forgotten() -> None:
    found = inferred(
        """g (float[batch, 8] x) => (float[1, 8] z) <float[1, 8] a, float[1, 5] q, int64[1, 5] n> {
        a = Relu(x)  n = NonZero(x)  q = com.Unknown(x)  z = Neg(a) }""",
        '<ir_version: 8, opset_import: ["" : 17, "com" : 1]>\n',
    )
    assert found == {
        "a": "float['batch', 8]",
        "n": "int64[2, None]",
        "q": "float[None, None]",
        "z": "float['batch', 8]",
    }


def test_declared_sizes_that_nothing_refutes_are_kept() -> None:
    found = inferred(
        """g (float[batch, 8] x) => (float[batch, 8] z)
        <float[batch, 8] a, float[batch, 5] q, int64[2, hits] n> {
        a = Relu(x)  n = NonZero(x)  q = com.Unknown(x)  r = Neg(q)  z = Neg(a) }""",
        '<ir_version: 8, opset_import: ["" : 17, "com" : 1]>\n',
    )
    assert found["q"] == "float['batch', 5]"
    assert found["r"] == "float['batch', 5]"
    assert found["n"] == "int64[2, 'hits']"


def test_outputs_keep_the_names_of_their_sizes() -> None:
    found = inferred("g (float[b, s] x) => (float[out_b, out_s] z) { z = Relu(x) }")
    assert found == {"z": "float['out_b', 'out_s']"}


def test_a_wrong_type_in_between_is_replaced() -> None:
    m = model("g (float[2] x) => (float[2] z) <float16[2] a> { a = Relu(x)  z = Neg(a) }")
    assert Infer().run(m)
    assert m.graph[0].outputs[0].dtype == ir.DataType.FLOAT
    check(m)


def test_types_of_inputs_and_outputs_stay() -> None:
    m = model("g (float[2] x) => (float16[2] z) { z = Relu(x) }")
    assert not Infer().run(m)
    assert m.graph.outputs[0].dtype == ir.DataType.FLOAT16


def test_values_in_branches_are_inferred() -> None:
    found = inferred(
        """g (float[n] x, bool c) => (z) {
        a = Neg(x)
        z = If(c) <then_branch = t () => (y) { b = Concat<axis = 0>(a, x)  y = Neg(b) },
                   else_branch = e () => (w) { w = Relu(a) }> }"""
    )
    assert found["b"] == found["y"] == "float['2*n']"
    assert found["w"] == "float['n']"
    assert found["z"] == "float[None]"


def test_one_name_on_two_inputs_is_one_size() -> None:
    found = inferred("g (float[n] x, float[n] y) => (z) { z = Add(x, y) }")
    assert found == {"z": "float['n']"}


@pytest.mark.parametrize(
    "name",
    ["decoder.float32.ts14", "text.float32.dyn18", "vision.float32.ts17", "quant_mod.float16.ts17"],
)
def test_real_exports_run_with_the_sizes_inferred(name: str) -> None:
    """Run the model with every value an output and compare each size with the inferred one."""
    m = load(EXPORTS / f"{name}.onnx")
    Infer().run(m)
    before = content(m)
    assert not Infer().run(m)
    assert content(m) == before
    check(m)
    with np.load(EXPORTS / f"{name.rsplit('.', 1)[0]}.npz") as file:
        inputs = {
            value.name: file[key]
            for value in m.graph.inputs
            for key in file.files
            if key == f"in:{value.name}"
        }
    values = [v for node in m.graph for v in node.outputs if v.name and v.shape is not None]
    proto = skeleton(m, inline)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in values)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    sizes = {
        dim.value: size
        for value in m.graph.inputs
        for dim, size in zip(value.shape or (), inputs[value.name].shape, strict=True)
        if not isinstance(dim, int)
    }
    wrong = []
    for value, got in zip(values, session.run(None, inputs), strict=True):
        claims = [claimed(dim, sizes) for dim in dims(value) or ()]
        if any(a not in (None, b) for a, b in zip(claims, got.shape, strict=True)):
            wrong.append((value.name, dims(value), got.shape))
    assert not wrong
    known = sum(value.shape is not None and None not in dims(value) for value in values)
    assert known > 0.9 * len(values)


def claimed(dim: int | str | None, sizes: dict[str, int]) -> int | None:
    """Compute a size; None for unknown ones and for names that the exporter gave to outputs."""
    if not isinstance(dim, str):
        return dim
    if not set(re.findall(r"[A-Za-z_]\w*", dim)) <= {*sizes, "floor"}:
        return None
    return int(eval(dim.replace("/", "//"), {"floor": int}, sizes))
