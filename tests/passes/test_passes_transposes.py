"""Axes merged, moved and split again, in the pass shape-arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.simplifying import operators, proto_of, simplify
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.shape_arithmetic.shape_arithmetic import ShapeArithmetic


def feed(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}


FEEDS = [feed(2, 3, 5, 4), feed(1, 3, 2, 4), feed(2, 3, 1, 4), feed(0, 3, 2, 4)]
SIZES = """h = Shape<start=0, end=2>(x)  t = Shape<start=2, end=3>(x)
    m = Constant<value_ints=[-1]>()  d = Constant<value_ints=[4]>()"""


def arithmetic(body: str, *feeds: dict[str, np.ndarray]) -> ir.Model:
    text = f"g (float[b,3,n,4] x) => {body}"
    return simplify(proto_of(text), [Fold(), ShapeArithmetic()], *(feeds or FEEDS))


def transposed(body: str) -> list[int] | None:
    (node,) = [node for node in arithmetic(body).graph if node.op_type == "Transpose"]
    return list(node.attributes.get_ints("perm", ()))


def test_keys_turned_through_merged_heads() -> None:
    body = f"""(float[b,3,4,n] y) {{ {SIZES}
        u = Concat<axis=0>(m, t, d)  r = Reshape(x, u)  q = Transpose<perm=[0,2,1]>(r)
        v = Concat<axis=0>(h, d, t)  y = Reshape(q, v) }}"""
    model = arithmetic(body)
    assert operators(model) == ["Transpose"]
    assert transposed(body) == [0, 1, 3, 2]
    assert model.graph.outputs[0].name == "y"


def test_the_usual_order_and_sizes_taken_literally() -> None:
    body = """(float[4,3,n,b] y) {
        c = Constant<value_ints=[0,-1,4]>()  r = Reshape(x, c)  q = Transpose(r)
        b = Shape<start=0, end=1>(x)  t = Shape<start=2, end=3>(x)
        f = Constant<value_ints=[4,3]>()  v = Concat<axis=0>(f, t, b)
        y = Reshape<allowzero=1>(q, v) }"""
    assert operators(arithmetic(body)) == ["Transpose"]
    assert transposed(body) == [3, 1, 2, 0]


def test_an_axis_of_size_zero_that_would_be_copied_from_another_is_left_alone() -> None:
    body = f"""(float[k,j,3,4] y) {{ {SIZES}
        u = Concat<axis=0>(m, t, d)  r = Reshape(x, u)  q = Transpose<perm=[1,0,2]>(r)
        e = Constant<value_ints=[-1,3,4]>()  v = Concat<axis=0>(t, e)  y = Reshape(q, v) }}"""
    model = arithmetic(body, feed(2, 3, 5, 4), feed(2, 3, 0, 4))
    assert operators(model).count("Reshape") == 2


def test_another_split_is_left_alone() -> None:
    model = arithmetic(f"""(float[3,b,4,n] y) {{ {SIZES}
        u = Concat<axis=0>(m, t, d)  r = Reshape(x, u)  q = Transpose<perm=[0,2,1]>(r)
        b = Shape<start=0, end=1>(x)  e = Constant<value_ints=[3]>()
        v = Concat<axis=0>(e, b, d, t)  y = Reshape(q, v) }}""")
    assert operators(model).count("Reshape") == 2


def test_a_transpose_that_others_use_is_left_alone() -> None:
    model = arithmetic(f"""(float[b,3,4,n] y, float[k,4,n] z) {{ {SIZES}
        u = Concat<axis=0>(m, t, d)  r = Reshape(x, u)  q = Transpose<perm=[0,2,1]>(r)
        v = Concat<axis=0>(h, d, t)  y = Reshape(q, v)  z = Neg(q) }}""")
    assert operators(model).count("Reshape") == 2
