"""Sizes that nobody named are told apart: residuals and their norms have one shape."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.shapes import legacy
from vlmpass.ir_tools.symbols import ProvenDim, refined, same_size
from vlmpass.passes import PassManager, parse
from vlmpass.presets import SIMPLIFY
from vlmpass.rewriter_rules.simplify.known import same_shape

LAYERS = 3
NAMED, ANONYMOUS = ("batch", "seq"), (None, None)
FAMILIES = {
    "encoder": (legacy.encoder, 2 * LAYERS),
    "decoder": (legacy.decoder, 3 * LAYERS),
    "vision": (legacy.vision, 2 * LAYERS),
}
FUSE = "infer,fuse{emit=ort}"


def run(proto: onnx.ModelProto, pipeline: str) -> ir.Model:
    model = ir.from_proto(proto)
    PassManager(parse(pipeline)).run(model, in_place=True)
    return model


def skip_norms(model: ir.Model) -> int:
    return Counter(node.op_type for node in model.graph)["SkipLayerNormalization"]


@pytest.mark.parametrize("pipeline", [FUSE, f"{SIMPLIFY},{FUSE}"], ids=["fuse", "simplify"])
@pytest.mark.parametrize("dims", [NAMED, ANONYMOUS], ids=["named", "anonymous"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_residual_of_a_legacy_export_becomes_a_skip_norm(family, dims, pipeline) -> None:
    build, count = FAMILIES[family]
    proto = build(LAYERS, dims)
    model = run(proto, pipeline)
    # A second input whose batch nobody says to be that of the first may widen one sum.
    assert skip_norms(model) == count - (family != "vision" and dims == ANONYMOUS)
    sizes = {
        "hidden": (2, 3, legacy.WIDTH),
        "memory": (2, 5, legacy.WIDTH),
        "pixels": (2, 3, 16, 16),
    }
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.standard_normal(sizes[value.name]).astype(np.float32)
        if value.name in sizes
        else np.ones((2, 4), np.int64)
        for value in proto.graph.input
    }
    before, after = (
        ort.InferenceSession(each.SerializeToString()).run(None, feeds)[0]
        for each in (proto, ir.to_proto(model))
    )
    np.testing.assert_allclose(before, after, atol=1e-4)


def test_symbols_are_not_written_and_a_second_run_changes_nothing() -> None:
    model = run(legacy.encoder(2, ANONYMOUS), "infer")
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    names = {d.dim_param for v in ir.to_proto(model).graph.value_info for d in _dims(v)}
    assert names <= {""}
    again = ir.from_proto(onnx.ModelProto.FromString(once))
    report = PassManager(parse("infer")).run(again, in_place=True)
    assert not report.changed
    assert ir.to_proto(again).SerializeToString(deterministic=True) == once


def _dims(info: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(info.type.tensor_type.shape.dim)


def test_sizes_that_may_differ_have_different_symbols() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[a,4] x, float[b,4] y) => (float[c,4] o) {
            s = Add(x, y)  n = Neg(x)  o = Add(s, n) }""")
    model = ir.from_proto(proto)
    for value in model.graph.inputs:
        value.shape = ir.Shape([None, 4])
    PassManager(parse("infer")).run(model, in_place=True)
    s, n, _ = (node.outputs[0] for node in model.graph)
    x, y = model.graph.inputs
    assert same_shape(x, n)
    assert not same_shape(x, y)
    assert not same_shape(s, x)
    assert not same_shape(s, n)


def test_symbols_of_two_runs_have_nothing_in_common() -> None:
    first, second = (run(legacy.vision(1, ANONYMOUS), "infer") for _ in range(2))
    one, other = (model.graph.node(0).outputs[0].shape for model in (first, second))
    assert one is not None
    assert other is not None
    assert isinstance(one[0], ProvenDim)
    assert not same_size(one[0], other[0])


def test_a_shape_is_refined_by_what_was_known_of_the_value() -> None:
    named, proven = ir.SymbolicDim("guess"), ProvenDim(None, 7)
    merged = refined(ir.Shape([proven, 3, None]), ir.Shape([named, None, 5]))
    assert merged is not None
    assert merged[0] is proven
    assert list(merged)[1:] == [3, 5]
