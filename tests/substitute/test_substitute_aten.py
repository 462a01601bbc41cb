"""PyTorch's antialiased resizes left as foreign nodes: replaced, equal to PyTorch's own results.

The references were computed by PyTorch in double, as float32 rounds places, on the image that
`image` makes (see make_references.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.infer import Infer
from vlmpass.passes.substitute import Substitute

REFERENCES = np.load(Path(__file__).parent / "references.npz")
SPELLINGS = {
    "fallback": 'org.pytorch.aten.ATen<operator="{op}">(x, s, corners, {scales})',
    "custom": "aten.{op}(x, s, corners, {scales})",
}


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 2, 32, 30)).astype(np.float32)


def model(
    call: str, opset: int, *, size: str | None, corners: int = 0, shape: str = "1,2,h,w"
) -> ir.Model:
    inputs = [f"float[{shape}] x"] + ([] if size else ["int64[2] s"])
    constant = f"s = Constant<value_ints=[{size}]>()\n" if size else ""
    domain = call.rpartition("(")[0].rpartition("<")[0] or call.partition("(")[0]
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}, "{domain.rpartition(".")[0]}" : 1]>'
        f" g ({', '.join(inputs)}) => (float[a,b,c,d] y)"
        f" <bool corners = {{{corners}}}, float[2] scales = {{0.5, 1.5}}>"
        f" {{ {constant} y = {call} }}"
    )


def run(given: ir.Model, **feeds: np.ndarray) -> np.ndarray:
    Infer().run(given)
    assert Substitute().run(given)
    check(given)
    assert not Substitute().run(given)
    session = ort.InferenceSession(ir.to_proto(given).SerializeToString())
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", ["13,11", "45,50", "9,40", "1,7", "16,16"])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_equals_pytorch(opset, spelling, kind, size, corners):
    call = SPELLINGS[spelling].format(op=f"_upsample_{kind}2d_aa", scales="")
    given = model(call, opset, size=size, corners=corners)
    y = run(given, x=image())
    np.testing.assert_allclose(y, REFERENCES[f"{kind} {size} {corners}"], atol=1e-5)
    resizes = sum(node.op_type == "Resize" for node in given.graph)
    assert resizes == (opset >= 18 and not corners)


@pytest.mark.parametrize("opset", [17, 18])
def test_sizes_known_at_run_time_only(opset):
    call = SPELLINGS["fallback"].format(op="_upsample_bicubic2d_aa", scales="")
    y = run(model(call, opset, size=None), x=image(), s=np.array([9, 40], np.int64))
    np.testing.assert_allclose(y, REFERENCES["bicubic 9,40 0"], atol=1e-5)


@pytest.mark.parametrize("shape", ["1,2,32,30", "1,2,h,w"])
@pytest.mark.parametrize("opset", [17, 18])
def test_scales_instead_of_sizes(opset, shape):
    call = 'org.pytorch.aten.ATen<operator="_upsample_bicubic2d_aa">(x, , corners, scales)'
    y = run(model(call, opset, size="1,1", shape=shape), x=image())
    np.testing.assert_allclose(y, REFERENCES["bicubic scales"], atol=1e-5)


def test_refuses_below_opset_13_naming_the_node():
    call = SPELLINGS["custom"].format(op="_upsample_bilinear2d_aa", scales="")
    with pytest.raises(Refused, match="opset 12 is below 13"):
        Substitute().run(model(call, 12, size="4,4"))


def test_other_foreign_nodes_stay():
    call = 'org.pytorch.aten.ATen<operator="weight_norm">(x, s, corners, scales)'
    assert not Substitute().run(model(call, 17, size="4,4"))


@pytest.mark.parametrize("opset", [12, 14, 18])
def test_asking_for_an_opset_is_enough(opset):
    call = SPELLINGS["fallback"].format(op="_upsample_bicubic2d_aa", scales="")
    result = Pipeline(opset=opset).run(model(call, 17, size="9,40")).model
    assert result is not None
    assert {node.domain for node in result.graph} == {""}
    session = ort.InferenceSession(ir.to_proto(result).SerializeToString())
    (y,) = session.run(None, {"x": image()})
    np.testing.assert_allclose(y, REFERENCES["bicubic 9,40 0"], atol=1e-5)


@pytest.mark.parametrize("opset", [12, 18])
def test_all_else_is_compared_with_the_source_after_substitution(opset):
    call = SPELLINGS["fallback"].format(op="_upsample_bicubic2d_aa", scales="")
    report = Pipeline(opset=opset).run(model(call, 17, size="9,40"), verify=True)
    assert report.checked.numbers is not None
    assert report.checked.numbers.ok
    assert any("compared with the source after that" in note for note in report.notes)


def constant_image(call: str, opset: int, corners: int = 0) -> ir.Model:
    """Return a model that adds a resized constant, such as a position embedding, to its input."""
    given = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}, "org.pytorch.aten" : 1]>'
        " g (float[1,2,32,30] x, float[1,2,a,b] z) => (float[1,2,a,b] y)"
        f" <bool corners = {{{corners}}}, int64[2] s = {{9, 40}}, float[2] scales = {{0.5, 1.5}}>"
        f" {{ r = {call}\n y = Add(r, z) }}"
    )
    x = given.graph.inputs.pop(0)
    x.const_value = ir.tensor(image(), name="x")
    given.graph.register_initializer(x)
    return given


@pytest.mark.parametrize("opset", [12, 13, 17, 18, 21])
@pytest.mark.parametrize(
    ("call", "reference"),
    [
        ('ATen<operator="_upsample_bicubic2d_aa">(x, s, corners)', "bicubic 9,40 0"),
        ('ATen<operator="_upsample_bilinear2d_aa">(x, s, corners)', "bilinear 9,40 0"),
        ('ATen<operator="_upsample_bicubic2d_aa">(x, , corners, scales)', "bicubic scales"),
    ],
)
def test_a_constant_image_is_resized_in_advance(tmp_path, call, reference, opset):
    """By the preset, into a weight that the writer computes; what made it is gone."""
    given = constant_image(f"org.pytorch.aten.{call}", 17)
    Pipeline(opset=opset).convert(given, tmp_path / "out.onnx", verify=False)
    result = ir.load(tmp_path / "out.onnx")
    assert [node.op_type for node in result.graph] == ["Add"]
    large = [v for v in result.graph.initializers.values() if v.const_value.size > 2]
    assert len(large) == 1
    session = ort.InferenceSession(tmp_path / "out.onnx")
    (y,) = session.run(None, {"z": np.zeros((1, 2, *REFERENCES[reference].shape[2:]), "f4")})
    np.testing.assert_allclose(y, REFERENCES[reference], atol=1e-5)
