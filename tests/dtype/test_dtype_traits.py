"""What passes ask of operators is told once: where their own lists had forgotten some."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import parse, run, text_of

from vlmpass.ir_tools.operators import combining
from vlmpass.ir_tools.run.input_usage import trace_use
from vlmpass.ir_tools.types.carried import carries
from vlmpass.passes.dtype.mixed_precision import MixedPrecision
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

WIDE = "tensor(float)"


def test_traits_combining_operators() -> None:
    assert combining() == {"Add", "Max", "Min", "Mul", "Sub", "Sum"}


@pytest.mark.parametrize(
    ("operator", "attribute"),
    [
        (("", "LayerNormalization"), "stash_type"),
        (("", "SimplifiedLayerNormalization"), "stash_type"),
        (("", "RMSNormalization"), "stash_type"),
        (("", "GroupNormalization"), "stash_type"),
        (("", "Range"), "stash_type"),
        (("", "Attention"), "softmax_precision"),
        (("ai.onnx.preview", "FlexAttention"), "softmax_precision"),
        (("", "QuantizeLinear"), "precision"),
        (("", "Cast"), "to"),
        (("", "Relu"), None),
        (("of.nobody", "Range"), None),
    ],
)
def test_traits_attributes_of_interior_arithmetic(
    operator: tuple[str, str], attribute: str | None
) -> None:
    assert carries(operator) == attribute


@pytest.mark.parametrize("operator", ["Add", "Sum"])
def test_traits_islands_are_tied_by_every_sum(operator: str) -> None:
    model = parse(f"""g (float[4,64] x) => (float[4,64] y) <int64[1] axis = {{-1}}> {{
        p = Mul(x, x) m = ReduceMean(p, axis) n = Neg(m) s = {operator}(x, n) y = Relu(s) }}""")
    MixedPrecision(to="float16").run(model)
    assert text_of(model, "n") == WIDE


@pytest.mark.parametrize("through", ["Squeeze(r, axes)", "Flatten(r)", "Reshape(r, shape)"])
def test_traits_islands_reach_through_all_that_reshapes(through: str) -> None:
    model = parse(f"""g (float[4,64] x) => (float[4,64] y)
        <int64[1] axis = {{-1}}, int64[1] axes = {{2}}, int64[2] shape = {{4, 64}}> {{
        p = Mul(x, x) m = ReduceMean(p, axis) t = Sub(x, m) r = Unsqueeze(t, axes)
        f = {through} y = Mul(f, m) }}""")
    MixedPrecision(to="float16").run(model)
    assert text_of(model, "f") == WIDE


def test_traits_a_remainder_of_fractions_is_no_whole_number() -> None:
    model = parse("""g (int32[4] w, float[4] x) => (float[4] y) <float h = {0.5}, float one = {1}> {
        c = Cast<to=1>(w) d = Mul(c, h) r = Mod<fmod=1>(d, one) s = Sign(r) y = Mul(s, x) }""")
    feeds = {"w": np.array([4097, 8195, 70001, 6], np.int32), "x": np.ones(4, np.float32)}
    wanted = run(model, feeds)["y"]
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert [text_of(model, name) for name in "cdr"] == [WIDE] * 3
    halves = {key: a.astype(np.float16) if key == "x" else a for key, a in feeds.items()}
    np.testing.assert_array_equal(run(model, halves)["y"], wanted)


@pytest.mark.parametrize(
    ("text", "sized"),
    [
        ("y = Tile(x, n)", True),
        ("y = Reshape(x, n)", True),
        ("z = Identity(n) y = Expand(x, z)", True),
        ("c = Cast<to=1>(n) y = Mul(x, c)", False),
        ("y = Gather(x, n)", False),
    ],
)
def test_traits_integers_that_are_read_as_sizes(text: str, sized: bool) -> None:
    model: ir.Model = parse(f"g (float[1] x, int64[1] n) => (float[M] y) {{ {text} }}")
    assert trace_use(model, model.graph.inputs[1]).sizes == sized
