"""Random Loops and Scans whose bodies run a known number of times, written out: the same numbers.

python -m tests.passes.looped --count 1000 [--seed N]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vlmpass.ir_tools.check import check
from vlmpass.passes.control.unroll_loops import UnrollLoops
from vlmpass.passes.infer import Infer

ROWS, WIDTH = 3, 2
_F, _I, _B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
_KINDS = ["Add", "Mul", "Sub", "Max"]


class _Bodies:
    """Draws bodies, nested ones among them."""

    def __init__(self, rng: np.random.Generator, opset: int) -> None:
        self.rng = rng
        self.opset = opset
        self.count = 0

    def name(self) -> str:
        self.count += 1
        reused = self.rng.random() < 0.3  # bodies may use each other's names
        return f"w{self.count % 4}_{self.count}" if not reused else f"u{self.count}"

    def steps(self, known: list[str], depth: int) -> list[onnx.NodeProto]:
        """Return nodes over values of ROWS x WIDTH, whose results are added to what is known."""
        nodes = []
        for _ in range(int(self.rng.integers(1, 4))):
            pair = [known[int(self.rng.integers(0, len(known)))] for _ in "ab"]
            kind, made = self.rng.random(), self.name()
            if kind < 0.15 and depth < 2:
                nodes += self.loop(pair[0], made, known, depth + 1)
            elif kind < 0.25:
                nodes.append(self.branch(pair, made))
            else:
                nodes.append(helper.make_node(str(self.rng.choice(_KINDS)), pair, [made]))
            known.append(made)
        return nodes

    def branch(self, pair: list[str], made: str) -> onnx.NodeProto:
        graphs = [self._one(operator, pair) for operator in ("Add", "Max")]
        given = {"then_branch": graphs[0], "else_branch": graphs[1]}
        return helper.make_node("If", ["decision"], [made], **given)

    def _one(self, operator: str, pair: list[str]) -> onnx.GraphProto:
        made = self.name()
        node = helper.make_node(operator, pair, [made])
        return helper.make_graph([node], "b", [], [_value(made, _F, [ROWS, WIDTH])])

    def loop(self, start: str, made: str, known: list[str], depth: int) -> list[onnx.NodeProto]:
        """Return a Loop over one state that gathers another value, and what joins the two."""
        number, goes, state, turn = (self.name() for _ in range(4))
        last, gathered, total = self.name(), self.name(), self.name()
        inner = [*known, state, turn]
        counted = self.name()
        body = [
            helper.make_node("Cast", [number], [counted], to=_F),
            helper.make_node("Add", [counted, "x"], [turn]),
            *self.steps(inner, depth),
        ]
        stays = goes if self.rng.random() < 0.5 else self.name()
        if stays != goes:
            body.append(helper.make_node("Identity", [goes], [stays]))
        given = self.name()
        body.append(helper.make_node("Add", [inner[-1], state], [given]))
        outputs = [_value(stays, _B, []), _value(given, _F, [ROWS, WIDTH])]
        kept = inner[-1] if self.rng.random() < 0.8 else state
        outputs.append(_value(kept, _F, None))
        inputs = [_value(number, _I, []), _value(goes, _B, []), _value(state, _F, [ROWS, WIDTH])]
        graph = helper.make_graph(body, "body", inputs, outputs)
        times = self.name()
        most = numpy_helper.from_array(np.array(int(self.rng.integers(0, 5)), np.int64))
        condition = "" if self.rng.random() < 0.5 else "yes"
        return [
            helper.make_node("Constant", [], [times], value=most),
            helper.make_node("Loop", [times, condition, start], [last, gathered], body=graph),
            self._summed(gathered, total),
            helper.make_node("Add", [last, total], [made]),
        ]

    def _summed(self, x: str, made: str) -> onnx.NodeProto:
        if self.opset < 13:
            return helper.make_node("ReduceSum", [x], [made], axes=[0], keepdims=0)
        return helper.make_node("ReduceSum", [x, "first"], [made], keepdims=0)

    def scan(self, start: str, made: str) -> list[onnx.NodeProto]:
        """Return a Scan along an axis of s, in any direction, and what joins its results."""
        axis, back = int(self.rng.integers(0, 2)), int(self.rng.integers(0, 2))
        out, turned = int(self.rng.integers(0, 3)), int(self.rng.integers(0, 2))
        state, part, given, kept = (self.name() for _ in range(4))
        known = [state, part]
        body = self.steps(known, 2)
        body.append(helper.make_node("Add", [known[-1], state], [given]))
        body.append(helper.make_node("Mul", [known[-1], part], [kept]))
        inputs = [_value(state, _F, [ROWS, WIDTH]), _value(part, _F, [ROWS, WIDTH])]
        outputs = [_value(given, _F, [ROWS, WIDTH]), _value(kept, _F, [ROWS, WIDTH])]
        last, gathered = self.name(), self.name()
        sources = {0: "s", 1: "t"}
        scan = helper.make_node(
            "Scan", [start, sources[axis]], [last, gathered], num_scan_inputs=1,
            scan_input_axes=[axis], scan_input_directions=[back], scan_output_axes=[out],
            scan_output_directions=[turned], body=helper.make_graph(body, "b", inputs, outputs),
        )  # fmt: skip
        total, weights, weighed = self.name(), self.name(), self.name()
        shape = [1, 1, 1]
        shape[out] = 4
        tensor = np.arange(1, 5, dtype=np.float32).reshape(shape)
        held = numpy_helper.from_array(tensor)
        nodes = [scan, helper.make_node("Constant", [], [weights], value=held)]
        nodes.append(helper.make_node("Mul", [gathered, weights], [weighed]))
        axes = {"axes": [out]} if self.opset < 13 else {}
        names = [weighed] if self.opset < 13 else [weighed, f"axis{out}"]
        nodes.append(helper.make_node("ReduceSum", names, [total], keepdims=0, **axes))
        return [*nodes, helper.make_node("Add", [last, total], [made])]


def _value(name: str, kind: int, shape: list[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def drawn(seed: int) -> onnx.ModelProto:
    """Return a random model with Loops or a Scan."""
    rng = np.random.default_rng(seed)
    opset = int(rng.choice([11, 13, 18]))
    bodies = _Bodies(rng, opset)
    scans = rng.random() < 0.35
    nodes = bodies.scan("x", "y") if scans else bodies.loop("x", "y", ["x", "z"], 0)
    tensors = [numpy_helper.from_array(np.array(True), "yes")]
    tensors += [numpy_helper.from_array(np.array([0], np.int64), "first")]
    tensors += [
        numpy_helper.from_array(np.array([axis], np.int64), f"axis{axis}") for axis in range(3)
    ]
    sizes = {"x": [ROWS, WIDTH], "z": [ROWS, WIDTH], "s": [4, ROWS, WIDTH], "t": [ROWS, 4, WIDTH]}
    inputs = [_value(name, _F, shape) for name, shape in sizes.items()]
    inputs.append(_value("decision", _B, []))
    graph = helper.make_graph(nodes, "g", inputs, [_value("y", _F, [ROWS, WIDTH])], tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


def _run(model: onnx.ModelProto, seed: int) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    rng = np.random.default_rng(seed)
    feeds = {
        each.name: rng.integers(-3, 4, each.shape).astype(np.float32)
        if each.name != "decision"
        else np.array(bool(seed % 2))
        for each in session.get_inputs()
    }
    return session.run(None, feeds)[0]


def judged(seed: int) -> str:
    """Return what becomes of a random model."""
    source = drawn(seed)
    try:
        expected = _run(source, seed)
    except Exception:  # noqa: BLE001 - a source that does not run says nothing
        return "does not run"
    model = ir.from_proto(onnx.ModelProto.FromString(source.SerializeToString()))
    Infer().run(model)
    if not UnrollLoops().run(model):
        return "left"
    check(model)
    Infer().run(model)
    if UnrollLoops().run(model):
        return "changes again"
    if any(node.op_type in ("Loop", "Scan") for node in model.graph.all_nodes()):
        kept = "some stay"
    else:
        kept = "equal"
    made = _run(ir.to_proto(model), seed)
    return kept if made.shape == expected.shape and (made == expected).all() else "WRONG"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kinds: Counter[str] = Counter()
    for seed in range(asked.seed, asked.seed + asked.count):
        kind = judged(seed)
        kinds[kind] += 1
        if kind in ("WRONG", "changes again"):
            print(seed, kind, flush=True)
    print(dict(kinds))
    return int(bool(set(kinds) & {"WRONG", "changes again"}))


if __name__ == "__main__":
    sys.exit(main())
