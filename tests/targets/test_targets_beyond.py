"""OpenVINO makes constants of 64 bits such of 32: what it then gives is what its profile says."""

from __future__ import annotations

import numpy as np
import onnxruntime
import openvino as ov
import pytest
from onnx import numpy_helper, parser

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.targets import Context, profile, why_not

NODES = {
    "Add": "Add(x, c)",
    "Sub": "Sub(c, x)",
    "Mul": "Mul(x, c)",
    "Min": "Min(x, x, c)",
    "Max": "Max(c, x)",
    "Where": "Where(b, x, c)",
    "Where of the other": "Where(b, c, x)",
    "Concat": "Concat<axis=0>(x, c)",
    "Identity": "Identity(c)",
    "Abs": "Abs(c)",
    "Neg": "Neg(c)",
    "Gather": "Gather(c, i)",
    "Slice": "Slice(c, i, e)",
    "Slice to an open end": "Slice(x, i, o)",
    "Unsqueeze": "Unsqueeze(c, i)",
    "Transpose": "Transpose(c)",
    "Expand": "Expand(c, e)",
    "Less": "Less(x, c)",
    "GreaterOrEqual": "GreaterOrEqual(c, x)",
    "Equal": "Equal(x, c)",
}
ENDS = [2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**32, 2**63 - 1, -(2**63), 5]


@pytest.mark.parametrize("name", NODES)
def test_what_is_said_of_constants_at_the_ends(name: str) -> None:
    draw = np.random.default_rng(sorted(NODES).index(name))
    for _ in range(2):
        numbers = [int(each) for each in draw.choice(ENDS, 2)]
        model = parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 18]> g (int64[2] x, bool[2] b) => (y)'
            f" <int64[2] c = {{{numbers[0]}, {numbers[1]}}}, int64[1] i = {{0}},"
            f" int64[1] e = {{2}}, int64[1] o = {{{2**63 - 1}}}> {{ y = {NODES[name]} }}"
        )
        fed = {"x": np.array([1, -2]), "b": np.array([True, False])}
        data = model.SerializeToString()
        (right,) = onnxruntime.InferenceSession(data).run(None, fed)
        compiled = ov.Core().compile_model(ov.Core().read_model(data), "CPU")
        known = {each.any_name for each in compiled.inputs}
        found = compiled({k: v for k, v in fed.items() if k in known})[0]
        opened = load(model)
        said = why_not(opened.graph[0], Context.of(opened, profile("openvino")))
        wide = any(not -(2**31) <= each < 2**31 for each in numbers)
        fits = bool(((right >= -(2**31)) & (right < 2**31)).all())  # else it depends on data, too
        assert said.runs or wide, (numbers, said)
        assert not said.runs or (not wide and not fits) or np.array_equal(found, right), numbers


@pytest.mark.parametrize("kind", ["uint32", "uint64", "int64"])
def test_large_tables_and_unsigned_numbers_are_looked_at(kind: str) -> None:
    for top, runs in ((2**31 - 1, True), (2**31, False)):
        model = parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 18]> g (int64[2] i) => ({kind}[2] y)'
            f" <{kind}[1] c = {{0}}> {{ y = Gather(c, i) }}"
        )
        numbers = np.zeros(100_000, kind)
        numbers[-1] = top
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(numbers, "c"))
        compiled = ov.Core().compile_model(ov.Core().read_model(model.SerializeToString()), "CPU")
        found = compiled({"i": np.array([0, 99_999])})[0]
        opened = load(model)
        said = why_not(opened.graph[0], Context.of(opened, profile("openvino")))
        assert said.runs == runs == bool(found[1] == numbers[-1])
