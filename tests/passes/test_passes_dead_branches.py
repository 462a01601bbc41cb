from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.simplifying import operators, proto_of, simplify
from vlmpass.passes.control.dead_branches import DeadBranches

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
TRUE = "c = Constant<value: tensor = bool {1}>()"


def dead(text: str, *feeds, **header) -> ir.Model:
    return simplify(proto_of(text, **header), [DeadBranches()], *(feeds or (X,)))


def test_decided_if_is_inlined_and_the_output_keeps_its_name() -> None:
    model = dead(f"""g (float[n,3] x) => (float[n,3] y) {{
        {TRUE}  y = If (c) <
            then_branch = t () => (float[n,3] a) {{ b = Neg(x)  a = Exp(b) }},
            else_branch = e () => (float[n,3] a) {{ b = Exp(x)  a = Neg(b) }}> }}""")
    assert operators(model) == ["Neg", "Exp"]


def test_names_that_both_branches_or_the_graph_use_stay_unique() -> None:
    model = dead(f"""g (float[n,3] x) => (float[n,3] y) {{
        {TRUE}  p = If (c) <
            then_branch = t () => (float[n,3] a) {{ b = Neg(x)  a = Exp(b) }},
            else_branch = e () => (float[n,3] a) {{ b = Exp(x)  a = Neg(b) }}>
        q = If (c) <
            then_branch = t () => (float[n,3] a) {{ b = Exp(x)  a = Neg(b) }},
            else_branch = e () => (float[n,3] a) {{ a = Neg(x) }}>
        y = Add(p, q) }}""")
    assert operators(model) == ["Neg", "Exp", "Exp", "Neg", "Add"]


def test_condition_decided_by_a_shape() -> None:
    model = dead("""g (float[n,3] x) => (float[k] y) {
        s = Shape(x)  i = Constant<value_int=1>()  d = Gather(s, i)  one = Constant<value_int=1>()
        c = Equal(d, one)  y = If (c) <
            then_branch = t () => (float[k] a) {
                f = Constant<value_ints=[-1]>() a = Reshape(x, f) },
            else_branch = e () => (float[k] b) {
                g = Constant<value_ints=[-1]>() r = Reshape(x, g) b = Neg(r) }> }""")
    assert operators(model) == ["Reshape", "Neg"]


def test_condition_that_depends_on_the_input_stays() -> None:
    text = """g (float[n,3] x) => (float[m,3] y) {
        s = Shape(x)  i = Constant<value_int=0>()  d = Gather(s, i)  one = Constant<value_int=1>()
        c = Equal(d, one)  y = If (c) <
            then_branch = t () => (float[n,3] a) { a = Exp(x) },
            else_branch = e () => (float[n,3] b) { b = Neg(x) }> }"""
    feeds = [{"x": np.ones((rows, 3), np.float32)} for rows in (0, 1, 2)]
    assert "If" in operators(dead(text, *feeds))


def test_nested_if_and_body_initializers() -> None:
    model = dead(f"""g (float[n,3] x) => (float[n,3] y) {{
        {TRUE}  y = If (c) <
            then_branch = t () => (float[n,3] a) <float[1] w = {{2.0}}> {{
                a = If (c) <
                    then_branch = u () => (float[n,3] k) {{ k = Mul(x, w) }},
                    else_branch = v () => (float[n,3] k) {{ k = Neg(x) }}> }},
            else_branch = e () => (float[n,3] a) {{ a = Neg(x) }}> }}""")
    assert operators(model) == ["Mul"]
    assert len(model.graph.initializers) == 1


def test_branch_that_returns_an_initializer_or_one_value_twice() -> None:
    model = dead(f"""g (float[n,3] x) => (float[1] y, float[n,3] z, float[n,3] w) {{
        {TRUE}  y, z, w = If (c) <
            then_branch = t () => (float[1] a, float[n,3] b, float[n,3] d) <float[1] k = {{2.0}}> {{
                a = Identity(k)  b = Neg(x)  d = Identity(b) }},
            else_branch = e () => (float[1] a, float[n,3] b, float[n,3] d) {{
                a = Constant<value_floats=[1.0]>()  b = Exp(x)  d = Neg(x) }}> }}""")
    assert operators(model) == ["Identity", "Neg", "Identity"]


def test_if_in_a_function_keeps_constants_as_nodes() -> None:
    text = """<ir_version: 9, opset_import: ["": 18, "f": 1]>
        g (float[n,3] x) => (float[n,3] y) { y = f.pick(x) }
        <domain: "f", opset_import: ["": 18]>
        pick (x) => (y) {
            c = Constant<value: tensor = bool {1}>()
            y = If (c) <
                then_branch = t () => (float[n,3] a) <float[1] w = {2.0}> { a = Mul(x, w) },
                else_branch = e () => (float[n,3] a) { a = Neg(x) }> }"""
    model = dead(text)
    (function,) = model.functions.values()
    assert [node.op_type for node in function] == ["Constant", "Mul"]


LOOP = """g (float[n,3] x) => (float[n,3] y, float[t,n,3] z) {{
    m = Constant<value_int={trips}>()  {condition}
    y, z = Loop (m, {c}, x) <body = b (int64 i, bool p, float[n,3] v) =>
        (bool q, float[n,3] w, float[n,3] s) {{
            q = Identity(p)  f = Cast<to=1>(i)  w = Sub(v, f)  s = Neg(v) }}> }}"""


def test_loop_that_runs_once() -> None:
    for c, condition in (("c", TRUE), ("", "")):
        model = dead(LOOP.format(trips=1, c=c, condition=condition))
        assert operators(model) == ["Cast", "Sub", "Neg", "Unsqueeze"]


def test_loop_that_runs_twice_stays() -> None:
    assert "Loop" in operators(dead(LOOP.format(trips=2, c="c", condition=TRUE)))


def test_loop_whose_body_stops_it() -> None:
    model = dead(f"""g (float[n,3] x) => (float[n,3] y) {{
        {TRUE}  m = Constant<value_int=9>()
        y = Loop (m, c, x) <body = b (int64 i, bool p, float[n,3] v) => (bool q, float[n,3] w) {{
            q = Constant<value: tensor = bool {{0}}>()  w = Neg(v) }}> }}""")
    assert operators(model) == ["Neg"]


def test_loop_that_never_runs() -> None:
    text = """g (float[n,3] x, int64 m) => (float[n,3] y, float[t,2] z) {
        c = Constant<value: tensor = bool {0}>()
        y, z = Loop (m, c, x) <body = b (int64 i, bool p, float[n,3] v) =>
            (bool q, float[n,3] w, float[2] s) {
                q = Identity(p)  w = Neg(v)  s = Constant<value_floats=[1.0, 2.0]>() }> }"""
    model = dead(text, {**X, "m": np.array(4)})
    assert operators(model) == ["Identity"]


def test_loop_that_never_runs_with_results_of_unknown_size_stays() -> None:
    text = LOOP.format(trips=0, c="c", condition=TRUE)
    assert "Loop" in operators(dead(text))


def test_before_opset_13() -> None:
    model = dead(LOOP.format(trips=1, c="", condition=""), opset=12, ir_version=7)
    assert operators(model) == ["Cast", "Sub", "Neg", "Unsqueeze"]
