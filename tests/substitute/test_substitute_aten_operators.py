"""Operators that PyTorch's exporters left behind: what stands for each computes what PyTorch does.

References were computed by PyTorch (make_references.py).
"""

from __future__ import annotations

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
    "upsample_nearest2d (7, 9)": ("_resized", "nearest", {"nearest_mode": "ceil"}),
    "_upsample_nearest_exact2d (7, 9)": ("_resized", "nearest", {"nearest_mode": "floor"}),
    "upsample_bicubic2d (7, 9)": ("_resized", "cubic", {"cubic_coeff_a": -0.5}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mode, attributes = PLANTED[name]
    operator = CASES[name].operator
    names, _ = aten_operators._BUILDERS[operator]
    wrong = (names, aten_operators._resized(mode, **attributes))
    monkeypatch.setitem(aten_operators._BUILDERS, operator, wrong)  # type: ignore[arg-type]
    found = made(CASES[name], 18, CUSTOM, fixed=True)
    assert not np.allclose(found, REFERENCES[name], atol=2e-5)


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
