"""Does ONNX Runtime load a model: a twin with stand-ins for weights must say what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from run_models import EXPORTS, mlp

from vlmpass.ir_tools.run import Allowance, RunError
from vlmpass.ir_tools.run.culprit import culprit
from vlmpass.ir_tools.run.loading import EXACT_BYTES, Loader

_ALLOWANCE = Allowance(memory=1_000_000_000)
_RNG = np.random.default_rng(0)
_N = 256  # a matrix of float16 has 128 KB: far above what the twin keeps

_TYPES = {"float": np.float32, "float16": np.float16, "double": np.float64}


def one(
    text: str,
    weights: dict[str, np.ndarray],
    *,
    opset: int = 17,
    kinds: tuple[str, str] = ("float", "float"),
    sizes: tuple[str, str] = ("n, 256", "n, 256"),
    extra: str = "",
) -> ir.Model:
    """Return a model of one input x and one output y around some weights."""
    head = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1, "mine": 1]>'
    ends = f"({kinds[0]}[{sizes[0]}] x) => ({kinds[1]}[{sizes[1]}] y)"
    proto = onnx.parser.parse_model(f"{head} g {ends} {{ {text} }} {extra}")
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    return ir.from_proto(proto)


def matrix(kind: str = "float", *shape: int) -> np.ndarray:
    return _RNG.standard_normal(shape or (_N, _N)).astype(_TYPES[kind])


def blocked(scale: type, zero: bool = False) -> ir.Model:
    """A product with a matrix of 4 bits, its scale of one type, its values float16."""
    words = helper.make_tensor("w", TensorProto.UINT4, [512, _N], [3] * (512 * _N))
    scales = numpy_helper.from_array(np.full((16, _N), 0.1, scale), "s")
    given = ["w", "s", "z"] if zero else ["w", "s"]
    zeros = [helper.make_tensor("z", TensorProto.UINT4, [16, _N], [8] * (16 * _N))] * zero
    nodes = [
        helper.make_node("DequantizeLinear", given, ["d"], axis=0, block_size=32, output_dtype=10),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, 10, ["n", k]) for n, k in (("x", 512), ("y", _N))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [words, scales, *zeros])
    opsets = [helper.make_opsetid("", 23)]
    return ir.from_proto(helper.make_model(graph, ir_version=11, opset_imports=opsets))


def quantized(scale: np.ndarray) -> ir.Model:
    text = "q = DequantizeLinear<axis = 1>(w, s) y = MatMul(x, q)"
    return one(text, {"w": np.ones((_N, _N), np.int8), "s": scale})


def shaped(*dims: int) -> ir.Model:
    weights = {"w": matrix(), "d": np.array(dims, np.int64)}
    return one("r = Reshape(w, d) y = MatMul(x, r)", weights)


def gathered(indices: int) -> ir.Model:
    index = np.full((indices,), _N + 5, np.int64)
    weights = {"w": matrix(), "i": index, "v": matrix("float", indices, _N)}
    return one("g = Gather(w, i) p = Mul(g, v) s = ReduceSum(p) y = Add(x, s)", weights)


def branch(bad: str = "") -> ir.Model:
    w = numpy_helper.from_array(matrix(), "w")
    ends = [helper.make_tensor_value_info(n, 1, [4, _N]) for n in ("x", "y")]
    given = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    inner = helper.make_tensor_value_info("t", 1, [4, _N])
    node = helper.make_node(bad or "MatMul", ["x", "w"], ["t"], domain="mine" if bad else "")
    then = helper.make_graph([node], "then", [], [inner], [w])
    other = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "else", [], [inner])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    graph = helper.make_graph([choice], "g", [ends[0], given], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return ir.from_proto(helper.make_model(graph, ir_version=8, opset_imports=opsets))


_LSTM = "y0, h, c = LSTM<hidden_size = 64>(x, w, r) y = Squeeze(y0, a)"
_LSTM_WEIGHTS = {
    "w": matrix("float", 1, 256, 256),
    "r": matrix("float", 1, 256, 64),
    "a": np.array([1], np.int64),
}
_CONV = {"w": matrix("float", 64, 64, 3, 3)}
_IMAGE = ("n, 64, 8, 8", "n, 64, a, b")
_FUNCTION = '<domain: "mine", opset_import: ["": 17]> F (a, w) => (b) { b = MatMul(a, w) }'
_NORM = "y = LayerNormalization(m, s)"

MODELS: dict[str, Callable[[], ir.Model]] = {
    "matmul": lambda: one("y = MatMul(x, w)", {"w": matrix()}),
    "transposed weight": lambda: one("t = Transpose(w) y = MatMul(x, t)", {"w": matrix()}),
    "narrow weight, cast": lambda: one(
        "c = Cast<to = 1>(w) y = MatMul(x, c)", {"w": matrix("float16")}
    ),
    "float16": lambda: mlp(ir.DataType.FLOAT16),
    "bfloat16": lambda: mlp(ir.DataType.BFLOAT16),
    "double": lambda: one("y = MatMul(x, w)", {"w": matrix("double")}, kinds=("double", "double")),
    "double Erf": lambda: one(
        "m = MatMul(x, w) y = Erf(m)", {"w": matrix("double")}, kinds=("double", "double")
    ),
    "double Conv": lambda: one(
        "y = Conv(x, w)",
        {"w": matrix("double", 64, 64, 3, 3)},
        kinds=("double", "double"),
        sizes=_IMAGE,
    ),
    "types differ": lambda: one("y = MatMul(x, w)", {"w": matrix("float16")}),
    "sizes differ": lambda: one(
        "y = MatMul(x, w)", {"w": matrix("float", 128, 256)}, sizes=("4, 256", "4, 256")
    ),
    "conv": lambda: one("y = Conv<pads = [1, 1, 1, 1]>(x, w)", _CONV, sizes=_IMAGE),
    "conv with pads and SAME": lambda: one(
        'y = Conv<auto_pad = "SAME_UPPER", dilations = [2, 2]>(x, w)', _CONV, sizes=_IMAGE
    ),
    "conv and norm": lambda: one(
        "c = Conv(x, w) y = BatchNormalization(c, s, s, s, s)",
        {**_CONV, "s": np.ones(64, np.float32)},
        sizes=_IMAGE,
    ),
    "lstm": lambda: one(_LSTM, _LSTM_WEIGHTS, sizes=("s, b, 256", "s, b, 64")),
    "lstm without hidden_size": lambda: one(
        _LSTM.replace("<hidden_size = 64>", ""), _LSTM_WEIGHTS, sizes=("s, b, 256", "s, b, 64")
    ),
    "layer norm": lambda: one(
        f"m = MatMul(x, w) {_NORM}", {"w": matrix(), "s": matrix("float", 256)}
    ),
    "layer norm, half scale": lambda: one(
        f"m = MatMul(x, w) {_NORM}", {"w": matrix(), "s": matrix("float16", 256)}
    ),
    "fused norm of the runtime": lambda: one(
        "m = MatMul(x, w) y = com.microsoft.SimplifiedLayerNormalization(m, s)",
        {"w": matrix(), "s": matrix("float", 256)},
    ),
    "custom": lambda: one("y = mine.Op(x, w)", {"w": matrix()}),
    "custom in a branch": lambda: branch("Op"),
    "weight in a branch": branch,
    "function": lambda: one("y = mine.F(x, w)", {"w": matrix()}, extra=_FUNCTION),
    "function without body": lambda: one("y = mine.G(x, w)", {"w": matrix()}, extra=_FUNCTION),
    "dequantized": lambda: quantized(np.ones(_N, np.float32)),
    "dequantized, wrong scale": lambda: quantized(np.ones(_N, np.float64)),
    "4 bits": lambda: blocked(np.float16),
    "4 bits, scale of float32": lambda: blocked(np.float32),
    "4 bits, zeros, scale of float32": lambda: blocked(np.float32, zero=True),
    "reshaped weight": lambda: shaped(256, 256),
    "reshaped to what it has not": lambda: shaped(100, 256),
    "gathered out of range": lambda: gathered(3),
    "gathered out of range, many": lambda: gathered(40_000),
    "opset of the future": lambda: one("y = MatMul(x, w)", {"w": matrix()}, opset=40),
    "weights in a Constant": lambda: ir.from_proto(_constant()),
    "concatenated weights": lambda: one(
        "c = Concat<axis = 0>(w, v) y = MatMul(x, c)",
        {"w": matrix("float", 128, 256), "v": matrix("float", 128, 256)},
    ),
    "double Clip of opset 6": lambda: one(
        "m = MatMul(x, w) y = Clip<max = 1.0>(m)",
        {"w": matrix("double")},
        opset=10,
        kinds=("double", "double"),
    ),
    "pruned by ScatterND": lambda: one(
        "u = ScatterND(w, i, v) y = MatMul(x, u)",
        {"w": matrix(), "i": np.zeros((1, 1), np.int64), "v": matrix("float", 1, 256)},
    ),
}


def _constant() -> onnx.ModelProto:
    value = numpy_helper.from_array(matrix())
    nodes = [
        helper.make_node("Constant", [], ["w"], value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, 1, ["n", _N]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def default_session(model: ir.Model) -> bool:
    """Say whether a session as a user makes it, with nothing set, loads a model."""
    onnxruntime.set_default_logger_severity(4)
    try:
        onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    except Exception:  # noqa: BLE001 - the runtime's errors have no common base
        return False
    return True


def verdict(model: ir.Model, exact: int) -> RunError | None:
    with Loader(_ALLOWANCE, exact) as loader:
        return loader.why_not(model)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_twin_says_what_the_model_says_and_that_is_what_a_user_sees(name):
    model = MODELS[name]()
    real, twin = verdict(model, EXACT_BYTES), verdict(model, 0)
    assert (real is None) == default_session(model)
    assert (twin is None) == (real is None)
    if real is not None and twin is not None:
        assert twin.reason == real.reason


def test_the_range_of_models_has_both_kinds():
    loads = [default_session(make()) for make in MODELS.values()]
    assert min(loads.count(True), loads.count(False)) >= 12


@pytest.mark.parametrize("path", sorted(EXPORTS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_twin_of_an_export_says_what_the_export_says(path):
    model = ir.load(path)
    real, twin = verdict(model, EXACT_BYTES), verdict(model, 0)
    assert (real and real.reason) == (twin and twin.reason)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("float16", "y = MatMul(x, w)"),
        ("float", "t = Transpose(w) y = MatMul(x, t)"),
        ("float16", "c = Cast<to = 1>(w) t = Transpose(c) d = Cast<to = 10>(t) y = MatMul(x, d)"),
    ],
)
def test_loading_reads_no_large_weight(tmp_path, kind, text):
    """Nor widens or folds one: the process is smaller than the weight, a hole in a file."""
    side = 14_000
    dtype = np.dtype(_TYPES[kind])
    with (tmp_path / "data").open("wb") as file:
        file.truncate(side * side * dtype.itemsize)
    model = one(text, {}, kinds=(kind, kind), sizes=(f"n, {side}", f"n, {side}"))
    shape, onnx_type = ir.Shape([side, side]), ir.DataType.from_numpy(dtype)
    held = ir.ExternalTensor(
        "data", 0, side * side * dtype.itemsize, onnx_type,
        shape=shape, name="w", base_dir=tmp_path,
    )  # fmt: skip
    weight = next(each for node in model.graph for each in node.inputs if each.name == "w")
    weight.const_value, weight.shape, weight.dtype = held, shape, onnx_type
    model.graph.register_initializer(weight)
    with Loader(_ALLOWANCE) as loader:
        assert loader.why_not(model) is None
        status = Path(f"/proc/{loader._child._process.pid}/status").read_text(encoding="utf-8")
    assert int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024 < 250_000_000


def test_a_loader_goes_on_after_a_refusal_and_a_crash():
    with Loader(Allowance(memory=400_000_000)) as loader:
        assert loader.why_not(MODELS["custom"]()) is not None
        loader._child.kill()  # as a crash of the runtime would
        loader._child = None
        assert loader.why_not(MODELS["matmul"]()) is None


def test_the_node_at_fault_is_one_of_the_model_not_of_an_inlined_body():
    model = one("m = MatMul(x, w) g = Gelu(m) y = Relu(g)", {"w": matrix("double")}, opset=20,
                kinds=("double", "double"))  # fmt: skip
    with Loader(_ALLOWANCE) as loader:
        error = loader.why_not(model)
        assert error is not None
        found = culprit(model, error, loader)
    assert found is not None
    assert found[0].op_type == "Gelu"


def test_the_end_of_a_chain_that_only_fails_together_is_named():
    with Loader(_ALLOWANCE) as loader:
        model = blocked(np.float32)
        error = loader.why_not(model)
        assert error is not None
        found = culprit(model, error, loader)
    assert found is not None
    assert found[0].op_type == "MatMul"
