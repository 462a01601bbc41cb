"""Models at opset 7 to 12, one for each operator that changed since, against ONNX Runtime."""

import contextlib
import itertools
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset

F, D, H, I = "float", "double", "float16", "int64"  # noqa: E741
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Older:
    """One small model of an old opset: inputs as (type, shape), and its nodes."""

    name: str
    opset: int
    nodes: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...] = ((F, (2, 3, 4)),)
    outputs: tuple[str, ...] = (F,)
    ranks: tuple[int, ...] = (3,)
    constants: str = ""

    def text(self) -> str:
        names = "xwvu"
        given = ", ".join(
            f"{kind}[{','.join(map(str, shape))}] {names[i]}"
            for i, (kind, shape) in enumerate(self.inputs)
        )
        made = ", ".join(
            f"{kind}[{','.join(f'd{i}{a}' for a in range(rank))}] y{i or ''}"
            for i, (kind, rank) in enumerate(zip(self.outputs, self.ranks, strict=True))
        )
        constants = f"<{self.constants}>" if self.constants else ""
        return (
            f'<ir_version: 8, opset_import: ["" : {self.opset}]>\n'
            f"g ({given}) => ({made}) {constants} {{ {self.nodes} }}"
        )

    def feeds(self) -> dict[str, np.ndarray]:
        dtypes = {F: np.float32, D: np.float64, H: np.float16, I: np.int64, "bool": np.bool_}
        found = {}
        for name, (kind, shape) in zip("xwvu", self.inputs, strict=False):
            values = np.random.default_rng(len(name)).normal(size=shape) * 2
            found[name] = values.astype(dtypes[kind])
        return found


IMAGE = ((F, (1, 2, 6, 6)),)
CASES = [
    Older("softmax of all but the first axis", 7, "y = Softmax(x)"),
    Older("softmax with its axis", 8, "y = Softmax <axis = 2> (x)"),
    Older("softmax of everything", 11, "y = Softmax <axis = 0> (x)"),
    Older("softmax counted from the back", 11, "y = Softmax <axis = -2> (x)"),
    Older("logsoftmax", 9, "y = LogSoftmax(x)"),
    Older("hardmax", 9, "y = Hardmax(x)"),
    Older("clip", 7, "y = Clip <min = -0.5, max = 0.5> (x)"),
    Older("clip from below", 10, "y = Clip <min = 0.0> (x)"),
    Older("clip of double", 8, "y = Clip <max = 1.0> (x)", ((D, (2, 3, 4)),), (D,)),
    Older("clip without bounds", 6 + 1, "y = Clip(x)"),
    Older("pad", 7, "y = Pad <pads = [0, 1, 0, 0, 0, 2], value = 3.0> (x)"),
    Older("pad by reflection", 10, 'y = Pad <pads = [0, 1, 0, 0, 1, 2], mode = "reflect"> (x)'),
    Older("slice", 7, "y = Slice <starts = [1, -2], ends = [9, 2147483647], axes = [1, 2]> (x)"),
    Older("slice of the first axes", 9, "y = Slice <starts = [0], ends = [1]> (x)"),
    Older("split", 7, "y, y1 = Split <axis = 2, split = [1, 3]> (x)", outputs=(F, F), ranks=(3, 3)),
    Older("split evenly", 8, "y, y1 = Split <axis = 2> (x)", outputs=(F, F), ranks=(3, 3)),
    Older("squeeze", 7, "y = Squeeze <axes = [1]> (x)", ((F, (2, 1, 4)),), ranks=(2,)),
    Older("squeeze all", 9, "y = Squeeze(x)", ((F, (2, 1, 4)),), ranks=(2,)),
    Older("unsqueeze", 8, "y = Unsqueeze <axes = [0, 2]> (x)", ranks=(5,)),
    Older("topk", 7, "y, y1 = TopK <axis = 2, k = 2> (x)", outputs=(F, I), ranks=(3, 3)),
    Older("dropout", 7, "y = Dropout <ratio = 0.3> (x)"),
    Older("dropout at 10", 10, "y = Dropout(x)"),
    Older(
        "gemm",
        7,
        "y = Gemm <alpha = 0.5, transB = 1> (x, w, v)",
        ((F, (2, 3)), (F, (4, 3)), (F, (4,))),
        ranks=(2,),
    ),
    Older("upsample", 7, "y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x)", IMAGE, ranks=(4,)),
    Older(
        "upsample linearly",
        9,
        'y = Upsample <mode = "linear"> (x, s)',
        IMAGE,
        ranks=(4,),
        constants="float[4] s = {1.0, 1.0, 2.0, 3.0}",
    ),
    Older(
        "resize at 10",
        10,
        "y = Resize(x, s)",
        IMAGE,
        ranks=(4,),
        constants="float[4] s = {1.0, 1.0, 1.5, 0.5}",
    ),
    Older(
        "resize linearly at 10",
        10,
        'y = Resize <mode = "linear"> (x, s)',
        IMAGE,
        ranks=(4,),
        constants="float[4] s = {1.0, 1.0, 1.5, 2.0}",
    ),
    Older(
        "resize at 11",
        11,
        'y = Resize <coordinate_transformation_mode = "asymmetric"> (x, e, e, s)',
        IMAGE,
        ranks=(4,),
        constants="float[0] e = {}, int64[4] s = {1, 2, 9, 4}",
    ),
    Older(
        "resize for nearest neighbours of tensorflow",
        11,
        'y = Resize <coordinate_transformation_mode = "tf_half_pixel_for_nn",'
        ' nearest_mode = "floor"> (x, e, e, s)',
        IMAGE,
        ranks=(4,),
        constants="float[0] e = {}, int64[4] s = {1, 2, 9, 4}",
    ),
    Older(
        "batch normalisation",
        7,
        "y = BatchNormalization(x, w, v, u, m)",
        ((F, (1, 2, 6, 6)), (F, (2,)), (F, (2,)), (F, (2,))),
        ranks=(4,),
        constants="float[2] m = {1.0, 2.0}",
    ),
    Older(
        "average pool",
        7,
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
        IMAGE,
        ranks=(4,),
    ),
    Older(
        "max pool",
        8,
        "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
        IMAGE,
        ranks=(4,),
    ),
    Older(
        "max pool that rounds up",
        10,
        "y = MaxPool <ceil_mode = 1, kernel_shape = [3, 3], strides = [2, 2]> (x)",
        IMAGE,
        ranks=(4,),
    ),
    Older(
        "scatter",
        9,
        "y = Scatter <axis = 1> (x, i, w)",
        ((F, (2, 3)), (F, (2, 2))),
        ranks=(2,),
        constants="int64[2,2] i = {0, 2, 1, 0}",
    ),
    Older(
        "scan over a batch",
        8,
        """y, y1 = Scan <num_scan_inputs = 1, body = sum
            (float[2] s, float[2] e) => (float[2] t, float[2] o) { t = Add(s, e) o = Identity(t) }
        > ("", x, w)""",
        ((F, (1, 2)), (F, (1, 3, 2))),
        (F, F),
        (2, 3),
    ),
    Older(
        "constant of the oldest form", 7, "c = Constant <value = float[1] {2.0}> () y = Mul(x, c)"
    ),
    Older(
        "shape and gather",
        9,
        """s = Shape(x) g = Gather(s, i) y = ConstantOfShape
        <value = float[1] {1.5}> (g)""",
        ranks=(2,),
        constants="int64[2] i = {2, 0}",
    ),
    Older(
        "one hot",
        9,
        "k = Cast <to = 7> (x) y = OneHot <axis = 1> (k, d, v)",
        ((F, (3,)),),
        ranks=(2,),
        constants="int64 d = {4}, float[2] v = {0.0, 2.0}",
    ),
    Older("max of several shapes", 8, "y = Max(x, w)", ((F, (2, 3, 4)), (F, (4,)))),
    Older("mean of several shapes", 8, "y = Mean(x, w)", ((F, (2, 3, 4)), (F, (4,)))),
    Older("sum", 7, "y = Sum(x, w)", ((F, (2, 3, 4)), (F, (2, 3, 4)))),
    Older("power", 7, "a = Abs(x) y = Pow(a, w)", ((F, (2, 3, 4)), (F, (4,)))),
    Older(
        "where and compare",
        9,
        "c = Greater(x, w) y = Where(c, x, w)",
        ((F, (2, 3, 4)), (F, (2, 3, 4))),
    ),
    Older("argmax", 9, "y = ArgMax <axis = 1> (x)", outputs=(I,)),
    Older("flatten", 9, "y = Flatten <axis = 2> (x)", ranks=(2,)),
    Older("cumulative sum", 11, "y = CumSum <exclusive = 1> (x, a)", constants="int64 a = {1}"),
    Older(
        "gather with batches",
        12,
        "y = GatherND <batch_dims = 1> (x, i)",
        ranks=(2,),
        constants="int64[2,1] i = {1, 0}",
    ),
    Older(
        "einsum",
        12,
        'y = Einsum <equation = "abc,acd->abd"> (x, w)',
        ((F, (2, 3, 4)), (F, (2, 4, 2))),
    ),
    Older(
        "einsum with an operand of fewer axes",
        12,
        'y = Einsum <equation = "bhwc,hkc->bhwk"> (x, w)',
        ((F, (2, 3, 2, 4)), (F, (3, 5, 4))),
        ranks=(4,),
    ),
    Older(
        "depth to space",
        11,
        'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)',
        ((F, (1, 8, 2, 3)),),
        ranks=(4,),
    ),
    Older(
        "top k of the smallest",
        11,
        "y, y1 = TopK <largest = 0> (x, k)",
        outputs=(F, I),
        ranks=(3, 3),
        constants="int64[1] k = {2}",
    ),
    Older(
        "last of several maxima",
        12,
        "r = Round(x) y = ArgMax <axis = 2, select_last_index = 1> (r)",
        outputs=(I,),
    ),
    Older(
        "recurrent layer",
        7,
        "y, y1 = GRU <hidden_size = 3> (x, w, v)",
        ((F, (4, 1, 2)), (F, (1, 9, 2)), (F, (1, 9, 3))),
        (F, F),
        (4, 3),
    ),
    Older(
        "quantise",
        10,
        """q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)""",
        constants="float s = {0.1}, uint8 z = {128}",
    ),
    *(
        Older(
            f"{name} of axes",
            7 + index % 6,
            f"a = Abs(x) y = {name} <axes = [1], keepdims = {index % 2}> (a)",
            ranks=(3 if index % 2 else 2,),
        )
        for index, name in enumerate(
            (
                "ReduceL1",
                "ReduceL2",
                "ReduceLogSum",
                "ReduceLogSumExp",
                "ReduceMax",
                "ReduceMean",
                "ReduceMin",
                "ReduceProd",
                "ReduceSum",
                "ReduceSumSquare",
            )
        )
    ),
]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
    except NotImplemented:  # The reference evaluator has what it has no kernel for.
        return ReferenceEvaluator(model).run(None, feeds)
    return session.run(None, feeds)


def check(case: Older, target: int) -> None:
    source = ir.to_proto(ir.from_onnx_text(case.text()))
    onnx.checker.check_model(source, full_check=True)
    model = ir.from_proto(source)
    ConvertOpset(to=target).run(model)
    converted = ir.to_proto(model)
    onnx.checker.check_model(converted, full_check=True)
    expected, actual = (run(each, case.feeds()) for each in (source, converted))
    for e, a in zip(expected, actual, strict=True):
        assert e.dtype == a.dtype
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_computes_the_same_at_every_later_opset(case):
    for target in (8, 9, 10, 11, 12, 13, 15, 18, 20, 21, 22, 23, 24, 25, 26):
        if target > case.opset:
            check(case, target)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_right_or_refused_at_every_earlier_opset(case):
    for target in range(case.opset - 1, 6, -1):
        with contextlib.suppress(Refused):
            check(case, target)


ONE_WAY = {"scan over a batch"}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in ONE_WAY], ids=lambda case: case.name
)
def test_it_comes_back(case):
    source = ir.to_proto(ir.from_onnx_text(case.text()))
    model = ir.from_proto(source)
    for target in (max(18, case.opset), case.opset, 13):
        ConvertOpset(to=target).run(model)
    expected, actual = (run(each, case.feeds()) for each in (source, ir.to_proto(model)))
    for e, a in zip(expected, actual, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-7)


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert all(a != b for a, b in itertools.pairwise(sorted(names)))


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_remainders_of_integers_below_opset_10(kind, fmod):
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        g ({kind}[n] x, {kind}[n] y) => ({kind}[n] z) {{ z = Mod<fmod={fmod}>(x, y) }}"""
    )
    pairs = [(a, b) for a in (-7, -6, 0, 5, 6, 2**40) for b in (-3, 3, 5)]
    feeds = [each.astype(kind) for each in np.array(pairs, np.int64).T]
    expected = (np.fmod if fmod else np.mod)(*feeds)
    ConvertOpset(to=9).run(model)
    assert "Mod" not in [node.op_type for node in model.graph]
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    (z,) = session.run(None, {"x": feeds[0], "y": feeds[1]})
    np.testing.assert_array_equal(z, expected)
