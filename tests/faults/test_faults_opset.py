"""Small models whose conversion failed or was wrong, each with the right value."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset


def converted(text: str, opset: int, to: int) -> onnx.ModelProto:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    model = ir.from_onnx_text(head + text)
    ConvertOpset(to=to).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)


def refusal(text: str, opset: int, to: int) -> str:
    with pytest.raises(Refused) as refused:
        converted(text, opset, to)
    return str(refused.value)


def test_the_mask_of_an_old_dropout_is_refused():
    text = "g (float[3] x) => (float[3] y, bool[3] m) { y, m = Dropout(x) }"
    said = refusal(text, 10, 13)
    assert "Dropout-10" in said
    assert "mask" in said
    assert "take the output m away" in said


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("bounds", [(2, 5), (5, 2), (2, None), (None, 5), (None, None)])
@pytest.mark.parametrize("kind", [*INTEGERS, "float16", "float", "double"])
@pytest.mark.parametrize("to", [11, 10, 8, 7])
def test_clip_of_every_type_runs_down_to_7(kind, bounds, to):
    low, high = bounds
    # The text form has the bits of a float16.
    ends = [np.float16(each or 0).view(np.uint16) for each in bounds]
    ends = ends if kind == "float16" else [each or 0 for each in bounds]
    given = f"{kind} lo = {{{ends[0]}}}, {kind} hi = {{{ends[1]}}}"
    names = f"{'' if low is None else 'lo'}, {'' if high is None else 'hi'}"
    text = f"g ({kind}[b] x) => ({kind}[b] y) <{given}> {{ [c] y = Clip(x, {names}) }}"
    x = np.arange(8).astype({"float": "float32", "double": "float64"}.get(kind, kind))
    if kind == "uint64":
        x[0] = 2**64 - 1
    if kind == "int64":
        x[0] = -(2**63)
    (y,) = run(converted(text, 14, to), x=x)
    wanted = x if low is None else np.maximum(x, x.dtype.type(low))
    wanted = wanted if high is None else np.minimum(wanted, x.dtype.type(high))
    np.testing.assert_array_equal(y, wanted, strict=True)


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("side", ["SAME_UPPER", "SAME_LOWER"])
def test_a_dilated_average_with_same_padding_gets_explicit_pads(side, counted):
    attributes = f"""auto_pad = "{side}", count_include_pad = {counted}, dilations = [2, 2],
        kernel_shape = [1, 5], strides = [1, 2]"""
    text = "g (float[2,1,3,11] x) => (float[2,1,3,6] y) {{ y = AveragePool<{}>(x) }}"
    proto = converted(text.format(attributes), 19, 17)
    x = np.random.default_rng(0).normal(size=(2, 1, 3, 11)).astype(np.float32)
    pads = "pads = [0, 4, 0, 4]"
    explicit = text.format(attributes.replace(f'auto_pad = "{side}"', pads))
    (wanted,) = run(converted(explicit, 19, 19), x=x)
    (y,) = run(proto, x=x)
    np.testing.assert_allclose(y, wanted, rtol=1e-6)
    said = refusal(text.format(attributes).replace("3,11", "3,N").replace("3,6", "3,M"), 19, 17)
    assert "sizes that are not static" in said
    assert "choose opset 19" in said


def test_a_triangle_of_strings_is_refused():
    said = refusal("g (string[2,2] x) => (string[2,2] y) { [t] y = Trilu(x) }", 14, 11)
    assert "t (Trilu-14)" in said
    assert "string" in said


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("to", [12, 9, 8, 7])
def test_an_anonymous_dimension_has_a_rank(operator, to):
    text = f"""g (float[?,4,?,?] x) => (float[?,?,?,?] y) {{
        r = Relu(x) s = {operator}<axis = 1>(r) y = Neg(s) }}"""
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)
    found, wanted = (run(converted(text, 13, opset), x=x)[0] for opset in (to, 13))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("to", [16, 9, 7])
def test_anonymous_dimensions_of_norms(to):
    text = """g (float[?,?,4] x, float[4] w) => (float[?,?,?] y) {
        r = Relu(x) s = LayerNormalization<axis = 2>(r, w) y = Neg(s) }"""
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    feeds = {"x": x, "w": x[0, 0]}
    found, wanted = (run(converted(text, 17, opset), **feeds)[0] for opset in (to, 17))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("to", [17, 13, 21])
def test_a_retired_group_normalization_is_converted(to):
    text = """g (float[2,4,3,3] x, float[2] s, float[2] b) => (float[2,4,3,3] y) {
        y = GroupNormalization<num_groups = 2>(x, s, b) }"""
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    s, b = np.float32([2, 3]), np.float32([0.5, -1])
    (y,) = run(converted(text, 18, to), x=x, s=s, b=b)
    parts = x.reshape(2, 2, -1)
    spread = np.sqrt(parts.var(axis=2, keepdims=True) + 1e-5)
    normal = (parts - parts.mean(axis=2, keepdims=True)) / spread
    wanted = (normal * s[:, None] + b[:, None]).reshape(x.shape)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "opset"),
    [
        ('y = Upsample<mode = "nearest">(x, k)', 11),
        ('y = Upsample<mode = "nearest">(x, k)', 13),
        ("i = Constant<value = int64[1,1,1,2] {3, 0}>() y = Scatter<axis = 3>(x, i, x2)", 12),
    ],
)
@pytest.mark.parametrize("to", [18, 9])
def test_what_is_retired_means_what_it_meant(nodes, opset, to):
    text = f"""g (float[1,1,2,4] x, float[1,1,1,2] x2) => (float[?,?,?,?] y)
        <float[4] k = {{1, 1, 2, 2}}> {{ {nodes} }}"""
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)
    x2 = np.float32([-1, -2]).reshape(1, 1, 1, 2)
    (y,) = run(converted(text, opset, to), x=x, x2=x2)
    wanted = x.repeat(2, 2).repeat(2, 3)
    if "Scatter" in nodes:
        wanted = x.copy()
        wanted[0, 0, 0, [3, 0]] = -1, -2
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("kind", ["int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize(
    ("a", "b"), [((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,))]
)
def test_products_of_integers_before_9(kind, a, b):
    def shape(sizes: tuple[int, ...]) -> str:
        return ",".join(map(str, sizes))

    random = np.random.default_rng(0)
    low = 0 if kind[0] == "u" else -(2**31)
    x, y = (random.integers(low, 2**31, size).astype(kind) for size in (a, b))
    wanted = x @ y
    result = f"{kind}[{shape(wanted.shape)}]" if wanted.ndim else kind
    text = f"""g ({kind}[{shape(a)}] x, {kind}[{shape(b)}] y) => ({result} z) {{
        z = MatMul(x, y) }}"""
    for to in (8, 7):
        (z,) = run(converted(text, 13, to), x=x, y=y)
        np.testing.assert_array_equal(z, wanted, strict=True)


@pytest.mark.parametrize("operator", ["ReduceLogSum", "ReduceLogSumExp", "ReduceL2", "ReduceMean"])
@pytest.mark.parametrize("axes", ["a", "", "none"])
def test_reductions_of_integers(operator, axes):
    noop = ", noop_with_empty_axes = 1" if axes == "" else ""
    given = "x" if axes == "" else "x, a"
    text = f"""g (int64[2,3] x, int64[A] a) => (int64[?,?] y) {{
        y = {operator}<keepdims = 1{noop}>({given}) }}"""
    x = np.array([[1, 2, 4], [5, 7, 11]])
    a = np.array([0, 1] if axes == "a" else [], np.int64)
    whole = axes != ""
    wanted = {
        "ReduceLogSum": np.log(x.sum() if whole else x),
        "ReduceLogSumExp": np.log(np.exp(x).sum()) if whole else x,
        "ReduceL2": np.sqrt((x * x).sum()) if whole else x,
        "ReduceMean": x.sum() // 6 if whole else x,
    }[operator]
    (y,) = run(converted(text, 18, 13), x=x, a=a)
    np.testing.assert_array_equal(y, np.broadcast_to(wanted, y.shape).astype(np.int64))


def test_a_left_out_output_is_named_for_those_that_read_it():
    proto = converted(
        """g (float[2,3,4] x, float[4] w) => (float[2,3,4] a, float[2,3,1] b) {
        z, "", v = LayerNormalization(x, w) a = Relu(z) b = Add(v, v) }""",
        18,
        13,
    )
    names = [name for node in proto.graph.node for name in node.output]
    assert all(names)


AVERAGE = """g (float[2,1,3,{size}] x) => (float[2,1,3,{half}] y) {{
    [pool] a = {operator}<auto_pad = "{side}", dilations = [2, 2], kernel_shape = [1, 5],
        strides = [1, {stride}]{more}>(x)
    y = Identity(a) }}"""
"""A pool with SAME padding and dilations, which ONNX Runtime pads as if it were not dilated."""


@pytest.mark.parametrize("more", ["", ", count_include_pad = 1", ", ceil_mode = 1"])
@pytest.mark.parametrize("size", [11, 8])
def test_the_door_writes_a_dilated_average(tmp_path, more, size):
    sizes = {"side": "SAME_UPPER", "stride": 2, "size": size, "half": (size + 1) // 2}
    report = through(tmp_path, AVERAGE.format(operator="AveragePool", more=more, **sizes), 19, 17)
    assert report.checked.numbers.ok
    assert "AveragePool with SAME padding and dilations" in report.checked.numbers.notes[-1]


def test_the_door_writes_a_dilated_power_mean(tmp_path):
    text = AVERAGE.format(
        operator="LpPool", side="SAME_LOWER", stride=1, size="N", half="M", more=""
    )
    report = through(tmp_path, text, 18, 17)
    assert report.checked.numbers.ok


def through(tmp_path, text: str, opset: int, to: int | None = None, **intent: object):
    """Convert a file as the command line does, loaded and compared before it is written."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>{text}')
    source = tmp_path / "source.onnx"
    onnx.save(proto, source)
    asked = {**intent, **({} if to is None else {"opset": to})}
    return Pipeline(**asked).convert(source, tmp_path / "result.onnx")


RETIRED = """g (float[2,4,3,3] x) => (float[2,4,3,3] y)
    <float[2] s = {2, 3}, float[2] b = {1, -1}> {
    y = GroupNormalization<num_groups = 2>(x, s, b) }"""
SHAPED = "g (float[2,3] x) => (int64[2] s, float[2,3] y) { s = Shape(x) y = Relu(x) }"


@pytest.mark.parametrize(("text", "opset"), [(RETIRED, 18), (SHAPED, 8), (SHAPED, 7)])
def test_simplified_where_it_stands(tmp_path, text, opset):
    """What is retired is valid; below opset 9 a Constant holds no integers."""
    report = through(tmp_path, text, opset, simplify=True)
    assert report.checked.types
    assert report.checked.numbers.ok
