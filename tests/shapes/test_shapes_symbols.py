"""Sizes that nobody named are told apart: residuals and their norms have one shape."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.shapes import legacy
from tests.shapes.proven import hold
from vlmpass.ir_tools.graph.symbols import ProvenDim, refined, same_size
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


SHARED = """<ir_version: 8, opset_import: ["": 17]>
    g (float[batch,seq,4] x, float[batch,1,4] y) => (float[p,q,r] o) {
        sum = Add(x, y)  s = Shape(x)  z = Constant<value_ints=[0]>()
        two = Constant<value_ints=[2]>()  kept = Slice(s, z, two)
        m = Constant<value_ints=[-1]>()  target = Concat<axis=0>(kept, m)
        o = Reshape(sum, target) }"""


def test_inference_believes_that_axes_of_one_name_have_one_size() -> None:
    model = ir.from_proto(onnx.parser.parse_model(SHARED))
    PassManager(parse("infer")).run(model, in_place=True)
    last = model.graph.node(-1).outputs[0].shape
    assert last is not None
    assert last[2] == 4


def test_no_node_goes_because_of_a_name() -> None:
    proto = onnx.parser.parse_model(SHARED)
    model = run(proto, "infer,shape-arithmetic,infer")
    feeds = {"x": np.ones((1, 2, 4), np.float32), "y": np.ones((3, 1, 4), np.float32)}
    before, after = (
        ort.InferenceSession(each.SerializeToString()).run(None, feeds)[0]
        for each in (proto, ir.to_proto(model))
    )
    assert before.shape == after.shape == (1, 2, 12)


def test_a_batch_that_is_0_copies_what_it_was_broadcast_to() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[a,b,4] x, float[c,b,4] y) => (float[p,q,r] o) {
            sum = Add(x, y)  s = Shape(x)  z = Constant<value_ints=[0]>()
            two = Constant<value_ints=[2]>()  kept = Slice(s, z, two)
            m = Constant<value_ints=[4]>()  target = Concat<axis=0>(kept, m)
            o = Reshape(sum, target) }""")
    for a, c in ((2, 2), (2, 1), (0, 1), (0, 0), (1, 1)):
        ones = np.ones
        feeds = {"x": ones((a, 2, 4), np.float32), "y": ones((c, 2, 4), np.float32)}
        facts = hold(proto, feeds)
    batch = next(v for v in facts._known if v.name == "o")
    assert facts[batch].shape is not None
    assert facts.algebra.text(facts[batch].shape[0]) == "a"
