"""The pass shape-arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tests.passes.simplifying import operators, proto_of, simplify
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.shape_arithmetic.shape_arithmetic import ShapeArithmetic

F32 = np.float32
PASSES = (Fold(), ShapeArithmetic())


def feed(*shape: int, name: str = "x") -> dict[str, np.ndarray]:
    return {name: np.arange(np.prod(shape), dtype=F32).reshape(shape)}


SIZES = [feed(b, s, 8) for b, s in ((2, 3), (1, 1), (0, 3), (2, 0), (3, 1))]


def arithmetic(text: str, *feeds: dict[str, np.ndarray], **header: int) -> ir.Model:
    return simplify(proto_of(text, **header), PASSES, *(feeds or SIZES))


def target_of(model: ir.Model, op_type: str = "Reshape") -> list[int] | None:
    (node,) = [node for node in model.graph if node.op_type == op_type]
    tensor = ir.convenience.get_const_tensor(node.inputs[1])
    return None if tensor is None else tensor.numpy().tolist()


DIMS = """s = Shape(x)  i0 = Constant<value_int=0>()  i1 = Constant<value_int=1>()
    b = Gather(s, i0)  n = Gather(s, i1)  z = Constant<value_ints=[0]>()
    ub = Unsqueeze(b, z)  un = Unsqueeze(n, z)"""


def test_split_heads() -> None:
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,s,2,4] y) {{ {DIMS}
        h = Constant<value_ints=[2]>()  d = Constant<value_ints=[4]>()
        t = Concat<axis=0>(ub, un, h, d)  y = Reshape(x, t) }}""")
    assert operators(model) == ["Reshape"]
    assert target_of(model) == [0, 0, 2, 4]


def test_minus_one_stays_where_the_exporter_put_it() -> None:
    model = arithmetic(
        f"""g (float[b,s,8] x) => (float[b,k,2] y) {{ {DIMS}
        h = Constant<value_ints=[-1]>()  d = Constant<value_ints=[2]>()
        t = Concat<axis=0>(ub, h, d)  y = Reshape(x, t) }}""",
        *SIZES[:2],
    )
    assert target_of(model) == [0, -1, 2]


def test_product_becomes_minus_one_only_next_to_axes_that_are_not_empty() -> None:
    model = arithmetic(f"""g (float[b,s,8] x) => (float[k,8] y) {{ {DIMS}
        p = Mul(ub, un)  d = Constant<value_ints=[8]>()  t = Concat<axis=0>(p, d)
        y = Reshape(x, t) }}""")
    assert target_of(model) == [-1, 8]
    model = arithmetic(f"""g (float[b,s,8] x) => (float[k,b] y) {{ {DIMS}
        e = Constant<value_ints=[8]>()  p = Mul(un, e)  t = Concat<axis=0>(p, ub)
        y = Reshape(x, t) }}""")
    assert target_of(model) is None


def test_allowzero_keeps_its_meaning() -> None:
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,s,8] y) {{ {DIMS}
        d = Constant<value_ints=[2]>()  e = Constant<value_ints=[4]>()
        t = Concat<axis=0>(ub, un, d, e)  r = Reshape<allowzero=1>(x, t)
        k = Constant<value_ints=[0,0,8]>()  y = Reshape(r, k) }}""")
    assert "Concat" in operators(model)


def test_every_layer_uses_the_same_sizes() -> None:
    layer = """s{k} = Shape(a{j})  b{k} = Gather(s{k}, i0)  u{k} = Unsqueeze(b{k}, z)
        t{k} = Concat<axis=0>(u{k}, m, p)  q{k} = Reshape(a{j}, t{k})
        r{k} = Transpose<perm=[0,2,1]>(q{k})  w{k} = Shape(a{j})  f{k} = Reshape(r{k}, w{k})
        a{k} = Neg(f{k})"""
    lines = "\n".join(layer.format(j=k - 1, k=k) for k in (1, 2, 3))
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,s,8] y) {{
        i0 = Constant<value_int=0>()  z = Constant<value_ints=[0]>()
        m = Constant<value_ints=[2]>()  p = Constant<value_ints=[-1]>()  a0 = Neg(x)
        {lines}  y = Neg(a3) }}""")
    found = operators(model)
    assert found.count("Shape") == 1  # for the targets [b, s, 8], where s is not in its place
    assert "Gather" not in found
    assert "Concat" not in found


def test_expand_to_its_own_size_goes_and_to_others_is_constant() -> None:
    model = arithmetic("""g (float[b,s,8] x) => (float[b,s,8] y) {
        s = Shape(x)  e = Expand(x, s)  y = Neg(e) }""")
    assert operators(model) == ["Neg"]
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,2,s,8] y) {{ {DIMS}
        one = Constant<value_ints=[1]>()  u = Unsqueeze(x, one)  h = Constant<value_ints=[2]>()
        d = Constant<value_ints=[8]>()  t = Concat<axis=0>(ub, h, un, d)  y = Expand(u, t) }}""")
    assert operators(model) == ["Unsqueeze", "Expand"]
    assert target_of(model, "Expand") == [1, 2, 1, 1]


def test_expand_by_the_exporters_where_of_minus_one() -> None:
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,s,8] y) {{ {DIMS}
        d = Constant<value_ints=[-1]>()  t = Concat<axis=0>(ub, un, d)
        l = Shape(t)  o = ConstantOfShape<value: tensor = int64[1] {{1}}>(l)
        m = Mul(o, d)  q = Equal(t, m)  w = Where(q, o, t)  e = Expand(x, w)  y = Neg(e) }}""")
    assert operators(model) == ["Neg"]


def test_slice_to_the_end_of_an_axis() -> None:
    end = """s = Shape(x)  one = Constant<value_ints=[1]>()  un = Gather(s, one)
        z = Constant<value_ints=[0]>()"""
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,k,8] y) {{ {end}
        y = Slice(x, one, un, one) }}""")
    assert operators(model) == ["Slice"]
    model = arithmetic(f"""g (float[b,s,8] x) => (float[b,s,8] y) {{ {end}
        e = Slice(x, z, un, one)  y = Neg(e) }}""")
    assert operators(model) == ["Neg"]


def test_reversed_slice_is_no_no_op() -> None:
    model = arithmetic("""g (float[b,s,8] x) => (float[b,s,8] y) {
        a = Constant<value_ints=[-1]>()  e = Constant<value_ints=[-9223372036854775808]>()
        z = Constant<value_ints=[0]>()  r = Slice(x, a, e, z, a)  y = Neg(r) }""")
    assert operators(model) == ["Slice", "Neg"]


def test_sizes_that_are_only_broadcast_together_are_not_equal() -> None:
    text = """g (float[n,4] x, float[n,4] y) => (float[n,4] a, int64[2] s, int64[2] t) {
        a = Add(x, y)  s = Shape(y)  u = Shape(a)  t = Neg(u) }"""
    same = {**feed(2, 4), **feed(2, 4, name="y")}
    broadcast = {**feed(3, 4), **feed(1, 4, name="y")}
    assert operators(arithmetic(text, same, broadcast)) == ["Add", "Shape", "Shape", "Neg"]
    text = """g (float[n,4] x, float[n,4] y) => (float[n,4] o) {
        a = Add(x, y)  s = Shape(y)  e = Expand(a, s)  o = Neg(e) }"""
    assert operators(arithmetic(text, same, broadcast)) == ["Add", "Neg"]
    text = """g (float[n,4] x, float[n,4] y) => (float[n,4] o) { s = Shape(y)  o = Expand(x, s) }"""
    assert operators(arithmetic(text, same, broadcast)) == ["Shape", "Expand"]


def test_key_and_value_heads_repeated_with_few_nodes() -> None:
    text = """g (float[b,2,t,4] x) => (float[b,6,t,4] y) {
        two = Constant<value_ints=[2]>()  u = Unsqueeze(x, two)  s = Shape(x)
        i0 = Constant<value_int=0>()  i2 = Constant<value_int=2>()  b = Gather(s, i0)
        n = Gather(s, i2)  z = Constant<value_ints=[0]>()  ub = Unsqueeze(b, z)
        un = Unsqueeze(n, z)  three = Constant<value_ints=[3]>()  four = Constant<value_ints=[4]>()
        t = Concat<axis=0>(ub, two, three, un, four)  e = Expand(u, t)
        six = Constant<value_ints=[6]>()  v = Concat<axis=0>(ub, six, un, four)
        y = Reshape(e, v) }"""
    feeds = [feed(b, 2, t, 4) for b, t in ((2, 3), (0, 3), (1, 0))]
    model = arithmetic(text, *feeds)
    assert operators(model) == ["Unsqueeze", "Expand", "Shape", "Shape", "Concat", "Reshape"]
    model = arithmetic(text, *feeds, opset=13, ir_version=7)
    assert operators(model).count("Gather") == 2


def test_sizes_that_exporters_choose_by_where_are_put_together_from_what_is_at_hand() -> None:
    text = """g (float[b,s,8] x, float[1,4,8] q) => (float[b,4,8] y) {
        s = Shape(x)  z = Constant<value_ints=[0]>()  b = Gather(s, z)
        m = Constant<value_ints=[-1,-1]>()  t = Concat<axis=0>(b, m)
        o = Constant<value_ints=[1,1,1]>()  c = Constant<value: tensor = bool[3] {0,1,1}>()
        w = Where(c, o, t)  y = Expand(q, w) }"""
    feeds = [{**feed(b, 3, 8), **feed(1, 4, 8, name="q")} for b in (2, 1, 0)]
    model = arithmetic(text, *feeds, opset=13, ir_version=7)
    assert operators(model) == ["Shape", "Gather", "Concat", "Expand"]


def test_what_leaves_a_stored_tensor_as_it_is_goes_and_the_tensor_keeps_its_name() -> None:
    text = """g (float[4,2] x) => (float[4,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> {
        i = Identity(w)  c = Cast<to=1>(i)  t = Transpose<perm=[0,1]>(c)
        z = Constant<value_ints=[0]>()  e = Constant<value_ints=[4]>()  s = Slice(t, z, e)
        y = Add(x, s) }"""
    model = simplify(proto_of(text), [ShapeArithmetic(), Fold()], feed(4, 2))
    assert operators(model) == ["Add"]
    assert [value.name for value in model.graph[-1].inputs] == ["x", "w"]


def test_a_target_that_is_needed_earlier_is_left_alone() -> None:
    text = """g (float[b,4,s,2] x) => (float[b,s,8] y, float[3] e) {
        z = Constant<value_ints=[0]>()  i = Constant<value_int=0>()  j = Constant<value_int=2>()
        s = Shape(x)  a = Gather(s, i)  c = Gather(s, j)  ua = Unsqueeze(a, z)
        uc = Unsqueeze(c, z)  k = Constant<value_ints=[8]>()  t = Concat<axis=0>(ua, uc, k)
        u = Cast<to=1>(t)  e = Neg(u)  v = Neg(x)  y = Reshape(v, t) }"""
    model = arithmetic(text, feed(2, 4, 3, 2), feed(1, 4, 0, 2))
    assert operators(model).count("Gather") == 2
    later = text.replace(
        "u = Cast<to=1>(t)  e = Neg(u)  v = Neg(x)  y = Reshape(v, t)",
        "v = Neg(x)  y = Reshape(v, t)  u = Cast<to=1>(t)  e = Neg(u)",
    )
    assert operators(arithmetic(later, feed(2, 4, 3, 2))).count("Gather") == 0


def test_graph_outputs_and_bodies_and_functions() -> None:
    text = """<ir_version: 9, opset_import: ["": 18, "f": 1]>
        g (float[b,s,8] x, bool c) => (int64[3] o, float[b,s,8] y) {
            o = Shape(x)  w = f.same(x)  y = If (c) <
                then_branch = t () => (float[b,s,8] p) { q = Shape(x)  r = Reshape(w, q)
                    p = Neg(r) },
                else_branch = e () => (float[b,s,8] p) { m = Shape(x)  p = Expand(w, m) }> }
        <domain: "f", opset_import: ["": 18]>
        same (a) => (b) { s = Shape(a)  r = Reshape(a, s)  b = Neg(r) }"""
    feeds = [{**feed(2, 3, 8), "c": np.array(flag)} for flag in (True, False)]
    model = simplify(proto_of(text), PASSES, *feeds)
    assert operators(model).count("Shape") >= 1


def test_sizes_inside_a_loop_body_are_those_of_the_round() -> None:
    text = """g (float[b,4] x, int64 n) => (float[k,4] y) {
        c = Constant<value: tensor = bool {1}>()
        y = Loop (n, c, x) <body = g2 (int64 i, bool p, float[j,4] v) => (bool q, float[l,4] w) {
            q = Identity(p)  u = Concat<axis=0>(v, x)  s = Shape(u)  t = Shape(v)
            e = Expand(u, s)  r = Reshape(v, t)  h = Slice(e, z, o, z)  w = Concat<axis=0>(h, r)
            z = Constant<value_ints=[0]>()  o = Constant<value_ints=[1]>() }> }"""
    proto = proto_of(text)
    body = proto.graph.node[1].attribute[0].g
    ordered = sorted(body.node, key=lambda node: node.op_type != "Constant")
    del body.node[:]
    body.node.extend(ordered)
    feeds = [{**feed(b, 4), "n": np.array(n)} for b, n in ((2, 3), (1, 0), (3, 1))]
    model = simplify(proto, PASSES, *feeds)
    assert "Expand" not in operators(model)


def test_a_constant_made_in_a_branch_is_not_used_outside() -> None:
    text = """g (float[b,s,8] x, bool c) => (float[b,s,8] y) {
        w = If (c) <
            then_branch = t () => (float[b,s,8] p) { s0 = Shape(x)  q = Add(x, x)
                z = Constant<value_ints=[0]>()  o = Constant<value_ints=[2]>()
                h = Slice(s0, z, o)  f = Constant<value_ints=[2,4]>()
                k = Concat<axis=0>(h, f)  r = Reshape(q, k)  u = Reshape(r, s0)  p = Neg(u) },
            else_branch = e () => (float[b,s,8] p) { p = Neg(x) }>
        s1 = Shape(x)  z1 = Constant<value_ints=[0]>()  o1 = Constant<value_ints=[2]>()
        h1 = Slice(s1, z1, o1)  f1 = Constant<value_ints=[2,4]>()
        k1 = Concat<axis=0>(h1, f1)  v = Reshape(x, k1)  g1 = Reshape(v, s1)  y = Add(w, g1) }"""
    feeds = [{**feed(2, 3, 8), "c": np.array(flag)} for flag in (True, False)]
    simplify(proto_of(text), PASSES, *feeds)
