"""What a target does not run is said in what it runs, or every node that stays is named."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.passes.infer import Infer
from vlmpass.passes.legalize.legalize import Legalize

RESIZE = """<ir_version: 8, opset_import: ["" : 18]>
g (float[1,2,8,n] x) => (float[1,2,5,3] y) {
  s = Constant<value_ints=[1, 2, 5, 3]>()
  y = Resize<mode="cubic", antialias=1, cubic_coeff_a=-0.5, exclude_outside=1>(x, , , s)
}"""
MERGING = """<ir_version: 8, opset_import: ["" : 18]>
g (float[b,n,4] e, int64[b,n] ids, float[m,4] f) => (float[b,n,4] y) {
  one = Constant<value_int=1>() k = Equal(ids, one) z = NonZero(k)
  t = Transpose<perm=[1, 0]>(z) y = ScatterND(e, t, f)
}"""
BRAIN = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,n] x, float[n] y) => (float[2,n] z) {
  u = Cast<to=16>(x) v = Cast<to=16>(y) a = Add(u, v) b = Mul(a, u) z = Cast<to=1>(b)
}"""
LEFT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n,4,4] x, int64 k, int64[n] i) => (float[n] y, int64[n] c) {
  z = Trilu(x) y = Det(z) c = CumSum(i, k)
}"""


def legal(text: str, target: str) -> ir.Model:
    """Return a model made legal, which is valid, and which a second run leaves as it is."""
    model = ir.from_onnx_text(text)
    Infer().run(model)
    assert Legalize(target).run(model)
    check(model)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not Legalize(target).run(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    return model


def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)[0]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("target", ["tensorrt-10.15", "tensorrt-11"])
def test_an_antialiased_resize_becomes_products(target: str) -> None:
    model = legal(RESIZE, target)
    assert "Resize" not in operators(model)
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 6)).astype(np.float32)
    np.testing.assert_allclose(run(model, x=x), run(ir.from_onnx_text(RESIZE), x=x), atol=1e-6)


def test_merging_of_image_tokens_has_no_shapes_that_values_decide() -> None:
    model = legal(MERGING, "tensorrt-10.15")
    assert not {"NonZero", "ScatterND"} & set(operators(model))
    rng = np.random.default_rng(0)
    ids = np.array([[1, 0, 1, 2], [0, 0, 1, 0]], np.int64)
    feed = {"e": rng.standard_normal((2, 4, 4)), "f": rng.standard_normal((3, 4))}
    feeds = {"ids": ids, **{name: each.astype(np.float32) for name, each in feed.items()}}
    assert (run(model, **feeds) == run(ir.from_onnx_text(MERGING), **feeds)).all()


def test_a_type_without_kernels_is_cast_once_around_all_that_works_on_it() -> None:
    model = legal(BRAIN, "ort-cpu")
    assert operators(model) == ["Cast", "Cast", "Cast", "Cast", "Add", "Mul", "Cast", "Cast"]
    x = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    u = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    expected = ((u + u[0]) * u).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (run(model, x=x, y=x[0]) == expected).all()


def test_integers_wrap_between_casts_as_they_do_without() -> None:
    lacks = 'inherits = "onnx-standard"\nabout = "a"\nsource = "b"\n[operators]\n'
    path = Path(__file__).parent / "no_int8.toml"
    assert path.read_text(encoding="utf-8").startswith(lacks)
    text = "g (int8[n] x) => (int8[n] z) { a = Add(x, x) z = Max(a, x) }"
    model = legal(f'<ir_version: 8, opset_import: ["" : 18]> {text}', str(path))
    assert operators(model).count("Cast") > 3
    x = np.array([100, -100, 3], np.int8)
    assert (run(model, x=x) == np.maximum(x + x, x)).all()


def test_operators_of_a_runtime_become_standard_ones() -> None:
    model = legal(
        '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>'
        " g (float[b,n,4] x) => (float[b,n,4] y) { y = com.microsoft.QuickGelu(x) }",
        "onnx-standard",
    )
    assert operators(model) == ["Mul", "Sigmoid", "Mul"]


def test_all_that_stay_are_named_and_nothing_is_edited() -> None:
    model = ir.from_onnx_text(LEFT)
    Infer().run(model)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(Refused) as caught:
        Legalize("tensorrt-10.15").run(model)
    assert [each.node for each in caught.value.refusals] == ["y (Det-11)", "c (CumSum-14)"]
    assert "its axis is known at run time only" in str(caught.value)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_target_that_is_not_there_is_refused_where_it_is_written() -> None:
    with pytest.raises(PipelineError, match="there is no target gpu"):
        Pipeline("legalize{target=gpu}")


def test_a_conversion_for_a_target_is_legal_or_refused() -> None:
    result = Pipeline(target="tensorrt-10.15").run(ir.from_onnx_text(RESIZE)).model
    assert result is not None
    assert "Resize" not in operators(result)
    with pytest.raises(Refused, match=r"y \(Det-11\)"):
        Pipeline(target="tensorrt-10.15").run(ir.from_onnx_text(LEFT))


def test_a_conversion_for_a_target_is_the_whole_pipeline() -> None:
    """Fewer nodes, and fused to what the target has: no option has to be named."""
    path = Path(__file__).parents[1] / "fixtures" / "exports" / "decoder.float32.ts17.onnx"
    counts = {}
    for target in ("ort-cpu", "tensorrt-10.15"):
        result = Pipeline(target=target).run(path).model
        assert result is not None
        counts[target] = operators(result)
    assert counts["ort-cpu"].count("SimplifiedLayerNormalization") == 5
    assert counts["ort-cpu"].count("RotaryEmbedding") == 4
    assert "RotaryEmbedding" not in counts["tensorrt-10.15"]
    assert len(counts["ort-cpu"]) < len(counts["tensorrt-10.15"]) < 200  # of 419


def test_packed_layers_become_products_that_the_target_has() -> None:
    """OpenVINO rounds the integers that unpack them; ONNX Runtime does not, and keeps them."""
    path = Path(__file__).parents[1] / "fixtures" / "exports" / "quant_mod.float16.ts17.onnx"
    for target, packed in (("openvino", True), ("ort-cpu", False)):
        result = Pipeline(target=target).run(path, verify=True).model
        assert result is not None
        assert ("MatMulNBits" in operators(result)) == packed


LEAVING = """<ir_version: 9, opset_import: ["" : 18, "l" : 1]>
g (float[n,m] x, int64 k) => (float[n,m] y) { a = l.F(x) y = l.F(a, k) }
<opset_import: ["" : 18, "l" : 1], domain: "l"> F (x, k) => (y) { y = l.G(x, k) }
<opset_import: ["" : 18], domain: "l"> G (x, k) => (y) { y = Trilu(x, k) }"""


def test_what_a_call_leaves_out_and_another_gives_is_seen_at_each(tmp_path: Path) -> None:
    path = tmp_path / "no_trilu.toml"
    path.write_text(
        'inherits = "onnx-standard"\nabout = "a"\nsource = "b"\n[operators]\n'
        'Trilu = "unsupported"\n',
        encoding="utf-8",
    )
    model = legal(LEAVING, str(path))
    assert "Trilu" not in operators(model)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for k in (-1, 0, 2):
        feeds = {"x": x, "k": np.array(k)}
        assert (run(model, **feeds) == np.triu(np.triu(x), k)).all()


def test_what_was_tried_in_vain_uses_nothing() -> None:
    """Else what it was tried with would seem to be used for ever."""
    text = "g (float[2] x) => (bool y) { y = OptionalHasElement(x) }"
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    result = Pipeline(target="ort-webgpu").run(model).model
    assert result is not None
    assert operators(result) == ["Constant"]
    assert not result.graph.initializers
