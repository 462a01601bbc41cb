"""Inputs and outputs of types that the lower opset lacks: kept and refused, or made wider."""

import itertools
import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from vlmpass import Pipeline
from vlmpass.cli.app import run
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.ir_tools.rewrite import Effect, changes
from vlmpass.ir_tools.run import verify
from vlmpass.ir_tools.weights import Weight
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.pipeline.text import parse

from .opset_cases import attempts

D = ir.DataType
RANDOM = np.random.default_rng(0)
WIDER = ConvertOpset(to=18, interface="wider")


def read(text: str, opset: int = 25) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 13, opset_import: ["" : {opset}, "local" : 1]>\n{text}')


def values(dtype: ir.DataType, *shape: int) -> np.ndarray:
    """Return random values of a type, its ends among them."""
    # onnx's evaluator rounds 2^-127, the lowest value of float8e8m0, to 2^-126.
    lowest = int(dtype == D.FLOAT8E8M0)
    patterns = RANDOM.integers(lowest, 1 << dtype.bitwidth, shape)
    if dtype == D.BFLOAT16:
        return RANDOM.normal(size=shape).astype(dtype.numpy())
    return (
        patterns.astype("u1").view("i1" if dtype.is_signed() else "u1").astype(dtype.numpy())
        if dtype.is_integer()
        else patterns.astype("u1").view(dtype.numpy())
    )


def assert_same_wider(model: ir.Model, to: int, *feeds: np.ndarray) -> ir.Model:
    """Convert and hold the outputs against the source's, all values in the new types, exactly."""
    before = ir.to_proto(model)
    onnx.checker.check_model(before, full_check=True)
    names = [value.name for value in model.graph.inputs]
    with np.errstate(all="ignore"):
        expected = ReferenceEvaluator(before).run(None, dict(zip(names, feeds, strict=True)))
    ConvertOpset(to=to, interface="wider").run(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    given, made = (
        [value.dtype.numpy() for value in side]
        for side in (model.graph.inputs, model.graph.outputs)
    )
    wide = [np.asarray(feed).astype(dtype) for feed, dtype in zip(feeds, given, strict=True)]
    tried = list(attempts(after, wide))
    results = [each for each in tried if not isinstance(each, Exception)]
    assert results, tried
    for result in results:
        for one, other, dtype in zip(expected, result, made, strict=True):
            assert np.asarray(other).dtype == dtype
            np.testing.assert_array_equal(np.asarray(one).astype(dtype), other)
    return model


TYPES = [
    (D.INT4, 18, D.INT8), (D.UINT4, 18, D.UINT8), (D.INT2, 23, D.INT8), (D.UINT2, 13, D.UINT8),
    (D.FLOAT8E4M3FN, 18, D.FLOAT16), (D.FLOAT8E4M3FNUZ, 11, D.FLOAT16),
    (D.FLOAT8E5M2, 18, D.FLOAT16), (D.FLOAT8E5M2FNUZ, 18, D.FLOAT16), (D.FLOAT4E2M1, 22, D.FLOAT16),
    (D.FLOAT8E8M0, 23, D.FLOAT), (D.BFLOAT16, 11, D.FLOAT),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "to", "wide"), TYPES)
def test_inputs_and_outputs_take_the_first_wider_type(dtype, to, wide):
    name = dtype.name.lower()
    model = read(
        f"""agraph ({name}[2,3] x) => ({name}[3,2] y, float[2,3] z, {name}[2,3] w) {{
            y = Transpose(x)  z = Cast <to=1> (x)  w = Cast <to={dtype.value}> (z)
        }}"""
    )
    assert_same_wider(model, to, values(dtype, 2, 3))
    assert [value.dtype for value in model.graph.inputs] == [wide]
    assert [value.dtype for value in model.graph.outputs] == [wide, D.FLOAT, wide]
    assert model.graph.inputs[0].name == "x"


def test_what_only_moves_values_is_left_as_it_is():
    model = read("agraph (int4[a,3] x) => (int4[3,a] y) { t = Identity(x)  y = Transpose(t) }")
    model.graph[0].metadata_props["namespace"] = "block"
    model.graph.inputs[0].doc_string = "codes"
    WIDER.run(model)
    assert ir.to_onnx_text(model) == ir.to_onnx_text(
        ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["" : 18, "local" : 1]>
            agraph (int8[a,3] x) => (int8[3,a] y)
            { t = Identity(x)  y = Transpose(t) }"""
        )
    )
    assert model.graph[0].metadata_props == {"namespace": "block"}
    assert model.graph.inputs[0].doc_string == "codes"
    assert not WIDER.run(model)


def test_a_cast_to_four_bits_becomes_their_arithmetic():
    model = read("agraph (float[n] x) => (int4[n] y) { y = Cast <to=22> (x) }")
    assert_same_wider(model, 18, np.arange(-30, 30, dtype=np.float32))
    assert [node.op_type for node in model.graph] == ["Cast", "Add", "Mod", "Sub", "Cast"]
    assert [float(value.const_value.numpy()) for value in model.graph.initializers.values()] == [
        16,
        8,
    ]
    for node in model.graph:
        assert node.metadata_props["vlmpass.rule"] == "round-to-type"
        assert "opset 18 has no int4" in node.metadata_props["vlmpass.reason"]


@pytest.mark.parametrize("to", [18, 13, 10])
@pytest.mark.parametrize("dtype", [D.INT4, D.UINT4, D.INT2, D.UINT2])
def test_quantised_values_come_and_go(dtype, to):
    name = dtype.name.lower()
    model = read(
        f"""agraph (float[4,6] x, float[6] s, {name}[6] z, {name}[4,6] c)
            => ({name}[4,6] q, float[4,6] d) {{
            q = QuantizeLinear <axis=1> (x, s, z)  d = DequantizeLinear <axis=1> (c, s, z)
        }}"""
    )
    x, s = RANDOM.normal(size=(4, 6)).astype(np.float32), RANDOM.uniform(0.1, 1, 6)
    assert_same_wider(model, to, x, s.astype(np.float32), values(dtype, 6), values(dtype, 4, 6))


@pytest.mark.parametrize(
    ("dtype", "to"),
    [(D.FLOAT4E2M1, 22), *itertools.product((D.FLOAT8E4M3FN, D.FLOAT8E5M2FNUZ), (18, 11))],
)
def test_blocks_of_small_floats_come_and_go(dtype, to):
    name = dtype.name.lower()
    model = read(
        f"""agraph (float[4,6] x, float[4,2] s, {name}[4,6] c) => ({name}[4,6] q, float[4,6] d) {{
            q = QuantizeLinear <axis=1, block_size=3, output_dtype={dtype.value}> (x, s)
            d = DequantizeLinear <axis=1, block_size=3> (c, s)
        }}"""
    )
    x = RANDOM.normal(size=(4, 6)).astype(np.float32)
    s = RANDOM.uniform(0.1, 1, (4, 2)).astype(np.float32)
    assert_same_wider(model, to, x, s, values(dtype, 4, 6))


def test_weights_and_the_interface_change_together_and_no_weight_is_read():
    model = read(
        """agraph (int4[2,3] x) => (int4[4,3] y) { y = If (c) <
            then_branch = t () => (int4[4,3] a) { p = Pad(x, k)  a = Identity(p) },
            else_branch = e () => (int4[4,3] b) { b = Identity(w) }
        > }"""
    )
    arrays = {
        "w": values(D.INT4, 4, 3),
        "k": np.array([0, 0, 2, 0]),
        "c": np.array(False),
    }
    adopt(model, arrays)
    assert_same_wider(model.clone(), 18, values(D.INT4, 2, 3))
    WIDER.run(model)
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, Weight)
    assert weight.dtype == model.graph.initializers["w"].dtype == D.INT8
    branches = [attribute.as_graph() for attribute in model.graph[0].attributes.values()]
    assert [branch.outputs[0].dtype for branch in branches] == [D.INT8, D.INT8]


def adopt(model: ir.Model, arrays: dict[str, np.ndarray]) -> None:
    """Make initializers of arrays, for all graphs that read them."""
    for name, array in arrays.items():
        tensor = ir.Tensor(array, dtype=ir.DataType.from_numpy(array.dtype), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        value.const_value = tensor
        model.graph.initializers[name] = value
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            for index, used in enumerate(node.inputs):
                if used is not None and used.name == name:
                    node.replace_input_with(index, value)


def test_a_default_of_an_input_changes_with_it():
    model = read("agraph (int4[3] x) => (float[3] y) { y = Cast <to=1> (x) }")
    x = model.graph.inputs[0]
    x.const_value = ir.Tensor(values(D.INT4, 3), dtype=D.INT4, name="x")
    model.graph.initializers["x"] = x
    WIDER.run(model)
    assert x.dtype == x.const_value.dtype == D.INT8
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_loop_carries_the_wider_type():
    model = read(
        """agraph (int4[3] x, int64 n, bool c) => (int4[3] y) { y = Loop (n, c, x) <
            body = b (int64 i, bool go, int4[3] s) => (bool on, int4[3] t) {
                on = Identity(go)  f = Cast <to=1> (s)  g = Add(f, f)  t = Cast <to=22> (g)
            }
        > }"""
    )
    assert_same_wider(model, 13, values(D.INT4, 3), np.array(3), np.array(True))
    body = model.graph[0].attributes["body"].as_graph()
    assert body.inputs[2].dtype == body.outputs[1].dtype == D.INT8


FUNCTION = """<ir_version: 13, opset_import: ["" : 25, "local" : 1]>
agraph (int4[4] x, float[4] f) => (int4[4] y, float[4] z) {{ {body} }}
<domain: "local", opset_import: ["" : 25]>
turn (a) => (b) {{ {inside} }}"""


def test_functions_change_with_their_calls():
    text = FUNCTION.format(
        body="y = local.turn(x)  z = Identity(f)",
        inside="d = Cast <to=1> (a)  m = Neg(d)  b = Cast <to=22> (m)",
    )
    model = ir.from_onnx_text(text)
    x, f = values(D.INT4, 4), RANDOM.normal(size=4).astype(np.float32)
    assert_same_wider(model, 18, x, f)
    (function,) = model.functions.values()
    assert [node.op_type for node in function][-1] == "Cast"
    assert [value.type for value in function.inputs] == [None]


def test_a_function_of_several_types_that_does_not_name_them_is_left_as_it_is():
    text = FUNCTION.format(body="y = local.turn(x)  z = local.turn(f)", inside="b = Transpose(a)")
    x, f = values(D.INT4, 4), RANDOM.normal(size=4).astype(np.float32)
    assert_same_wider(ir.from_onnx_text(text), 18, x, f)


def test_a_function_that_computes_in_bfloat16_and_in_float_computes_in_float():
    text = FUNCTION.format(body="y = local.turn(x)  z = local.turn(f)", inside="b = Exp(a)")
    model = ir.from_onnx_text(text.replace("int4", "bfloat16"))
    ConvertOpset(to=12, interface="wider").run(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [value.dtype for value in model.graph.outputs] == [D.FLOAT, D.FLOAT]


REFUSED = {
    "other calls of its function": FUNCTION.format(
        body="y = local.turn(x)  z = local.turn(f)", inside="c = Neg(k)  b = CastLike(c, a)"
    ).replace("c = Neg(k)", "k = Constant <value_float=1.0> ()  c = Neg(k)"),
    "works on values of other types": FUNCTION.format(
        body="y = local.turn(x)  i = Cast <to=3> (f)  z = local.turn(i)",
        inside="k = Constant <value_float=1.0> ()  b = DequantizeLinear(a, k)",
    ).replace("int4[4] y", "float[4] y"),
    "the bits of|it works on int4": FUNCTION.format(
        body="b = BitCast <to=21> (x)  s = Cast <to=1> (b)  z = Add(s, f)  y = local.turn(x)",
        inside="b = Identity(a)",
    ),
    "works on strings": FUNCTION.format(
        body="y = local.turn(x)  s = Cast <to=8> (f)  t = StringConcat(s, s)  z = Cast <to=1> (t)",
        inside="b = Identity(a)",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_gives_every_type_back(reason):
    model = ir.from_onnx_text(REFUSED[reason])
    adopt(model, {"w": values(D.INT4, 4)})
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused, match=reason):
        WIDER.run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_optional_inputs_stay_refused():
    model = read("agraph (optional(float[2]) x) => (float[2] y) { y = OptionalGetElement(x) }", 18)
    with pytest.raises(Refused, match="optional") as refused:
        ConvertOpset(to=13, interface="wider").run(model)
    assert "interface=wider" not in str(refused.value)


def test_a_kept_interface_is_refused_and_told_the_way_out():
    model = read("agraph (int4[3] x) => (int4[3] y) { y = Identity(x) }")
    with pytest.raises(Refused, match="interface=wider"):
        ConvertOpset(to=18).run(model)
    assert str(parse("convert-opset{to=18 interface=wider}")[0]) == (
        "convert-opset{to=18 interface=wider}"
    )


def test_the_change_is_said_in_a_line_for_each_type(caplog):
    many = ", ".join(f"int4[3] x{index}" for index in range(6))
    uses = "  ".join(f"y{index} = Cast <to=1> (x{index})" for index in range(6))
    outputs = ", ".join(f"float[3] y{index}" for index in range(6))
    model = read(
        f"agraph ({many}, uint2[3] u) => ({outputs}, uint2[3] v) {{ {uses} v = Identity(u) }}"
    )
    with caplog.at_level(logging.WARNING, "vlmpass"):
        WIDER.run(model)
    assert caplog.messages == [
        "inputs x0, x1, x2, x3 and 2 more: int4 -> int8 (opset 18 has no int4)",
        "input u: uint2 -> uint8 (opset 18 has no uint2)",
        "output v: uint2 -> uint8 (opset 18 has no uint2)",
    ]


def test_the_pipeline_verifies_a_wider_interface_and_notes_it(tmp_path, capsys):
    model = read(
        """agraph (int4[n,4] x, float8e5m2[4] f) => (int4[4,n] y, float[n,4] z) {
            y = Transpose(x)  d = Cast <to=1> (x)  e = Cast <to=1> (f)  z = Mul(d, e)
        }"""
    )
    onnx.save(ir.to_proto(model), tmp_path / "in.onnx")
    pipeline = Pipeline(opset=18, widen_io=True)
    report = pipeline.convert(tmp_path / "in.onnx", tmp_path / "out.onnx", verify=True)
    assert report.checked.numbers.ok
    assert "input x: int4 -> int8 (opset 18 has no int4)" in report.notes
    code = run(["convert", str(tmp_path / "in.onnx"), "--opset", "18", "--widen-io"])
    assert (code, capsys.readouterr().err) == (0, "")
    assert ir.load(tmp_path / "in.opset18.onnx").graph.inputs[0].dtype == D.INT8
    with pytest.raises(PipelineError, match="widen-io"):
        Pipeline(dtype="float16", widen_io=True)


@pytest.mark.parametrize(
    ("body", "rounds"),
    [
        ("b = Cast <to=16> (x)  t = Transpose(b)  y = Add(t, t)", False),
        ("b = Cast <to=16> (x)  y = Transpose(b)", True),
        ("b = Cast <to=16> (x)  c = Equal(b, b)  y = Where(c, b, b)", True),
        ("b = Cast <to=16> (x)  f = Cast <to=1> (b)  g = Neg(f)  y = Cast <to=16> (g)", True),
    ],
)
def test_what_only_bfloat16_arithmetic_reads_is_not_rounded_before(body, rounds):
    model = read(f"agraph (float[2,2] x) => (bfloat16[2,2] y) {{ {body} }}")
    x = RANDOM.normal(size=(2, 2)).astype(np.float32)
    ConvertOpset(to=12, interface="wider").run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert ("Round" in {node.op_type for node in model.graph}) == rounds
    if not rounds:
        for (found,) in attempts(proto, [x]):
            np.testing.assert_array_equal(found, x.T + x.T)


def test_rounding_beside_arithmetic_in_bfloat16_verifies():
    model = read(
        """agraph (float[n,64] x, bfloat16[64,64] w) => (float[n,64] y) {
            b = Cast <to=16> (x)  h = MatMul(b, w)  s = Sin(x)  t = Cast <to=16> (s)
            f = Cast <to=1> (t)  g = Add(h, t)  k = Cast <to=1> (g)  y = Add(f, k)
        }""",
        18,
    )
    report = Pipeline(opset=12, widen_io=True).run(model, verify=True)
    assert report.changes == changes(Effect.ROUNDS_VALUES)
    assert [node.op_type for node in report.result.graph].count("Round") == 1
    assert report.checked.numbers.ok
    # What a file says of its nodes widens no tolerance: only who knows what was done may allow it.
    assert verify(model, report.model, changes=report.changes).ok
    assert verify(model, report.model).outputs[0].tolerance == 1e-4


@pytest.mark.parametrize("dtype", [D.INT4, D.FLOAT8E5M2, D.BFLOAT16])
def test_a_fill_of_the_type_is_widened(dtype):
    model = read(
        "agraph (int64[1] s) => (float[n] y) { k = ConstantOfShape (s)  y = Cast <to=1> (k) }"
    )
    fill = ir.Tensor(np.array([-3]).astype(dtype.numpy()), dtype=dtype)
    model.graph[0].attributes["value"] = ir.AttrTensor("value", fill)
    assert_same_wider(model, 11, np.array([4]))


def test_a_dropout_that_never_trains_carries_small_floats():
    model = read("agraph (float8e5m2[3] x) => (float8e5m2[3] y) { y = Dropout(x) }")
    assert_same_wider(model, 13, values(D.FLOAT8E5M2, 3))
    training = read(
        "agraph (float8e5m2[3] x, float r, bool t) => (float8e5m2[3] y) { y = Dropout(x, r, t) }"
    )
    with pytest.raises(Refused, match="it works on float8e5m2"):
        WIDER.run(training)


def test_an_opset_that_has_the_type_changes_nothing():
    text = "agraph (int4[3] x) => (float[3] y) { y = Cast <to=1> (x) }"
    model = read(text)
    ConvertOpset(to=21, interface="wider").run(model)
    assert model.graph.inputs[0].dtype == D.INT4
    older = read(text, 21)
    ConvertOpset(to=25, interface="wider").run(older)
    assert older.graph.inputs[0].dtype == D.INT4
