"""A model run piece by piece computes and measures what it does in one piece, in bounded memory."""

import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from run_models import EXPORTS, mlp, text_model

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import RunError, Runner, compare, generate_inputs, verify
from vlmpass.ir_tools.run import participants as sides
from vlmpass.ir_tools.run.ranges import magnitudes
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.segments import segments
from vlmpass.ir_tools.system.progress import PROGRESS, telling

WHOLE = 1 << 40
DECODER = "decoder.float32.ts17.onnx"


def fraction(model, parts):
    """A budget that cuts a model into about that many segments."""
    return max(sum(slot.tensor.nbytes for slot in tensor_slots(model)) // parts, 1)


@pytest.mark.parametrize(
    "name", [DECODER, "vision.float32.dyn18.onnx", "quant_mod.float16.ts17.onnx"]
)
def test_segments_give_the_same_outputs(name):
    model = load(EXPORTS / name)
    feed = generate_inputs(model)
    with Runner(model) as whole, SegmentRunner(model, budget=fraction(model, 3)) as pieces:
        assert len(pieces.segments) >= 3
        expected, actual = whole.run(feed), pieces.run(feed)
        assert list(actual) == list(expected)
        for found in compare(expected, actual):
            # float16 is rounded at borders, where ONNX Runtime's CPU else computes in float32.
            assert found.ok
            assert found.max_abs == 0 or "float16" in name
        assert pieces.peak_rss > 0


def test_segments_measure_the_same_ranges_inside_and_at_their_borders():
    model = load(EXPORTS / DECODER)
    feeds = [generate_inputs(model, seed=seed) for seed in range(2)]
    whole = magnitudes(model, feeds, budget=WHOLE)
    budget = fraction(model, 4)
    pieces = magnitudes(model, feeds, budget=budget)
    assert len(segments(model, WHOLE)) == 1
    assert len(segments(model, budget)) >= 4
    assert pieces == whole
    assert list(pieces) == list(whole)  # in graph order
    borders = {v.name for each in segments(model, budget) for v in each.outputs}
    assert borders & set(whole)
    assert set(whole) - borders
    past = next(v.name for v in model.graph.inputs if v.name in whole)
    assert whole[past] == max(np.abs(feed[past]).max() for feed in feeds)


def test_segments_hold_no_more_than_the_budget():
    model = load(EXPORTS / DECODER)
    most = max(v.const_value.nbytes for v in model.graph.initializers.values())
    for budget in (most, 3 * most):
        cut = segments(model, budget)
        assert all(each.nbytes <= budget for each in cut)
        together = [node for each in cut for node in each.nodes if node.op_type != "Constant"]
        assert together == [node for node in model.graph if node.op_type != "Constant"]
    alone = segments(model, 1)
    assert max(each.nbytes for each in alone) == most  # one node's weights cannot be divided


def test_segments_of_many_nodes_are_cut_without_weights():
    steps = "".join(f"v{i + 1} = Neg(v{i})\n" for i in range(1200))
    model = text_model(f"g (float[2] v0) => (float[2] y) {{ {steps} y = Neg(v1200) }}")
    assert len(segments(model)) == 3
    x = np.float32([1, -2])
    with SegmentRunner(model) as runner:
        np.testing.assert_array_equal(runner.run({"v0": x})["y"], -x)


def test_segments_repeat_what_only_converts_weights():
    model = mlp(ir.DataType.FLOAT16)
    wide = text_model(
        """g (float[n, 4] x, float16[4, 4] w, float16[4, 4] z) => (float[n, 4] y) {
            a = Cast<to=1>(w) i = Identity(z) b = Cast<to=1>(i) two = Constant<value_float=2.0>()
            c = MatMul(x, a) d = Mul(c, two) e = MatMul(d, b) y = Mul(e, two) }"""
    )
    for name in "wz":
        value = next(v for v in wide.graph.inputs if v.name == name)
        wide.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.eye(4, dtype=np.float16), name=name)
        wide.graph.register_initializer(value)
    cut = segments(wide, 33)
    assert [sorted(node.op_type for node in each.nodes) for each in cut] == [
        ["Cast", "Constant", "MatMul", "Mul"],
        ["Cast", "Constant", "Identity", "MatMul", "Mul"],
    ]
    assert [[v.name for v in each.inputs] for each in cut] == [["x"], ["d"]]
    x = np.float32([[1, 2, 3, 4]])
    with SegmentRunner(wide, budget=33) as runner:
        np.testing.assert_array_equal(runner.run({"x": x})["y"], 4 * x)
    assert len(segments(model)) == 1


def test_segments_pass_sequences_subgraph_values_defaults_and_what_is_not_computed():
    model = text_model(
        """g (float[2] x, bool c, float[2] d) => (float[2] y, float[2] x, float[2] k, q)
        <float[2] d = {5, 6}, float[2] k = {7, 8}, float[2] two = {2, 2}> {
            a = Mul(x, two)
            s = SequenceConstruct(a, x)
            dead = Neg(a)
            b = If (c) <then_branch = t () => (float[2] u) { u = Add(a, two) },
                        else_branch = e () => (float[2] v) { v = Identity(x) }>
            zero = Constant<value_int=0>()
            f = SequenceAt(s, zero)
            h = Add(b, f)
            y = Add(h, d)
            q = Constant<value_ints=[1, 2]>() }"""
    )
    x = np.float32([1, 2])
    with SegmentRunner(model, budget=1) as runner:
        assert len(runner.segments) > 4
        first, second = runner.run_all(
            [{"x": x, "c": np.array(True)}, {"x": x, "c": np.array(False), "d": np.float32([0, 0])}]
        )
        np.testing.assert_array_equal(first["y"], [4 + 2 + 5, 6 + 4 + 6])
        np.testing.assert_array_equal(second["y"], [1 + 2, 2 + 4])
        np.testing.assert_array_equal(first["x"], x)
        np.testing.assert_array_equal(first["k"], [7, 8])
        np.testing.assert_array_equal(first["q"], [1, 2])


def test_segments_do_not_cut_through_values_of_unknown_type():
    model = text_model(
        "g (float[2] x) => (float[2] y) { a = com.microsoft.Odd(x) b = Neg(x) y = Add(a, b) }"
    )
    assert len(segments(model, 0)) == 1


def test_segments_refuse_what_cannot_run():
    model = text_model("g (float[2] x) => (float[2] y) { a = Neg(x) y = Neg(a) }")
    first, second = model.graph
    model.graph.remove(first)
    model.graph.append(first)
    with pytest.raises(VerifyError, match="topological-sort"):
        segments(model)
    del second
    odd = text_model("g (float[2] x) => (float[2] y) { y = com.microsoft.Odd(x) }")
    with pytest.raises(RunError, match="Odd"), SegmentRunner(odd) as runner:
        runner.run({"x": np.float32([1, 2])})
    with pytest.raises(RunError, match="x"), SegmentRunner(mlp(ir.DataType.FLOAT)) as runner:
        runner.run({})


def test_segments_see_every_side_of_the_inputs_that_a_whole_model_does(monkeypatch):
    model = load(EXPORTS / DECODER)
    whole = verify(model, model)
    loads = []
    opened = Runner.__init__
    monkeypatch.setattr(
        Runner, "__init__", lambda self, *a, **k: (loads.append(1), opened(self, *a, **k))[1]
    )
    monkeypatch.setattr(sides, "ONE_SESSION", 1000)
    pieces = verify(model, model)
    assert pieces.trials == whole.trials
    assert {each.hard for each in pieces.trials} == {"", "an empty cache", "padding at the end"}
    assert len(loads) == 3  # the reference twice, what is judged once


def test_segments_end_a_set_of_inputs_that_is_refused_and_go_on_with_the_others():
    model = text_model(
        "g (float[n] x, float[m] z) => (float[k] y) { a = Neg(x) b = Add(a, z) y = Neg(b) }"
    )
    ones = [np.ones(size, np.float32) for size in (1, 2, 3)]
    feeds = [
        {"x": ones[1], "z": ones[1]},
        {"x": ones[1], "z": ones[2]},
        {"x": ones[2], "z": ones[0]},
    ]
    with SegmentRunner(model, budget=1) as runner:
        first, second, third = runner.try_each(feeds)
        assert isinstance(second, RunError)
        assert (first["y"].tolist(), third["y"].tolist()) == ([0, 0], [0, 0, 0])
        with pytest.raises(RunError):
            runner.run_all(feeds)


def test_segments_compare_models_that_one_session_does_not_take(monkeypatch):
    monkeypatch.setattr(sides, "ONE_SESSION", 1000)
    good, other = mlp(ir.DataType.FLOAT), mlp(ir.DataType.FLOAT, scale=1.1)
    found = verify(good, mlp(ir.DataType.FLOAT))
    assert found.ok
    assert found.max_rel == 0
    assert found.actual_ran == "ONNX Runtime, in segments"
    assert not verify(good, other).ok
    brain = verify(mlp(ir.DataType.BFLOAT16), good)
    assert brain.ok
    assert brain.expected_ran == "ONNX Runtime, bfloat16 computed in float32, in segments"
    odd = text_model("g (float[n, 16] x) => (float[n, 8] y) { y = com.microsoft.Odd(x) }")
    odd.graph.register_initializer(
        ir.Value(name="w", const_value=ir.tensor(np.zeros(500, np.float32), name="w"))
    )
    assert any("Odd" in finding for finding in verify(good, odd).findings)
    with pytest.raises(VerifyError, match="Odd"):
        verify(odd, good)


CALIBRATION = """
import sys
from pathlib import Path
import numpy as np
import onnx_ir as ir
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.system.memory import peak_rss
from vlmpass.ir_tools.run.ranges import magnitudes
from vlmpass.ir_tools.run.segment_runner import SegmentRunner, Runner
folder, side, count = Path(sys.argv[1]), 2048, 24  # 24 matrices of 16 MiB
row = np.random.default_rng(0).standard_normal(side).astype(np.float32) / 45
kind = ir.TensorType(ir.DataType.FLOAT)
values = [ir.Value(name="x", shape=ir.Shape([1, side]), type=kind)]
nodes, weights = [], []
with (folder / "w.bin").open("wb") as file:
    for index in range(count):
        for shift in range(side):
            file.write(np.roll(row, shift * (index + 1)).tobytes())
        tensor = ir.ExternalTensor("w.bin", index * side * side * 4, side * side * 4,
            ir.DataType.FLOAT, shape=ir.Shape([side, side]), name=f"w{index}",
            base_dir=str(folder))
        weights.append(ir.Value(name=f"w{index}", const_value=tensor, shape=tensor.shape,
            type=ir.TensorType(tensor.dtype)))
        nodes.append(ir.node("MatMul", [values[-1], weights[-1]]))
        nodes[-1].outputs[0].name = f"h{index}"
        nodes[-1].outputs[0].dtype = ir.DataType.FLOAT
        values.append(nodes[-1].outputs[0])
graph = ir.Graph(values[:1], values[-1:], nodes=nodes, initializers=weights,
    opset_imports={"": 17})
ir.save(ir.Model(graph, ir_version=8), folder / "m.onnx")
model = load(folder / "m.onnx")
feed = {"x": np.ones((1, side), np.float32)}
before, children = peak_rss(), []
close = Runner.stop
Runner.stop = lambda self: (children.append(self.peak_rss), close(self))
pieces = magnitudes(model, [feed], budget=64_000_000)
child = max(children)
assert len(children) > 7
grown = peak_rss() - before
children.clear()
whole = magnitudes(model, [feed], budget=1 << 40)
assert pieces == whole
print(grown, child, max(children))
"""


@pytest.mark.slow
def test_segments_bound_the_memory_of_calibration(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CALIBRATION, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown, child, whole = map(int, done.stdout.split())
    assert grown < 60_000_000
    assert child < 350_000_000  # a Python with ONNX Runtime, and twice the budget at most
    assert whole > child + 200_000_000  # the bound means something: all weights are 400 MB


def test_no_cut_is_between_nodes_that_the_runtime_makes_one_of():
    model = load(EXPORTS / "text.float32.ts14.onnx")
    cut = segments(model, 1)
    joined = {
        value
        for node in model.graph
        if node.op_type == "MatMul"
        for value in node.outputs
        for use in value.uses()
        if use.node.op_type == "Add" and any(each.is_initializer() for each in use.node.inputs)
    }
    assert joined
    assert not joined & {value for each in cut for value in each.inputs}
    assert len(cut) > 10


def test_how_far_a_run_has_come_is_told():
    model, told = load(EXPORTS / DECODER), []
    pieces = SegmentRunner(model, budget=fraction(model, 3))
    with telling(lambda *each: told.append(each)), pieces:
        pieces.run(generate_inputs(model))
    count = len(pieces.segments)
    assert told == [(each, count) for each in range(1, count + 1)]
    assert PROGRESS.get() is None
