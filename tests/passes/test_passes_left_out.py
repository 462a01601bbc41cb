"""Inputs of functions that one call gives and another leaves out, through every kind of pass.

What comes out computes the same, or is refused by name: no node needs what is not there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from tests.fuzz.planted import Plant, replaced, wrapped
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused, VlmpassError
from vlmpass.ir_tools.graph.walk import all_nodes, left_out_at_calls
from vlmpass.ir_tools.rewrite import engine
from vlmpass.ir_tools.run.runner import Runner
from vlmpass.ir_tools.types import demand
from vlmpass.passes import convert_opset, cse, inline_functions, simplify
from vlmpass.passes.dtype import mixed_precision, unify_dtype
from vlmpass.passes.fusing import fuse
from vlmpass.rewriter_rules.opset import planner

HEAD = '<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1, "my": 1]>'
CALLS = """g (float[2,4] x, float[4,4] w, float[4] s, float[4] b, float n, float m,
    int64[1] i)
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
    "Clip(a, s, p)": ("n, m", ", m"),
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
    "m": np.array(0.8, np.float32),
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


def others(old: Callable[..., bool], given: ir.Pass, model: ir.Model, *, change: Callable) -> bool:
    """Do something to every call when a pass is done."""
    result = old(given, model)
    for node in list(all_nodes(model)):
        if node.op_identifier() in model.functions:
            change(node, model.functions[node.op_identifier()])
    return result


def gives_another(call: ir.Node, function: ir.Function) -> None:
    call.resize_inputs(len(function.inputs))
    for index, value in enumerate(call.inputs):
        if value is None:
            call.replace_input_with(index, call.inputs[index - 1])


def leaves_out(call: ir.Node, function: ir.Function) -> None:
    call.resize_inputs(2)


def moves_up(call: ir.Node, function: ir.Function) -> ir.Node:
    given = [value for value in call.inputs if value is not None]
    call.resize_inputs(len(given))
    for index, value in enumerate(given):
        call.replace_input_with(index, value)
    return call


def forgets(call: ir.Node, function: ir.Function) -> None:
    for use in list(function.inputs[-1].uses()):
        use.node.replace_input_with(use.idx, None)


def only_at_the_end(model: ir.Model) -> set[ir.Value]:
    """Return what calls leave out, except in the middle."""
    middle = {
        model.functions[node.op_identifier()].inputs[index]
        for node in all_nodes(model)
        if node.op_identifier() in model.functions
        for index, value in enumerate(node.inputs)
        if value is None
    }
    return left_out_at_calls(model) - middle


TEN = "convert-opset{to=10}"
MIDDLE = "Clip(a, s, p)"
PASSES = {
    "simplify": simplify.Simplify,
    "cse": cse.CommonSubexpressions,
    "fuse": fuse.Fuse,
    "convert-opset{to=23}": convert_opset.ConvertOpset,
    "mixed-precision{keep-io=true}": mixed_precision.MixedPrecision,
    "unify-dtype{to=float16 from=[float32] keep-io=true}": unify_dtype.UnifyDtype,
}
PLANTS = [
    *(
        Plant(f"{what} does not notice", replaced(module, "left_out_at_calls", seen), body, (to,))
        for what, module, body, to in (
            ("a rule", engine, "com.microsoft.FastGelu(a, p)", PIPELINES[1]),
            ("an opset step", planner, "Gemm(a, s, p)", TEN),
            ("a Cast", demand, "LayerNormalization(a, s, p)", PIPELINES[2]),
        )
        for seen in (lambda model: set(),)
    ),
    Plant(
        "an opset step does not notice in the middle",
        replaced(planner, "left_out_at_calls", only_at_the_end),
        MIDDLE,
        (TEN,),
    ),
    Plant(
        "inlined inputs move up",
        wrapped(inline_functions, "instantiate", lambda old, f, call: old(f, moves_up(call, f))),
        MIDDLE,
        (PIPELINES[0],),
    ),
    Plant(
        "calls are equal whatever they leave out",
        wrapped(cse._Work, "key", lambda old, *given: old(*given)[:4]),
        "Gemm(a, s, p)",
        ("cse",),
    ),
    *(
        Plant(
            f"{text.partition('{')[0]} {change.__name__.replace('_', ' ')}",
            wrapped(
                PASSES[text],
                "run",
                lambda old, *given, change=change: others(old, *given, change=change),
            ),
            MIDDLE,
            (text,),
        )
        for text in PASSES
        for change in (gives_another, leaves_out, moves_up, forgets)
    ),
]


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_defect_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    source, (pipeline,) = model(plant.only), plant.texts
    assert not outcome(source, pipeline)
    plant.apply(monkeypatch)
    assert outcome(model(plant.only), pipeline)


def test_twenty_defects_are_planted() -> None:
    assert len(PLANTS) >= 20


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
