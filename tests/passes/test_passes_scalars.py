"""Scalars taken out of shapes and put back, in the pass shape-arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.simplifying import operators, proto_of, simplify
from vlmpass.passes.shape_arithmetic.shape_arithmetic import ShapeArithmetic

F32 = np.float32


def arithmetic(text: str, *feeds: dict[str, np.ndarray], **header: int) -> ir.Model:
    return simplify(proto_of(text, **header), [ShapeArithmetic()], *feeds)


def numbers(**values: int) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in values.items()}


FEEDS = [numbers(a=3, b=5), numbers(a=0, b=-7), numbers(a=2**62, b=2**62)]
M1 = "m = Constant<value_ints=[-1]>()"


def test_a_sum_of_squeezed_vectors_stays_a_vector() -> None:
    model = arithmetic(
        f"""g (int64[1] a, int64[1] b) => (int64[1] y) {{
        {M1} p = Squeeze(a)  q = Squeeze(b)  s = Add(p, q)  r = Reshape(s, m)  y = Neg(r) }}""",
        *FEEDS,
    )
    assert operators(model) == ["Add", "Neg"]


def test_nodes_that_feed_each_other_and_constants_go_together() -> None:
    model = arithmetic(
        """g (int64[1] a, int64[1] b) => (int64[2] y) {
        z = Constant<value_ints=[0]>()  k = Constant<value_int=14>()
        p = Squeeze(a, z)  q = Squeeze(b, z)  c = Mod(p, k)  d = Sub(k, c)  e = Div(d, k)
        f = Mul(e, q)  u = Unsqueeze(e, z)  v = Unsqueeze(f, z)  y = Concat<axis=0>(u, v) }""",
        *FEEDS,
    )
    assert operators(model) == ["Mod", "Sub", "Div", "Mul", "Concat"]


def test_what_needs_a_scalar_gets_one_where_that_still_pays() -> None:
    text = """g (int64[1] a, int64[1] b) => (int64[k] y, int64[1] w) {{
        m = Constant<value_ints=[-1]>()  o = Constant<value_int=1>()  p = Squeeze(a)
        s = Add(p, o)  y = Range(o, s, o)  {back} }}"""
    model = arithmetic(text.format(back="r = Reshape(s, m)  w = Neg(r)"), *FEEDS[:2])
    assert operators(model) == ["Add", "Squeeze", "Range", "Neg"]
    model = arithmetic(text.format(back="w = Neg(b)"), *FEEDS[:2])
    assert operators(model) == ["Squeeze", "Add", "Range", "Neg"]


def test_a_scalar_that_is_an_output_keeps_its_name_and_shape() -> None:
    model = arithmetic(
        f"""g (int64[1] a, int64[1] b) => (int64 s, int64[2] y) {{
        {M1} p = Squeeze(a)  q = Squeeze(b)  s = Add(p, q)  t = Mul(s, s)
        u = Reshape(t, m)  v = Reshape(s, m)  y = Concat<axis=0>(u, v) }}""",
        *FEEDS,
    )
    assert operators(model) == ["Add", "Squeeze", "Mul", "Concat"]
    assert model.graph.outputs[0].shape == ir.Shape([])


def test_elements_gathered_from_a_shape_are_gathered_as_vectors() -> None:
    text = """g (float[n,m] x) => (float[k] y) {
        z = Constant<value_ints=[0]>()  i = Constant<value_int=0>()  j = Constant<value_int=1>()
        s = Shape(x)  p = Gather(s, i)  q = Gather(s, j)  k = Mul(p, q)  t = Unsqueeze(k, z)
        r = Constant<value_float=1.0>()  y = Expand(r, t) }"""
    feeds = [{"x": np.ones(shape, F32)} for shape in ((2, 3), (0, 4))]
    model = arithmetic(text, *feeds, opset=13)
    assert operators(model) == ["Shape", "Gather", "Gather", "Mul", "Expand"]


def test_floats_and_casts() -> None:
    model = arithmetic(
        f"""g (int64[1] a) => (int64[1] y) {{
        {M1} h = Constant<value_float=0.5>()  p = Squeeze(a)  f = Cast<to=1>(p)
        t = Mul(f, h)  u = Floor(t)  v = Cast<to=7>(u)  r = Reshape(v, m)  y = Neg(r) }}""",
        numbers(a=7),
        numbers(a=-3),
    )
    assert operators(model) == ["Cast", "Mul", "Floor", "Cast", "Neg"]


def test_longer_vectors_and_higher_ranks_are_left_alone() -> None:
    model = arithmetic(
        f"""g (int64[n] a, int64[1,1] b) => (int64[1] y) {{
        {M1} z = Constant<value_ints=[0,1]>()  p = Squeeze(a)  q = Squeeze(b, z)  s = Add(p, q)
        r = Reshape(s, m)  y = Neg(r) }}""",
        {"a": np.array([4]), "b": np.array([[2]])},
    )
    assert operators(model) == ["Squeeze", "Squeeze", "Add", "Reshape", "Neg"]


def test_in_a_function_and_in_a_branch() -> None:
    text = """<ir_version: 9, opset_import: ["": 18, "f": 1]>
        g (int64[1] a, bool c) => (int64[1] y) {
            w = f.twice(a)  y = If (c) <
                then_branch = t () => (int64[1] p) {
                    m1 = Constant<value_ints=[-1]>()  q1 = Squeeze(a)  s1 = Add(q1, q1)
                    r1 = Reshape(s1, m1)  p = Add(r1, w) },
                else_branch = e () => (int64[1] p) { p = Neg(w) }> }
        <domain: "f", opset_import: ["": 18]>
        twice (x) => (y) { m = Constant<value_ints=[-1]>()  z = Constant<value_ints=[0]>()
            k = Constant<value_int=3>()  s = Shape(x)  q = Squeeze(s, z)  p = Mul(q, k)
            r = Unsqueeze(p, z)  y = Add(r, x) }"""
    feeds = [{"a": np.array([3]), "c": np.array(flag)} for flag in (True, False)]
    model = simplify(proto_of(text), [ShapeArithmetic()], *feeds)
    assert "Reshape" not in operators(model)


def test_an_element_taken_outside_a_branch_is_gathered_there() -> None:
    text = """g (float[n,m] x, bool c) => (int64[1] y) {
        s = Shape(x)  j = Constant<value_int=1>()  q = Gather(s, j)
        y = If (c) <
            then_branch = t () => (int64[1] p) {
                m1 = Constant<value_ints=[-1]>()  a1 = Add(q, j)  b1 = Mul(a1, q)
                r1 = Reshape(b1, m1)  t1 = Reshape(a1, m1)  p = Sub(r1, t1) },
            else_branch = e () => (int64[1] p) { m2 = Constant<value_ints=[-1]>()
                a2 = Add(q, q)  b2 = Reshape(a2, m2)  p = Neg(b2) }> }"""
    feeds = [{"x": np.ones((2, 3), F32), "c": np.array(flag)} for flag in (True, False)]
    model = simplify(proto_of(text, opset=13), [ShapeArithmetic()], *feeds)
    assert operators(model)[:3] == ["Shape", "Gather", "If"]
    assert "Reshape" not in operators(model)
