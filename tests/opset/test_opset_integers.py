"""Integers at lower opsets: they wrap, compare and give their bits as before."""

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.passes.convert_opset import ConvertOpset

from .opset_cases import attempts
from .opset_graphs import assert_same_after, build

D = ir.DataType
RANDOM = np.random.default_rng(0)


def bits_of(source: np.dtype) -> np.ndarray:
    """Return integers that are the bits of every kind of float."""
    info = np.iinfo(source)
    if info.bits == 16:
        return np.arange(info.min, info.max + 1).astype(source)
    kind = np.dtype(f"f{info.bits // 8}")
    ends = [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, np.finfo(kind).max, np.finfo(kind).tiny]
    ends += [np.finfo(kind).smallest_subnormal, -np.finfo(kind).tiny / 2]
    some = RANDOM.integers(info.min, info.max, 200, dtype=source, endpoint=True)
    return np.concatenate([np.array(ends, kind).view(source), some])


@pytest.mark.parametrize("to", [25, 13, 10])
@pytest.mark.parametrize(
    ("source", "kind"),
    [("int32", "float"), ("uint32", "float"), ("int64", "double"), ("int16", "float16")],
)
def test_bits_are_read_as_floats(source, kind, to):
    bits, dtype = bits_of(np.dtype(source)), D[kind.upper()]
    count = len(bits)
    head = f"agraph ({source}[{count}] x) => ({kind}[{count}] y)"
    model = build(f"{head} {{ y = BitCast <to={dtype.value}> (x) }}", 26)
    ConvertOpset(to=to).run(model)
    expected = bits.view(dtype.numpy())
    regular = ~np.isnan(expected)
    results = [r for r in attempts(ir.to_proto(model), [bits]) if not isinstance(r, Exception)]
    assert results
    for (result,) in results:
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(np.signbit(result)[regular], np.signbit(expected)[regular])


WRAPPING = ["Add", "Sub", "Mul", "Max", "Min", "Less", "Equal"]
NARROW = ["int8", "uint8", "int16", "uint16", "uint32", "int64"]


@pytest.mark.parametrize("operator", [*WRAPPING, "Clip", "Relu", "Abs"])
@pytest.mark.parametrize("kind", NARROW)
def test_integers_wrap_as_they_did(operator, kind):
    info = np.iinfo(kind)
    some = RANDOM.integers(info.min, info.max, 20, dtype=kind, endpoint=True)
    a = np.concatenate([np.array([info.min, info.max, 0, 1], kind), some])
    b = RANDOM.permutation(a)
    if operator in WRAPPING:
        result = "bool" if operator in ("Less", "Equal") else kind
        text = f"({kind}[24] a, {kind}[24] b) => ({result}[24] y) {{ y = {operator}(a, b) }}"
        model, feeds = build(f"agraph {text}", 21), [a, b]
    else:
        inner = "Clip(a, l, h)" if operator == "Clip" else f"{operator}(a)"
        text = f"agraph ({kind}[24] a) => ({kind}[24] y) {{ y = {inner} }}"
        constants = {"l": (3, D[kind.upper()]), "h": (99, D[kind.upper()])}
        if operator == "Relu" and kind.startswith("u"):
            pytest.skip("Relu is of signed types")
        model, feeds = build(text, 21, **constants if operator == "Clip" else {}), [a]
    with np.errstate(all="ignore"):
        assert_same_after(model.clone(), 13, *feeds)
        assert_same_after(model, 11, *feeds)


@pytest.mark.parametrize("to", [8, 7])
@pytest.mark.parametrize("operator", ["Less", "Greater"])
def test_long_integers_are_compared_by_their_halves(operator, to):
    info = np.iinfo(np.int64)
    ends = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, -1, 2**32, -(2**32)]
    ends += [2**32 - 1, 1 - 2**32, 2**53, 2**53 + 1, -(2**53) - 1]
    a = np.array(ends, np.int64)
    count = len(a)
    model = build(
        f"agraph (int64[{count},1] a, int64[{count}] b) => (bool[{count},{count}] y)"
        f" {{ y = {operator}(a, b) }}",
        13,
    )
    assert_same_after(model, to, a[:, None], a)
