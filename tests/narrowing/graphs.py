"""Random arithmetic on int64, as int32 where that is proven: the same numbers, or left alone.

Constants are as large as int32 and larger, inputs are fed the ends of what they are said to hold,
so that a range which is too narrow shows as a number that wraps. As a script:

    python -m tests.narrowing.graphs --count 1000 [--seed N]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes import facts_of, visit_scope
from vlmpass.ir_tools.shapes.intervals import Intervals
from vlmpass.passes.dtype.narrow_integers import NarrowIntegers
from vlmpass.passes.infer import Infer

ROWS, COLUMNS = 3, 4
MOST = 1000
_BINARY = ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"]
_BINARY += ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]
_UNARY = ["Neg", "Abs", "Sign", "Relu", "Identity", "BitwiseNot"]
_COMPARED = ["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"]


@dataclass
class Drawing:
    """A graph that is being drawn.

    Attributes:
        rng: Where all is drawn from.
        nodes: The nodes so far.
        whole: Names of int64 values of ROWS x n.
        decisions: Names of bool values of that shape.
        floats: Names of float values of that shape.
        tensors: Constants.
        count: For names.
    """

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    whole: list[str] = field(default_factory=lambda: ["i"])
    decisions: list[str] = field(default_factory=list)
    floats: list[str] = field(default_factory=lambda: ["x"])
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def pick(self, names: list[str]) -> str:
        """Return a name, rather one of the last."""
        return names[-1 - min(int(self.rng.geometric(0.35)) - 1, len(names) - 1)]

    def add(self, operator: str, inputs: list[str], outputs: int = 1, **given: object) -> list[str]:
        made = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, made, name=self.name(), **given))
        return made

    def constant(self, array: np.ndarray) -> str:
        name = self.name()
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def number(self, *, zero: bool = True) -> int:
        """Return a number: a small one, one near a part of what int32 holds, or of any size."""
        kind = self.rng.random()
        if kind < 0.35:
            size = int(self.rng.integers(0, 9))
        elif kind < 0.75:
            size = 2**31 // int(self.rng.integers(1, 5)) + int(
                self.rng.choice([-MOST, -2, -1, 0, 1, 2])
            )
        else:
            size = int(2 ** self.rng.uniform(0, 33))
        number = size * int(self.rng.choice([-1, 1]))
        return number if zero or number else 1

    def numbers(self) -> str:
        """Return a constant that broadcasts, of one number or of one for each row."""
        count = int(self.rng.choice([1, ROWS]))
        array = np.array([self.number(zero=False) for _ in range(count)], np.int64)
        return self.constant(array.reshape(-1, 1) if count > 1 else array[0])

    def operand(self) -> str:
        return self.pick(self.whole) if self.rng.random() < 0.5 else self.numbers()


def _binary(d: Drawing) -> None:
    operator = str(d.rng.choice(_BINARY))
    divides = operator in ("Div", "Mod")
    pair = [d.pick(d.whole), d.numbers() if divides else d.operand()]
    if d.rng.random() < 0.3 and not divides:
        pair.reverse()
    given = {"fmod": 1} if operator == "Mod" and d.rng.random() < 0.4 else {}
    d.whole += d.add(operator, pair, **given)


def _unary(d: Drawing) -> None:
    d.whole += d.add(str(d.rng.choice(_UNARY)), [d.pick(d.whole)])


def _sum(d: Drawing) -> None:
    pair = [d.operand(), d.pick(d.whole)]
    d.whole += d.add(str(d.rng.choice(["Max", "Min"])), [*pair, d.operand()])


def _clip(d: Drawing) -> None:
    ends = [
        d.constant(np.array(d.number(), np.int64)) if d.rng.random() < 0.7 else "" for _ in "lh"
    ]
    d.whole += d.add("Clip", [d.pick(d.whole), *ends])


def _compare(d: Drawing) -> None:
    d.decisions += d.add(str(d.rng.choice(_COMPARED)), [d.pick(d.whole), d.operand()])


def _where(d: Drawing) -> None:
    d.whole += d.add("Where", [d.pick(d.decisions), d.operand(), d.pick(d.whole)])


def _count(d: Drawing) -> None:
    d.whole += d.add("Cast", [d.pick(d.decisions)], to=TensorProto.INT64)


def _float(d: Drawing) -> None:
    if d.rng.random() < 0.5:
        d.floats += d.add("Cast", [d.pick(d.whole)], to=TensorProto.FLOAT)
        return
    by = d.constant(np.array(2 ** d.rng.uniform(-4, 4) * d.rng.choice([-1, 1]), np.float32))
    made = d.add(str(d.rng.choice(["Mul", "Div", "Add", "Sub"])), [d.pick(d.floats), by])
    d.floats += d.add(str(d.rng.choice(["Floor", "Ceil", "Round"])), made)


def _from_float(d: Drawing) -> None:
    d.whole += d.add("Cast", [d.pick(d.floats)], to=TensorProto.INT64)


def _along(d: Drawing) -> None:
    kind = int(d.rng.integers(0, 4))
    axis = int(d.rng.integers(0, 2))
    at = d.constant(np.array(axis, np.int64))
    if kind == 0:
        flags = {name: int(d.rng.integers(0, 2)) for name in ("exclusive", "reverse")}
        d.whole += d.add("CumSum", [d.pick(d.whole), at], **flags)
    elif kind == 1:
        axes = d.constant(np.array([axis], np.int64))
        operator = str(d.rng.choice(["ReduceSum", "ReduceMax", "ReduceMin"]))
        made = d.add(operator, [d.pick(d.whole), axes])
        d.whole += d.add("Add", [made[0], d.add("Mul", [d.pick(d.whole), _zero(d)])[0]])
    elif kind == 2:
        d.whole += d.add("ArgMax", [d.pick(d.whole)], axis=axis)
        d.whole.insert(0, d.whole.pop())  # of another shape: seldom taken
        d.whole.append(d.add("Add", [d.whole[0], d.pick(d.whole)])[0])
        del d.whole[0]
    else:
        square = d.constant(np.array([[d.number() for _ in range(ROWS)]] * ROWS, np.int64))
        d.whole += d.add("MatMul", [square, d.pick(d.whole)])


def _zero(d: Drawing) -> str:
    return d.constant(np.array(0, np.int64))


def _moved(d: Drawing) -> None:
    kind, x = int(d.rng.integers(0, 5)), d.pick(d.whole)
    if kind == 0:
        both = d.add("Concat", [x, d.pick(d.whole)], axis=0)[0]
        rows = d.constant(d.rng.integers(0, 2 * ROWS, ROWS))
        d.whole += d.add("Gather", [both, rows], axis=0)
    elif kind == 1:
        ends = [np.array([each], np.int64) for each in (-ROWS, np.iinfo(np.int64).max, 0)]
        padded = d.add(
            "Pad",
            [x, d.constant(np.array([1, 0, 0, 0])), d.constant(np.array(d.number(), np.int64))],
        )
        start = d.constant(np.array([d.rng.integers(0, 2)], np.int64))
        cut = d.add("Slice", [padded[0], start, *(d.constant(each) for each in ends[1:])])
        rows = d.constant(np.arange(ROWS))
        d.whole += d.add("Gather", [cut[0], rows], axis=0)
    elif kind == 2:
        place = d.constant(np.array([[int(d.rng.integers(0, ROWS)), 0]], np.int64))
        update = d.constant(np.array([d.number()], np.int64))
        d.whole += d.add("ScatterND", [x, place, update])
    elif kind == 3:
        d.whole += d.add("Trilu", [x], upper=int(d.rng.integers(0, 2)))
    else:
        size = d.add("Shape", [x])[0]
        fill = numpy_helper.from_array(np.array([d.number()], np.int64))
        filled = d.add("ConstantOfShape", [size], value=fill)
        d.whole += d.add("Max", [*filled, x]) if d.rng.random() < 0.5 else filled


def _sized(d: Drawing) -> None:
    """A line of numbers as long as an axis, or its length."""
    x = d.pick(d.whole)
    one = d.constant(np.array(1, np.int64))
    length = d.add("Gather", [d.add("Shape", [x])[0], one], axis=0)[0]
    if d.rng.random() < 0.4:
        d.whole += d.add("Mul", [x, d.add("Mul", [length, d.numbers()])[0]])
        return
    step = d.number(zero=False)
    start = d.constant(np.array(d.number(), np.int64))
    span = d.add("Mul", [length, d.constant(np.array(step, np.int64))])[0]
    limit = d.add("Add", [start, span])[0]
    line = d.add("Range", [start, limit, d.constant(np.array(step, np.int64))])[0]
    d.whole += d.add("Add", [x, line]) if d.rng.random() < 0.3 else d.add("Max", [x, line])


STEPS: tuple[Callable[[Drawing], None], ...] = (
    _binary, _binary, _binary, _unary, _sum, _clip, _compare, _where, _count, _float, _from_float,
    _along, _along, _moved, _moved, _sized,
)  # fmt: skip


def drawn(seed: int) -> onnx.ModelProto:
    """Return a random model; its n is COLUMNS at most, and what is fed as i is MOST."""
    d = Drawing(np.random.default_rng(seed))
    zero = d.constant(np.array(0, np.float32))
    for _ in range(2):
        d.decisions += d.add(str(d.rng.choice(["Greater", "Less"])), ["x", zero])
        d.whole += d.add("Where", [d.decisions[-1], d.numbers(), d.numbers()])
    d.whole += d.add("Add", ["i", d.numbers()])
    for _ in range(int(d.rng.integers(2, 7))):
        STEPS[int(d.rng.integers(0, len(STEPS)))](d)
    kinds = {"i": TensorProto.INT64, "x": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(n, k, [ROWS, "n"]) for n, k in kinds.items()]
    given = [(n, TensorProto.INT64) for n in d.whole[1:]] + [
        (n, TensorProto.BOOL) for n in d.decisions
    ]
    outputs = [helper.make_tensor_value_info(n, k, [None, None]) for n, k in given]
    graph = helper.make_graph(d.nodes, "g", inputs, outputs, d.tensors)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def feeds(seed: int) -> list[Mapping[str, np.ndarray]]:
    """Return inputs, the ends of what they may be among them."""
    rng = np.random.default_rng(seed)
    found = []
    for columns in (COLUMNS, 1, COLUMNS):
        i = rng.choice([-MOST, MOST, 0, 1, 7, -3], (ROWS, columns)).astype(np.int64)
        if not found:
            i[:] = rng.choice([-MOST, MOST])
        found.append({"i": i, "x": rng.standard_normal((ROWS, columns)).astype(np.float32)})
    return found


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def judged(seed: int) -> tuple[str, int]:
    """Return what becomes of a random model, and how many values are int32 then."""
    source = drawn(seed)
    try:
        expected = [_session(source).run(None, each) for each in feeds(seed)]
    except Exception:  # noqa: BLE001 - a source that does not run says nothing
        return "does not run", 0
    model = ir.from_proto(onnx.ModelProto.FromString(source.SerializeToString()))
    Infer().run(model)
    if _outside(model, source, expected):
        return "outside what is known", 0
    pass_ = NarrowIntegers(partly=True, most=(("n", COLUMNS), ("i", MOST)))
    if not pass_.run(model):
        return "left", 0
    check(model)
    if pass_.run(model):
        return "changes again", 0
    narrow = [v for node in model.graph for v in node.outputs if v.dtype == ir.DataType.INT32]
    try:
        session = _session(ir.to_proto(model))
    except Exception as error:  # noqa: BLE001 - a runtime's own kinds
        return f"does not load: {error}"[-90:], 0
    for given, wanted in zip(feeds(seed), expected, strict=True):
        for a, b in zip(session.run(None, given), wanted, strict=True):
            if a.dtype != b.dtype or not np.array_equal(a, b):
                return "WRONG", len(narrow)
    return "equal", len(narrow)


def _outside(
    model: ir.Model, source: onnx.ModelProto, runs: Sequence[Sequence[np.ndarray]]
) -> bool:
    """Whether a number lies outside the range that is known of its value."""
    facts = facts_of(model)
    visit_scope(facts, Scope(model.graph, model.graph, 0), lambda node, scope: None)
    ranges = Intervals(model, facts, {"n": COLUMNS, "i": MOST})
    for place, value in enumerate(model.graph.outputs):
        part = ranges[value]
        assert part is not None, source.graph.output[place].name
        for run in runs:
            array = run[place]
            if array.size and not part.low <= array.min() <= array.max() <= part.high:
                return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kinds: Counter[str] = Counter()
    for seed in range(asked.seed, asked.seed + asked.count):
        kind, _ = judged(seed)
        kinds[kind] += 1
        if kind not in ("equal", "left", "does not run"):
            print(seed, kind, flush=True)
    print(dict(kinds))
    return int(bool(set(kinds) - {"equal", "left", "does not run"}))


if __name__ == "__main__":
    sys.exit(main())
