"""Inputs of functions that one call gives and another leaves out, through every kind of pass.

What comes out computes the same, or is refused by name: no node needs what is not there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import vlmpass.ir_tools.rewrite.engine
import vlmpass.ir_tools.types.demand
import vlmpass.rewriter_rules.opset.planner
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused, VlmpassError
from vlmpass.ir_tools.run.runner import Runner

HEAD = '<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1, "my": 1]>'
CALLS = """g (float[2,4] x, float[4,4] w, float[4] s, float[4] b, float n, int64[1] i)
    => (float[2,4] y, float[2,4] z) {{ y = my.F(x, {0}) z = my.F(x, {1}) }}"""
BODIES = {
    "LayerNormalization(a, s, p)": ("s, b", "s"),
    "com.microsoft.SkipLayerNormalization(a, a, s, p)": ("s, b", "s"),
    "com.microsoft.SkipSimplifiedLayerNormalization(a, a, s, p)": ("s, b", "s"),
    "com.microsoft.FastGelu(a, p)": ("s, b", "s"),
    "Gemm(a, s, p)": ("w, b", "w"),
    "Clip(a, p)": ("s, n", "s"),
    "Clip(a, , p)": ("s, n", "s"),
    "ReduceSum(a, p)": ("s, i", "s"),
    "Dropout(a, p)": ("s, n", "s"),
}
PIPELINES = (
    "inline-functions,unfuse",
    "infer,simplify,fuse,unfuse,cse,fold",
    "mixed-precision{keep-io=true}",
    "unify-dtype{to=float16 from=[float32] keep-io=true}",
    "convert-opset{to=10}",
    "convert-opset{to=23},fuse",
)
RNG = np.random.default_rng(7)
FEEDS = {
    "x": RNG.standard_normal((2, 4)).astype(np.float32),
    "w": RNG.standard_normal((4, 4)).astype(np.float32),
    "s": np.float32([1, 2, 3, 4]),
    "b": np.float32([1, 0, -1, 2]),
    "n": np.array(0.3, np.float32),
    "i": np.int64([1]),
}


def model(body: str) -> ir.Model:
    given, left_out = BODIES[body]
    function = f"""<domain: "my", opset_import: ["": 17, "com.microsoft": 1]> F (a, s, p) => (c) {{
        k = Constant<value_float=1.0>() d = {body} e = Add(d, k) c = Add(e, a) }}"""
    return ir.from_onnx_text(f"{HEAD}\n{CALLS.format(given, left_out)}\n{function}")


def outcome(source: ir.Model, pipeline: str) -> str:
    """Return what is wrong with what a pipeline makes of a model, or nothing."""
    with Runner(source) as runner:
        wanted = runner.run(FEEDS)
    try:
        made = Pipeline(pipeline).run(source, verify=False).result
        assert made is not None
        with Runner(made) as runner:
            found = runner.run(FEEDS)
    except VlmpassError as error:
        named = isinstance(error, Refused) and "left out by a call" in str(error)
        return "" if named else str(error)
    near = [np.allclose(found[name], wanted[name], atol=2e-2, rtol=2e-2) for name in wanted]
    return "" if all(near) else f"{wanted} became {found}"


@pytest.mark.parametrize("body", BODIES)
def test_left_out_at_a_call(body: str) -> None:
    source = model(body)
    assert {name: outcome(source, name) for name in PIPELINES} == dict.fromkeys(PIPELINES, "")


@pytest.mark.parametrize(
    ("module", "body", "pipeline"),
    [
        (vlmpass.ir_tools.rewrite.engine, "com.microsoft.FastGelu(a, p)", PIPELINES[1]),
        (vlmpass.rewriter_rules.opset.planner, "Gemm(a, s, p)", "convert-opset{to=10}"),
        (vlmpass.ir_tools.types.demand, "LayerNormalization(a, s, p)", PIPELINES[2]),
    ],
    ids=["rules", "opset", "dtype"],
)
def test_left_out_and_not_noticed_is_caught(monkeypatch, module, body: str, pipeline: str) -> None:
    monkeypatch.setattr(module, "left_out_at_calls", lambda model: set())
    assert outcome(model(body), pipeline)


def test_left_out_inputs_that_are_wanted_in_two_types_are_refused() -> None:
    source = ir.from_onnx_text(
        f"""{HEAD}
        g (float[2,4] x, float[4] s, float[4] b) => (float[2,4] y, float[2,4] z) {{
        y = my.F(x, s, b) z = my.F(x, s) }}
        <domain: "my", opset_import: ["": 17, "com.microsoft": 1]> F (a, s, p) => (c) {{
        d = LayerNormalization(a, s, p) c = com.microsoft.FastGelu(d, p) }}"""
    )
    with pytest.raises(Refused, match=r"input 'p' of a function: a call leaves it out.*inline-fun"):
        Pipeline("mixed-precision{keep-io=true}").run(source, verify=False)
