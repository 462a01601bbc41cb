"""Operators that PyTorch's exporters left behind: what stands for each computes what PyTorch does.

References were computed by PyTorch (make_references.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.substitute.aten_cases import CASES, Case
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.infer import Infer
from vlmpass.passes.substitute import Substitute
from vlmpass.rewriter_rules.substitute import aten_operators

REFERENCES = np.load(Path(__file__).parent / "references_operators.npz")
ONNX = {"float32": "float", "bool": "bool", "int64": "int64", "int32": "int32"}
CUSTOM = "aten.{op}{attributes}({names})"
FALLBACK = 'org.pytorch.aten.ATen<operator="{op}"{more}>({names})'
OFTEN = ((13, FALLBACK, False), (18, CUSTOM, True))


def model(case: Case, opset: int, spelling: str, *, fixed: bool) -> ir.Model:
    """Return a case as a model whose sizes are known or not."""
    inputs, constants, names = [], [], []
    for name, given in zip("abcdefgh", case.inputs, strict=False):
        names.append("" if given is None else name)
        if isinstance(given, np.ndarray):
            sizes = (str(size) if fixed else f"{name}{i}" for i, size in enumerate(given.shape))
            inputs.append(f"{ONNX[given.dtype.name]}[{','.join(sizes)}] {name}")
        elif isinstance(given, tuple):
            array = given[0]
            numbers = ",".join(str(each) for each in array.reshape(-1).tolist())
            numbers = numbers.replace("True", "1").replace("False", "0")
            sizes = f"[{','.join(map(str, array.shape))}]" if array.ndim else ""
            constants.append(f"{ONNX[array.dtype.name]}{sizes} {name} = {{{numbers}}}")
    more = f", {case.attributes}" if case.attributes else ""
    attributes = f"<{case.attributes}>" if case.attributes else ""
    call = spelling.format(
        op=case.operator, names=", ".join(names), more=more, attributes=attributes
    )
    rank = REFERENCES[case.name].ndim
    out = f"{case.kind}[{','.join(f'o{i}' for i in range(rank))}] y"
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}, "org.pytorch.aten" : 1, "aten" : 1]>'
        f" g ({', '.join(inputs)}) => ({out}) <{', '.join(constants)}> {{ y = {call} }}"
    )


def made(case: Case, opset: int, spelling: str, *, fixed: bool) -> np.ndarray:
    given = model(case, opset, spelling, fixed=fixed)
    Infer().run(given)
    assert Substitute().run(given)
    check(given)
    assert {node.domain for node in given.graph} == {""}
    assert not Substitute().run(given)
    held = zip("abcdefgh", case.inputs, strict=False)
    feeds = {name: each for name, each in held if isinstance(each, np.ndarray)}
    return ort.InferenceSession(ir.to_proto(given).SerializeToString()).run(None, feeds)[0]


@pytest.mark.parametrize("name", CASES)
def test_equals_pytorch(name: str) -> None:
    for opset, spelling, fixed in OFTEN:
        rows = name == "index_put rows"  # how its values are spread is told by their sizes alone
        found = made(CASES[name], opset, spelling, fixed=fixed or rows)
        wanted = REFERENCES[name]
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(found, wanted, atol=2e-5)


PLANTED = {
    "upsample_nearest2d (7, 9)": aten_operators._nearest(2, exact=True),
    "_upsample_nearest_exact2d (7, 9)": aten_operators._nearest(2),
    "upsample_bicubic2d (7, 9)": aten_operators._resized(2, "cubic", cubic_coeff_a=-0.5),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = CASES[name].operator
    names, _ = aten_operators._BUILDERS[operator]
    monkeypatch.setitem(aten_operators._BUILDERS, operator, (names, PLANTED[name]))  # type: ignore[arg-type]
    found = made(CASES[name], 18, CUSTOM, fixed=True)
    assert not np.allclose(found, REFERENCES[name], atol=2e-5)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_nearest_takes_what_pytorch_takes_where_a_division_does_not(
    exact: bool, fixed: bool
) -> None:
    """Its step is float32(in / out), by which it multiplies; middles it rounds once."""
    rng = np.random.default_rng(5)
    sizes = [(28, 2), (14, 2), (2, 82), (4, 110), *rng.integers(1, 130, (12, 2)).tolist()]
    name = "_upsample_nearest_exact1d" if exact else "upsample_nearest1d"
    for n, m in sizes:
        x = np.arange(n, dtype=np.float32).reshape(1, 1, n)
        case = Case("upsample_nearest1d (7,)", name, (x, (np.array([m]),)), "")
        line, step = np.arange(m), float(np.float32(n) / np.float32(m))
        places = ((line + 0.5) * step - 0.5 if exact else line * step).astype(np.float32)
        wanted = np.minimum(np.floor(places + np.float32(0.5 if exact else 0)), n - 1)
        np.testing.assert_array_equal(made(case, 18, CUSTOM, fixed=fixed)[0, 0], wanted)


def test_nearest_by_a_scale_beside_its_size() -> None:
    """torch.nn.functional.interpolate(x, scale_factor=1.16, recompute_scale_factor=False)."""
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 25)
    size, scale = (np.array([28]),), (np.array([1.16], np.float32),)
    case = Case("upsample_nearest1d (7,)", "upsample_nearest1d", (x, size, scale), "")
    wanted = np.floor(np.arange(28, dtype=np.float32) * np.float32(1 / 1.16))
    np.testing.assert_array_equal(made(case, 18, CUSTOM, fixed=True)[0, 0], wanted)


def test_nearest_is_refused_where_pytorch_is_not_one() -> None:
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 25)
    size, scale = (np.array([25]),), (np.array([1.03], np.float32),)
    case = Case("upsample_nearest1d (7,)", "upsample_nearest1d", (x, size, scale), "")
    with pytest.raises(Refused, match="own kernels differ"):
        made(case, 18, CUSTOM, fixed=True)
    given = model(replace(case, inputs=(x, size)), 18, CUSTOM, fixed=True)
    given.graph.inputs[0].dtype = given.graph.outputs[0].dtype = ir.DataType.DOUBLE
    with pytest.raises(Refused, match="double image"):
        Substitute().run(given)


def test_nearest_by_a_scale_alone() -> None:
    x, plain = np.arange(10, dtype=np.float32).reshape(1, 1, 10), "upsample_nearest1d"
    for name in (plain, f"_{plain[:-2]}_exact1d"):
        case = Case(f"{plain} (7,)", name, (x, None, (np.array([3], np.float32),)), "")
        for fixed in (False, True):
            found = made(case, 18, CUSTOM, fixed=fixed)
            np.testing.assert_array_equal(found[0, 0], np.repeat(np.arange(10), 3))
    rounded = replace(case, inputs=(x, None, (np.array([0.7], np.float32),)))
    with pytest.raises(Refused, match="how its scale was rounded"):  # 7 of 0.7, 6 of its float32
        made(rounded, 18, CUSTOM, fixed=True)


def test_repeats_with_their_sum() -> None:
    case = Case("repeat places", "repeat_interleave", (np.array([2, 0, 3]), (np.array(5),)), "")
    case = replace(case, kind="int64")
    tensor = FALLBACK.replace("{more}", ', overload_name="Tensor"')
    np.testing.assert_array_equal(made(case, 18, tensor, fixed=False), [0, 0, 2, 2, 2])
    with pytest.raises(Refused, match="which overload it is"):
        made(case, 18, CUSTOM, fixed=False)


def test_values_of_index_put_are_not_its_flag() -> None:
    places, values = (np.array([0, 1]), np.array([1, 0])), (np.array([7, 8]),)
    inputs = (np.zeros((2, 2), np.int64), *places, values)
    case = Case("index_put rows", "index_put", inputs, "", kind="int64")
    given = model(case, 18, CUSTOM, fixed=True)
    given.graph.outputs[0].shape = None
    Infer().run(given)
    assert Substitute().run(given)
    session = ort.InferenceSession(ir.to_proto(given).SerializeToString())
    feeds = dict(zip("abc", (case.inputs[0], *places), strict=True))
    np.testing.assert_array_equal(session.run(None, feeds)[0], [[0, 7], [8, 0]])


IMAGE = np.zeros((1, 1, 25, 25), np.float32)
SCALE = (np.array(1.16, np.float32),)
LEFT = (np.array([28, 28]),)
DROPPED = {
    "scales as attributes": ((IMAGE, LEFT), "align_corners=0, scales_h=1.5", "scales_h is given"),
    "one scale of two": ((IMAGE, LEFT, SCALE), "align_corners=0", "some of its axes"),
    "another size": ((IMAGE, LEFT, SCALE, SCALE), "align_corners=0", "not what its scales make"),
    "bytes": ((IMAGE.astype(np.int32), LEFT), "align_corners=0", "integer image"),
}


@pytest.mark.parametrize("operator", ["upsample_bilinear2d", "_upsample_bilinear2d_aa"])
@pytest.mark.parametrize("name", DROPPED)
def test_what_would_be_dropped_is_refused(name: str, operator: str) -> None:
    inputs, attributes, reason = DROPPED[name]
    case = Case("upsample_bilinear2d (7, 9)", operator, inputs, "", attributes)
    given = model(case, 18, CUSTOM, fixed=True)
    Infer().run(given)
    if name == "another size" and operator.endswith("_aa"):
        assert Substitute().run(given)  # matrices take a size and a scale apart
        assert {node.op_type for node in given.graph} == {"MatMul"}
        return
    with pytest.raises(Refused, match=reason):
        Substitute().run(given)


@pytest.mark.parametrize("operator", ["upsample_bilinear2d", "_upsample_bilinear2d_aa"])
def test_a_parameter_of_a_function_is_not_the_default(operator: str) -> None:
    case = Case("upsample_bilinear2d (7, 9)", operator, (IMAGE, LEFT), "", "align_corners=0")
    given = model(case, 18, CUSTOM, fixed=True)
    (node,) = given.graph
    reference = ir.RefAttr("align_corners", "corners", ir.AttributeType.INT)
    node.attributes["align_corners"] = reference
    with pytest.raises(Refused, match="inline-functions first"):
        Substitute().run(given)


REFUSED = {
    "it drops": ("attention causal", np.float32(0.5), "drops at random"),
    "it sums": ("index_put places", np.bool_(True), "opset 16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equal_is_refused_with_the_reason(name: str) -> None:
    case, number, reason = REFUSED[name]
    given = model(CASES[case], 13, FALLBACK, fixed=True)
    value = given.graph.initializers["e"]  # the fifth argument: how much, or whether
    value.const_value = ir.tensor(np.asarray(number), name="e")
    with pytest.raises(Refused, match=reason):
        Substitute().run(given)
