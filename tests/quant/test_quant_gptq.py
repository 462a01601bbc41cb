"""algorithm=gptq: what the paper says, never further off than the nearest, and what comes of it."""

from __future__ import annotations

import gc
import logging
import os
import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from quant_chains import Here, chain, weight
from quant_tools import run

from vlmpass.ir_tools.errors import VerifyError, VlmpassError
from vlmpass.ir_tools.run.input_squares import input_squares
from vlmpass.ir_tools.weights.boxes import extent
from vlmpass.ir_tools.weights.evaluate import evaluate
from vlmpass.ir_tools.weights.leaves import Held
from vlmpass.passes.pipeline.text import parse
from vlmpass.pipeline import Pipeline
from vlmpass.rewriter_rules.quant import solved as solved_module
from vlmpass.rewriter_rules.quant.few_bits import Grid, Rounded
from vlmpass.rewriter_rules.quant.gptq import Squares, solutions
from vlmpass.rewriter_rules.quant.solved import Home, Solved

GPTQ = "algorithm=gptq calibrate=random at-least=1"
HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def of_the_paper(weight, squares, damping, scales, zeros, block, ends):
    """Numbers [inputs, outputs] by the paper's definition, in doubles.

    One input after the other, the inverse of what is left by elimination, as OBQ has it: no
    Cholesky factor, no blocks of inputs.
    """
    squares = squares.astype(np.float64).copy()
    order = np.argsort(-np.diag(squares), kind="stable")
    unseen, sizes = np.diag(squares) == 0, np.diag(squares)
    mean = np.mean(sizes[~unseen]) if not unseen.all() else 1
    squares[unseen, unseen] = mean
    inverse = np.linalg.inv(squares + damping * mean * np.eye(len(squares)))
    left, numbers = weight.astype(np.float64).copy(), np.zeros(weight.shape)
    for at in order:
        scale, zero = scales[at // block], zeros[at // block]
        numbers[at] = np.clip(np.rint(left[at] / scale) + zero, *ends)
        error = (left[at] - (numbers[at] - zero) * scale) / inverse[at, at]
        left -= np.outer(inverse[:, at], error)
        inverse -= np.outer(inverse[:, at], inverse[at]) / inverse[at, at]
        left[at] = weight[at]
    return numbers


def case(seed: int):
    """A weight, the inputs of its product, and how it is rounded."""
    dice, choose = np.random.default_rng(seed), random.Random(seed)
    inputs, outputs = choose.choice([1, 33, 96, 140]), choose.choice([1, 24, 70])
    mixed = dice.standard_normal((choose.choice([4, 40, inputs]), inputs)) * dice.gamma(
        1, 1, inputs
    )
    x = dice.standard_normal((300, len(mixed))) @ mixed + 0.1 * dice.standard_normal((300, inputs))
    if choose.random() < 0.3:
        x[:, choose.randrange(inputs)] = 0
    array = dice.standard_normal((inputs, outputs)) * dice.gamma(1, 1, (inputs, 1))
    axis, bits, symmetric = choose.choice([0, 1]), choose.choice([2, 4, 8]), choose.random() < 0.5
    block = choose.choice([16, 32, 20, inputs])
    mirrored = symmetric and choose.random() < 0.5
    search = bits < 8 and (mirrored or choose.random() < 0.5)
    grid = Grid(bits, axis, block, symmetric, search, ir.DataType.FLOAT, mirrored and search)
    array = array.astype(np.float32)
    return (array if axis == 0 else np.ascontiguousarray(array.T)), x, grid


def lost(array: np.ndarray, found: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    """The squares of errors of each output."""
    off = found.astype(np.float64) - array
    return np.square(x @ (off if axis == 0 else off.T)).sum(0)


@pytest.mark.parametrize("seed", range(16))
def test_it_is_the_paper_and_never_further_off_than_the_nearest(seed):
    array, x, grid = case(seed)
    source, squares = Held.of(ir.Tensor(array)), Squares.of(x.T @ x, 0.01)
    made = Solved.of(grid, array.shape, solutions(source, grid, squares), Home())
    found = evaluate(made.rounded(ir.DataType.FLOAT))
    nearest = evaluate(Rounded(ir.DataType.FLOAT, array.shape, source, grid))
    ours, theirs = (lost(array, each, x, grid.axis) for each in (found, nearest))
    assert (ours <= theirs * (1 + 1e-6)).all()

    turned = array if grid.axis == 0 else array.T
    scales, zeros = (evaluate(each).astype(np.float64) for each in made.stored[1:])
    ends = (1 if grid.symmetric and grid.bits == 8 else 0, (1 << grid.bits) - 1)
    numbers = of_the_paper(turned, x.T @ x, 0.01, scales.T, zeros.T, grid.block, ends)
    of = np.arange(len(turned)) // grid.block
    wanted = (numbers - zeros.T[of]) * scales.T[of]
    paper = lost(turned, wanted, x, 0)
    # A number half way between two goes either way, and others after it.
    size = np.square(x @ turned).sum()
    assert ours.sum() <= np.minimum(paper, theirs).sum() * 1.02 + 1e-10 * size
    whole = evaluate(made.numbers(ir.DataType.UINT8, 0))
    same = (whole if grid.axis == 0 else whole.T) == numbers
    assert same[:, (won := paper < theirs * (1 - 1e-3))].sum() >= 0.95 * same[:, won].size


@pytest.mark.parametrize("exponent", [-40, -9, 12])
@pytest.mark.parametrize("seed", range(4))
def test_the_unit_of_inputs_does_not_matter(seed, exponent):
    array, x, grid = case(seed)
    x[:, 0] = 0  # which is never seen, and says nothing of the others
    source = Held.of(ir.Tensor(array))
    one, two = (
        list(solutions(source, grid, Squares.of(squares, 0.01)))
        for squares in (x.T @ x, (x.T @ x) * 4.0**exponent)
    )
    for found, wanted in zip(one, two, strict=True):
        assert all(map(np.array_equal, found, wanted))


def test_too_little_damping_is_refused():
    x = np.random.default_rng(0).standard_normal((3, 64))
    with pytest.raises(VerifyError, match="give a larger damping, or more inputs"):
        Squares.of(x.T @ x, 1e-17)


@pytest.mark.parametrize("seed", range(6))
def test_any_part_of_what_was_found_is_that_part(seed):
    array, x, grid = case(seed)
    found = solutions(Held.of(ir.Tensor(array)), grid, Squares.of(x.T @ x, 0.01))
    made, dice = Solved.of(grid, array.shape, found, Home()), random.Random(seed)
    whole = made.rounded(ir.DataType.FLOAT)
    for _ in range(20):
        box = tuple(tuple(sorted(dice.sample(range(size + 1), 2))) for size in array.shape)
        part = whole.read(box)
        assert part.shape == extent(box)
        assert np.array_equal(part, evaluate(whole)[tuple(slice(*ends) for ends in box)])
    shifted = evaluate(made.numbers(ir.DataType.INT16, 1)).astype(int)
    assert np.array_equal(shifted, evaluate(made.numbers(ir.DataType.UINT8, 0)).astype(int) - 1)


def taken(monkeypatch, text: str, weights, feeds, wanted):
    monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", Here)
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(weights)
    found = {}
    input_squares(
        ir.serde.from_proto(model), wanted, feeds, lambda key, *rest: found.update({key: rest})
    )
    return found


def test_squares_are_those_of_all_that_products_take(monkeypatch):
    dice = np.random.default_rng(0)
    text = """g (float[n,2,40] x, float[40,m] t) => (float[n,2,8] y) {
        a = MatMul(x, u)  b = Relu(a)  c = MatMul(b, w)  d = Abs(b)  e = MatMul(d, w)
        y = Sub(c, e) }"""
    feeds = [
        {"x": dice.standard_normal((n, 2, 40)).astype(np.float32),
         "t": dice.standard_normal((40, n)).astype(np.float32)} for n in (3, 0, 7)
    ]  # fmt: skip
    u, w = weight(dice, "u", 40, 32), weight(dice, "w", 32, 8)
    wanted = {
        "u": [("x", False)], "w": [("b", False), ("d", False)], "t": [("t", True), ("x", False)]
    }  # fmt: skip
    found = taken(monkeypatch, text, [u, w], feeds, wanted)
    x = np.concatenate([each["x"].reshape(-1, 40) for each in feeds])
    t = np.concatenate([each["t"].T for each in feeds])
    b = np.maximum(x @ onnx.numpy_helper.to_array(u), 0)
    for name, rows in {"u": x, "w": np.concatenate([b, b]), "t": np.concatenate([t, x])}.items():
        squares, count = found[name]
        assert count == len(rows)
        np.testing.assert_allclose(squares, rows.T @ rows, rtol=1e-4, atol=1e-4)
    with pytest.raises(VerifyError, match="'x' is not finite on the inputs"):
        taken(monkeypatch, text, [u, w], [{**feeds[0], "x": feeds[0]["x"] * np.inf}], wanted)


def test_what_comes_out_computes_with_rounded_weights():
    words = f"quantize-weights{{bits=4 form=matmul-nbits symmetric=false {GPTQ}}}"
    model = chain(3, 17, "float")
    report = Pipeline(words).run(model, verify=True)
    assert report.checked.numbers.ok
    assert any("rounding the weights changes" in note for note in report.checked.numbers.notes)
    assert Pipeline(words).run(report.model).proto() == report.proto()


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize("words", ["bits=8", "bits=2 form=matmul-nbits", "bits=4 symmetric=false"])
def test_result_and_source_are_rounded_alike(monkeypatch, words, dtype):
    monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", Here)
    model = chain(8, 21, dtype)
    one, two, likewise = (ir.serde.from_proto(model) for _ in range(3))
    passes = parse(f"quantize-weights{{{words} {GPTQ}}}")
    for each in (one, two):
        assert passes[0].run(each)
    passes[0].round_likewise(likewise, set())
    # the same bytes, whoever measures
    assert ir.to_proto(one) == ir.to_proto(two)
    kind = np.float16 if dtype == "float16" else np.float32
    x = np.random.default_rng(1).standard_normal((5, one.graph.inputs[0].shape[1])).astype(kind)
    found, wanted = (run(each, {"v0": x})[0].astype(np.float64) for each in (one, likewise))
    allowed = 2e-2 if dtype == "float16" else 1e-5
    assert np.linalg.norm(found - wanted) <= allowed * np.linalg.norm(wanted) + 1e-6


def test_a_wrong_constant_is_found(monkeypatch):
    real = solved_module.Solved.scales
    monkeypatch.setattr(
        solved_module.Solved, "scales", lambda self: Held.of(ir.Tensor(evaluate(real(self)) * 2))
    )
    with pytest.raises(VlmpassError, match="does not compute what the source computes"):
        Pipeline(f"quantize-weights{{bits=4 {GPTQ}}}").run(chain(3, 21, "float"), verify=True)


def test_what_is_not_measured_is_rounded_to_the_nearest(monkeypatch, caplog):
    monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", Here)
    text = """<ir_version: 10, opset_import: ["" : 21, "of" : 1]>
    g (float[n,40] x) => (float[n,40] y) { a = MatMul(x, w)  y = of.Inside(a) }
    <domain: "of", opset_import: ["" : 21]> Inside (x) => (y) {
        w = Constant <value: tensor = float[40,40] {%s}> ()
        y = MatMul(x, w) }"""
    dice = np.random.default_rng(2)
    numbers = ", ".join(str(each) for each in dice.standard_normal(1600))
    model = onnx.parser.parse_model(text % numbers)
    model.graph.initializer.append(weight(dice, "w", 40, 40))
    made = ir.serde.from_proto(model)
    with caplog.at_level(logging.WARNING):
        parse(f"quantize-weights{{bits=4 {GPTQ}}}")[0].run(made)
    assert "1 to the nearest, whose inputs are not measured" in caplog.text
    assert "calibrate: 1 weights have more inputs than were measured" in caplog.text
    x = np.eye(40, dtype=np.float32)
    inner = next(iter(made.functions.values()))
    held = next(node for node in inner if node.op_type == "DequantizeLinear").inputs[1]
    assert held.producer().attributes["value"].as_tensor().shape == (2, 40)
    assert np.isfinite(run(made, {"x": x})[0]).all()


def test_files_last_as_long_as_the_model_and_are_never_referred_to(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmpass.ir_tools.run.spans.SegmentRunner", Here)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = f"quantize-weights{{bits=8 {GPTQ}}}"
    report = Pipeline(words).convert(chain(3, 21, "float"), tmp_path / "o.onnx", verify=False)
    del report
    gc.collect()
    held = onnx.load(tmp_path / "o.onnx", load_external_data=False)
    kept = {e.value for t in held.graph.initializer for e in t.external_data if e.key == "location"}
    assert not any("vlmpass-run" in each for each in kept)
    assert not [each for each in os.listdir(tmp_path) if each.startswith("vlmpass-run")]
    onnx.checker.check_model(onnx.load(tmp_path / "o.onnx"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("algorithm=gptq", "gptq needs inputs to measure with"),
        ("calibrate=random", "nearest measures nothing"),
        ("algorithm=gptq calibrate=random damping=0.0", "no share of what is there"),
    ],
)
def test_what_cannot_be_is_refused(words, says):
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    graph = helper.make_graph([], "g", [value], [value])
    with pytest.raises(VlmpassError, match=says):
        Pipeline(f"quantize-weights{{{words}}}").run(helper.make_model(graph))
