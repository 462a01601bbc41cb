"""quantize-static: products of numbers that are rounded by ranges of real inputs."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from quant_chains import Here, chain, weight

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.run.spans import Span, spans
from vlmpass.passes import quantize_static as quantize_static_pass
from vlmpass.passes.pipeline.text import parse
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant import in_qdq

MODELS = int(os.environ.get("VLMPASS_QUANTISED", "2"))
"""More of them are drawn every night."""
HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
TARGETS = ("ort-cpu", "tensorrt-10.15")


def saved(folder, name: str = "x", shape=(5, 40), runs: int = 3, seed: int = 0):
    """Write inputs into a folder, and return them."""
    dice = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    made = [dice.standard_normal(shape).astype(np.float32) for _ in range(runs)]
    for number, each in enumerate(made):
        np.savez(folder / f"{number}.npz", **{name: each})
    return made


def ran(model: onnx.ModelProto, feeds: dict) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds)[0]


def levels_by_definition(arrays: list[np.ndarray], signed: bool) -> tuple[float, int]:
    low, high = min(0.0, *(a.min() for a in arrays)), max(0.0, *(a.max() for a in arrays))
    if signed:
        return max(-low, high) / 127 or 1.0, 0
    scale = (high - low) / 255 or 1.0
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def by_definition(model: onnx.ModelProto, x: np.ndarray, levels=None) -> dict[str, np.ndarray]:
    """What a chain computes in doubles; with levels, where every product is of rounded numbers."""
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    values = {"v0": x.astype(np.float64)}
    for node in model.graph.node:
        a = values[node.input[0]]
        if node.op_type in ("MatMul", "Gemm"):
            w = held[node.input[1]].astype(np.float32)
            turned = any(each.name == "transB" and each.i for each in node.attribute)
            w = w.T if turned else w
            if levels is not None:
                step = np.abs(w).max(0) / np.float32(127)
                step = np.where(step > 0, step, 1)
                w = np.rint(w / step) * np.float64(step)
                scale, zero, low, high = levels[node.input[0]]
                a = (np.clip(np.rint(a / scale) + zero, low, high) - zero) * scale
            made = a @ w.astype(np.float64)
            made = made + held[node.input[2]] if len(node.input) > 2 else made
        elif node.op_type == "Sub":
            made = a - values[node.input[1]]
        else:
            made = -a if node.op_type == "Neg" else np.maximum(a, 0)
        values[node.output[0]] = made
    return values


def levels_of(model: ir.Model) -> dict[str, tuple[float, int, int, int]]:
    """What the model rounds by, by the value that is rounded."""
    found = {}
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            scale, zero = (each.const_value.numpy() for each in node.inputs[1:])
            ends = np.iinfo(zero.dtype)
            found[node.inputs[0].name] = float(scale), int(zero), int(ends.min), int(ends.max)
    return found


@pytest.mark.parametrize("seed", range(MODELS))
def test_products_of_rounded_numbers(seed, tmp_path, monkeypatch):
    model, target = chain(seed, (13, 17, 21)[seed % 3], "float"), TARGETS[seed % 2]
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    inputs = saved(tmp_path / "in", "v0", (5, size), seed=seed)
    words = f'quantize-static{{calibrate="{tmp_path / "in"}" at-least=1 target={target}}}'
    compared = seed == 1
    report = Pipeline(words).run(model, verify=compared)
    if compared:
        assert max(each.max_abs for each in report.checked.numbers.outputs) == 0
        assert any("rounding weights and what they multiply changes" in note
                   for note in report.checked.numbers.notes)  # fmt: skip
    assert Pipeline(words).run(report.model).proto() == report.proto()
    if compared:
        monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", Here)
        again = [ir.serde.from_proto(model) for _ in range(2)]
        for each in again:
            parse(words)[0].run(each)
            assert levels_of(each) == {
                name: (pytest.approx(scale, rel=1e-4), *rest)
                for name, (scale, *rest) in levels_of(report.model).items()
            }
        assert len({ir.to_proto(each).SerializeToString(deterministic=True) for each in again}) == 1
    levels = levels_of(report.model)
    runs = [by_definition(model, each) for each in inputs]
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert set(levels) == {node.input[0] for node in products}
    for name, (scale, zero, *_) in levels.items():
        wanted = levels_by_definition([run[name] for run in runs], target != "ort-cpu")
        assert scale == pytest.approx(wanted[0], rel=1e-4)
        assert abs(zero - wanted[1]) <= 1
    fresh = np.random.default_rng(seed + 99).standard_normal((5, size)).astype(np.float32)
    wanted, found = by_definition(model, fresh, levels)["y"], ran(report.proto(), {"v0": fresh})
    # A number half way between two may go either way after the first product.
    assert np.linalg.norm(found - wanted) <= 0.02 * np.linalg.norm(wanted) + 1e-6


def test_rounds_by_what_onnxruntime_rounds_by(tmp_path):
    text = "g (float[n,40] x) => (float[n,24] y) { a = MatMul(x, u)  b = Relu(a) y = MatMul(b, w) }"
    model = onnx.parser.parse_model(HEAD + text)
    dice = np.random.default_rng(1)
    model.graph.initializer.extend([weight(dice, "u", 40, 32), weight(dice, "w", 32, 24)])
    onnx.save(model, tmp_path / "in.onnx")
    inputs = saved(tmp_path / "in")

    class Reader(CalibrationDataReader):
        left = iter(inputs)

        def get_next(self):
            found = next(self.left, None)
            return None if found is None else {"x": found}

    quantize_static(
        tmp_path / "in.onnx", tmp_path / "out.onnx", Reader(), QuantFormat.QDQ, ["MatMul"],
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    theirs = levels_of(ir.serde.from_proto(onnx.load(tmp_path / "out.onnx")))
    words = f'quantize-static{{calibrate="{tmp_path / "in"}" at-least=1}}'
    ours = levels_of(Pipeline(words).run(model).model)
    assert set(ours) == {"x", "b"}
    for name, (scale, *rest) in ours.items():
        assert scale == pytest.approx(theirs[name][0], rel=1e-6)
        assert tuple(rest) == theirs[name][1:]


def both(words: str, model: onnx.ModelProto, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a result computes, and what it is held against."""
    result, likewise = ir.serde.from_proto(model), ir.serde.from_proto(model)
    done = set()
    for made in parse(words):
        made.run(result)
        made.round_likewise(likewise, done)
    name = model.graph.input[0].name
    return tuple(ran(ir.to_proto(each), {name: x}) for each in (result, likewise))


@pytest.mark.parametrize(
    ("others", "first"),
    [
        ("quantize-weights{bits=8", True),
        ("quantize-weights{bits=4", False),
        ("quantize-dynamic{", False),
        ("quantize-static{calibrate=random", True),
    ],
)
def test_what_one_pass_rounds_the_next_does_not(monkeypatch, others, first):
    measured = {"x": Span(-3, 3.5), "a": Span(-9, 10)}
    monkeypatch.setattr(quantize_static_pass, "spans", lambda *_: measured)
    text = "g (float[n,40] x) => (float[n,8] y) { [one] a = MatMul(x, u) [two] y = MatMul(a, w) }"
    model, dice = onnx.parser.parse_model(HEAD + text), np.random.default_rng(3)
    model.graph.initializer.extend([weight(dice, "u", 40, 32), weight(dice, "w", 32, 8)])
    words = [f"{others} at-least=1", "quantize-static{calibrate=random at-least=1"]
    words = words if first else words[::-1]
    x = dice.standard_normal((5, 40)).astype(np.float32)
    found, wanted = both(f"{words[0]} exclude=[two]}},{words[1]}}}", model, x)
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


PLACES = """g (float[1,3,8,8] x) => (float[1,4,40] y) {
    [patches] c = Conv<kernel_shape=[4,4], strides=[4,4]>(x, k, kb)  r = Reshape(c, shape)
    t = Transpose<perm=[0,2,1]>(r)  [up] m = MatMul(t, u)  [plus] a = Add(ub, m)  b = Relu(a)
    [flat] f = Reshape(b, rows)  [down] g = Gemm<transB=1>(f, v, vb)
    [last] y = Reshape(g, back) }"""


def places() -> onnx.ModelProto:
    """A convolution, a product with its bias in an Add, and a Gemm."""
    model, dice = onnx.parser.parse_model(HEAD + PLACES), np.random.default_rng(2)
    shapes = {"k": (24, 3, 4, 4), "kb": (24,), "u": (24, 32), "ub": (32,), "v": (40, 32),
              "vb": (40,)}  # fmt: skip
    model.graph.initializer.extend(weight(dice, name, *shape) for name, shape in shapes.items())
    for name, numbers in {"shape": (1, 24, 4), "rows": (4, 32), "back": (1, 4, 40)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(numbers), name))
    return model


MEASURED = {"x": Span(-1, 1.5), "c": Span(-5, 6), "t": Span(-5, 6), "f": Span(0, 7),
            "m": Span(-3, 4), "g": Span(-2, 2)}  # fmt: skip
SPOILT = {
    "zero": ("_rounded", lambda real: lambda tape, x, found: real(
        tape, x, replace(found, zero=found.zero + 9))),
    "scale": ("_rounded", lambda real: lambda tape, x, found: real(
        tape, x, replace(found, scale=0.1))),
    "weight": ("_weight", lambda real: lambda self, tape, weight: tape.Mul(
        real(self, tape, weight), tape.const(np.float32(1.01)))),
    "bias": ("bias", lambda real: lambda self, tape, *given: tape.Neg(real(self, tape, *given))),
}  # fmt: skip
"""Ways to write a wrong result."""


@pytest.mark.parametrize("spoilt", ["", *SPOILT])
def test_a_wrong_part_is_found(monkeypatch, spoilt):
    """Of what a result is made of, and what it is held against is not."""
    monkeypatch.setattr(quantize_static_pass, "spans", lambda *_: MEASURED)
    if spoilt:
        name, wrong = SPOILT[spoilt]
        home = in_qdq if name == "_rounded" else in_qdq.RoundedProducts
        monkeypatch.setattr(home, name, wrong(getattr(home, name)))
    (made,) = parse("quantize-static{calibrate=random at-least=1}")
    result, likewise = (ir.serde.from_proto(places()) for _ in range(2))
    made.run(result)
    made.round_likewise(likewise, set())
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    found, wanted = (ran(ir.to_proto(each), {"x": x}) for each in (result, likewise))
    assert np.array_equal(found, wanted) == (not spoilt)


def test_onnxruntime_fuses_all_of_it_to_integers(monkeypatch, tmp_path):
    monkeypatch.setattr(quantize_static_pass, "spans", lambda *_: MEASURED)
    model = places()
    report = Pipeline("quantize-static{calibrate=random at-least=1}").run(model)
    held = {value.name for value in report.model.graph.initializers.values()}
    assert not held & {"k", "kb", "u", "ub", "v", "vb"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    session = onnxruntime.InferenceSession(report.proto().SerializeToString(), options)
    made = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert made.count("QLinearConv") == 1
    assert made.count("QGemm") == 2
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    wanted, found = ran(report.proto(), {"x": x}), session.run(None, {"x": x})[0]
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)


def test_outputs_are_rounded_where_the_target_wants_that(monkeypatch):
    monkeypatch.setattr(quantize_static_pass, "spans", lambda *_: MEASURED)
    (made,) = parse("quantize-static{calibrate=random at-least=1 target=qnn}")
    result, likewise = (ir.serde.from_proto(places()) for _ in range(2))
    made.run(result)
    made.round_likewise(likewise, set())
    for node in (each for each in result.graph if each.op_type in ("Conv", "MatMul", "Gemm")):
        assert {each.producer().op_type for each in node.inputs} == {"DequantizeLinear"}
        assert [use.node.op_type for use in node.outputs[0].uses()] == ["QuantizeLinear"]
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    assert np.array_equal(*(ran(ir.to_proto(each), {"x": x}) for each in (result, likewise)))


def test_a_bias_that_32_bits_do_not_hold_stays(monkeypatch):
    monkeypatch.setattr(quantize_static_pass, "spans", lambda *_: MEASURED)
    model = places()
    for tensor in model.graph.initializer:
        if tensor.name == "v":
            tensor.CopyFrom(numpy_helper.from_array(np.full((40, 32), 1e-9, np.float32), "v"))
    report = Pipeline("quantize-static{calibrate=random at-least=1}").run(model)
    assert "vb" in report.model.graph.initializers
    assert "ub" not in report.model.graph.initializers


def test_what_stays_and_why(tmp_path):
    text = """g (float[n,32] x, bool c) => (float[n,32] y) {
        [first] a = MatMul(x, u)  [last] b = Gemm(a, v)
        d = If (c) <
            then_branch = t () => (float[n,32] p) { p = MatMul(b, w) },
            else_branch = e () => (float[n,32] q) { q = Neg(b) }
        >
        y = MatMul(d, k) }"""
    model = onnx.parser.parse_model(HEAD + text)
    for name in "uvwk":
        model.graph.initializer.append(weight(np.random.default_rng(0), name, 32, 32))
    np.savez(tmp_path / "one.npz", x=np.ones((2, 32), np.float32), c=np.array(True))
    words = f'quantize-static{{calibrate="{tmp_path / "one.npz"}" exclude=[first Gemm Nothing]}}'
    report = Pipeline(words).run(model)
    assert [node.op_type for node in report.model.graph].count("QuantizeLinear") == 1
    (note,) = (each for each in report.notes if "products of" in each)
    assert note.endswith("1 products of 1 weights are between QuantizeLinear and DequantizeLinear "
                         "now; 2 stay, excluded; 1 stay, in a function, branch or loop, where "
                         "nothing is measured")  # fmt: skip
    assert any("no node is named like 'Nothing'" in each for each in report.notes)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": np.ones((2, 40), np.float32)}, "lacks x and has z, which the model does not take"),
        ({"x": np.ones((2, 41), np.float32)}, "'x' is of shape [2, 41], and the model takes"),
        ({"x": np.ones(40, np.float32)}, "'x' is of shape [40], and the model takes"),
        ({"x": np.full((2, 40), np.nan, np.float32)}, "value 'x' is not finite"),
        ({"x": np.ones((0, 40), np.float32)}, "value x: has no elements"),
        (None, "no .npz file is in the folder"),
        (b"no archive", "is no .npz file; numpy.savez writes one"),
    ],
)
def test_inputs_that_are_none_are_refused(tmp_path, arrays, says):
    model = onnx.parser.parse_model(
        HEAD + "g (float[n,40] x) => (float[n,40] y) { y = MatMul(x, w) }"
    )
    model.graph.initializer.append(weight(np.random.default_rng(0), "w", 40, 40))
    if isinstance(arrays, bytes):
        (tmp_path / "a.npz").write_bytes(arrays)
    elif arrays is not None:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(VlmpassError) as raised:
        Pipeline(f'quantize-static{{calibrate="{tmp_path}"}}').run(model)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "calibrate"),
        ("calibrate=random at-least=0", "has an element at least"),
        ("calibrate=random exclude=['(']", "exclude"),
        ("calibrate=random percentile=40.0", "give 50 < percentile <= 100"),
        ("calibrate=random target=iree", "nothing is known of products of rounded numbers on iree"),
        ("calibrate=random at-least=1", "from opset 13 on; put convert-opset{to=13} before it"),
        ("calibrate=nowhere.npz at-least=1", "from opset 13 on"),
    ],
)
def test_what_cannot_be_is_refused(words, says):
    with pytest.raises(VlmpassError) as raised:
        Pipeline(f"quantize-static{{{words}}}").run(chain(0, 12, "float"))
    assert says in str(raised.value)


def test_inputs_that_are_missing_are_named():
    with pytest.raises(VlmpassError, match=r"there is no file of inputs 'nowhere\.npz'"):
        Pipeline("quantize-static{calibrate=nowhere.npz at-least=1}").run(chain(0, 13, "float"))


def slow_divergence(counts: np.ndarray, bins: int) -> float:
    """The entropy that 128 levels lose, written down bin by bin."""
    wanted = [float(each) for each in counts[:bins]]
    wanted[-1] += float(counts[bins:].sum())
    even = [0.0] * bins
    for level in range(128):
        part = range(level * bins // 128, (level + 1) * bins // 128)
        filled = [at for at in part if counts[at]]
        whole = sum(float(counts[at]) for at in part)
        for at in filled:
            even[at] = whole / len(filled)
    if any(w and not e for w, e in zip(wanted, even, strict=True)):
        return float("inf")
    whole, total = sum(wanted), sum(even)
    return sum(w / whole * np.log(w / whole / (e / total))
               for w, e in zip(wanted, even, strict=True) if w)  # fmt: skip


def test_spans_of_most_of_a_value_and_in_segments(monkeypatch):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n,m] x) => (float[n,m] y) <float one = {1}, float two = {2}> {
            a = Neg(x)  b = Add(a, one)  y = Mul(b, two) }"""
    model = ir.serde.from_proto(onnx.parser.parse_model(text))
    dice = np.random.default_rng(0)
    feeds = [{"x": dice.standard_normal((n, 500)).astype(np.float32)} for n in (4, 40)]
    feeds[1]["x"][0, 0] = -50
    values = np.concatenate([2 * (1 - each["x"].astype(np.float64)).ravel() for each in feeds])
    whole = spans(model, ["y", "none"], feeds)
    assert whole == {"y": Span(pytest.approx(values.min(), rel=1e-6), pytest.approx(102))}
    assert spans(model, ["x", "y"], feeds, budget=4)["y"] == whole["y"]
    monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", Here)
    most = spans(model, ["y"], feeds, "percentile", 99.0)["y"]
    step = (values.max() - values.min()) / 2048
    assert most.low == pytest.approx(np.quantile(values, 0.005), abs=1.01 * step)
    assert most.high == pytest.approx(np.quantile(values, 0.995), abs=1.01 * step)
    telling = spans(model, ["y"], feeds, "entropy")["y"]
    counts = np.histogram(np.abs(values), 2048, (0, 102))[0]
    counts[0] = min(counts[:2])
    lost = {bins: slow_divergence(counts, bins) for bins in range(128, 2049, 16)}
    best = min(lost, key=lost.__getitem__)
    assert best < 600
    assert telling == Span(pytest.approx(values.min(), rel=1e-5), pytest.approx(102 * best / 2048))
