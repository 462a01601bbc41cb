"""Graphs grown at random around Transposes; a script tries many.

PYTHONPATH=tests python -m tests.transposes.graphs --count 5000 --seed 1
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from rewrite.support import RUNTIME_ERRORS, canonical, check, difference, run
from rules.places import in_branches, in_function

from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes.move_transposes import MoveTransposes

__all__ = ["TransposedGraph", "examine", "transposes"]

ROUNDING = 1e-5
USUAL = {
    3: [[(0, 2, 1)], [(1, 2, 0), (2, 0, 1)]],
    4: [[(0, 2, 3, 1), (0, 3, 1, 2)], [(0, 2, 1, 3)], [(0, 3, 1, 2), (0, 2, 3, 1)]],
}
"""Orders that undo each other, as exporters use them."""
PLACES: tuple[Callable[[ir.Model], ir.Model], ...] = (lambda model: model, in_branches, in_function)


class TransposedGraph:
    """Grows a graph of values with two to four axes, of sizes 2 to 5 in any order.

    Args:
        seed: Of everything random.
        nodes: How many nodes it has at least.
        opset: Of the default domain.
    """

    def __init__(self, seed: int, nodes: int, opset: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="transposed")
        self.values: list[ir.Value] = []
        shapes = ([2, 3, 4, 5], [2, 4, 5, 3], [3, 4, 5], [4, 5])
        for sizes in shapes[: int(self.rng.integers(2, 5))]:
            self.values.append(self._input(sizes))
        self.usual = {2: [(1, 0)], 3: USUAL[3][seed % 2], 4: USUAL[4][seed % 3]}
        self.at: ir.Value | None = None
        self.grow = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("grow_")]
        while len(self.graph) < nodes:
            if self.rng.random() < 0.5:
                self.block()
            else:
                self.step()
        unused = [v for v in self.values if not v.uses() and v.producer()]
        used = [v for v in self.values if v.uses() and v.producer()]
        more = [v for v in used if self.rng.random() < 0.08]
        self.graph.outputs.extend([*unused, *more] or self.values[-1:])

    @property
    def model(self) -> ir.Model:
        return ir.Model(self.graph, ir_version=10)

    def feed(self) -> dict[str, np.ndarray]:
        return {
            str(value.name): self.rng.standard_normal(self.sizes(value)).astype(np.float32)
            for value in self.graph.inputs
        }

    # ------------------------------------------------------------------------------------- pieces
    def _input(self, sizes: Sequence[int]) -> ir.Value:
        name = f"in{len(self.graph.inputs)}"
        kind = ir.TensorType(ir.DataType.FLOAT)
        value = ir.Value(name=name, type=kind, shape=ir.Shape(sizes))
        self.graph.inputs.append(value)
        return value

    def keep(self, values: Sequence[ir.Value]) -> None:
        self.values += [value for value in values if self.fits(value)]

    def fits(self, value: ir.Value) -> bool:
        """Whether the graph may go on from a value."""
        if value.shape is None or not value.shape.is_static():
            return False
        sizes = self.sizes(value)
        return 2 <= len(sizes) <= 4 and 0 < np.prod(sizes) <= 4096

    def sizes(self, value: ir.Value) -> list[int]:
        assert value.shape is not None
        return [int(size) for size in value.shape.numpy()]

    def step(self) -> Sequence[ir.Value]:
        made = self.grow[int(self.rng.integers(len(self.grow)))]()
        self.keep(made)
        return made

    def block(self) -> None:
        """There and back again, with a few nodes on the way."""
        start = self.pick()
        perm = self.perm(len(self.sizes(start)))
        (self.at,) = self.op("Transpose", start, perm=perm)
        self.values.append(self.at)
        for _ in range(int(self.rng.integers(1, 4))):
            made = [v for v in self.step() if self.fits(v)]
            found = [v for v in made if len(self.sizes(v)) == len(perm)]
            self.at = found[-1] if found else self.at
        back = [perm.index(axis) for axis in range(len(perm))]
        self.keep(self.op("Transpose", self.at, perm=back))
        self.at = None

    def pick(self) -> ir.Value:
        if self.at is not None and self.rng.random() < 0.9:
            return self.at
        recent = self.values[-5:] if self.rng.random() < 0.7 else self.values
        return recent[int(self.rng.integers(len(recent)))]

    def choose(self, *options: object) -> object:
        return options[int(self.rng.integers(len(options)))]

    def axis(self, value: ir.Value) -> int:
        rank = len(self.sizes(value))
        return int(self.rng.integers(-rank, rank))

    def const(self, array: object, dtype: type = np.int64) -> ir.Value:
        tensor = ir.tensor(np.array(array, dtype))
        tensor.name = f"c{len(self.graph.initializers)}"
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=tensor.name, type=kind, shape=shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def numbers(self, shape: Sequence[int]) -> ir.Value:
        return self.const(self.rng.standard_normal(shape), np.float32)

    def op(
        self, op_type: str, *inputs: ir.Value, count: int = 1, **given: object
    ) -> list[ir.Value]:
        kept = [ir.convenience.convert_attribute(k, v) for k, v in given.items()]
        node = ir.Node("", op_type, inputs, kept, num_outputs=count)
        node.name = f"n{len(self.graph)}"
        for index, output in enumerate(node.outputs):
            output.name = f"v{len(self.graph)}_{index}"
        infer_node(node, self.graph.opset_imports)
        self.graph.append(node)
        return list(node.outputs)

    # ------------------------------------------------------------------------------------- growth
    def perm(self, rank: int) -> list[int]:
        if self.rng.random() < 0.15:
            return [int(axis) for axis in self.rng.permutation(rank)]
        return list(self.usual[rank][int(self.rng.integers(len(self.usual[rank])))])

    def grow_transpose(self) -> list[ir.Value]:
        x = self.pick()
        return self.op("Transpose", x, perm=self.perm(len(self.sizes(x))))

    def grow_unary(self) -> list[ir.Value]:
        kind = self.choose("Neg", "Relu", "Sigmoid", "Tanh", "Abs", "Erf", "Identity", "LeakyRelu")
        return self.op(str(kind), self.pick())

    def grow_binary(self) -> list[ir.Value]:
        x = self.pick()
        same = [v for v in self.values if self.sizes(v) == self.sizes(x)]
        y = same[int(self.rng.integers(len(same)))]
        return self.op(str(self.choose("Add", "Mul", "Sub", "Max")), x, y)

    def grow_meeting(self) -> list[ir.Value]:
        """Two values of the same sizes in different orders, brought together."""
        x = self.pick()
        alike = [v for v in self.values if sorted(self.sizes(v)) == sorted(self.sizes(x))]
        y = alike[int(self.rng.integers(len(alike)))]
        perm = [self.sizes(y).index(size) for size in self.sizes(x)]
        if sorted(perm) != list(range(len(perm))):
            return self.grow_binary()
        return self.op("Add", x, self.op("Transpose", y, perm=perm)[0])

    def grow_with_constant(self) -> list[ir.Value]:
        x = self.pick()
        sizes = self.sizes(x)
        first = int(self.rng.integers(0, len(sizes)))
        shape = [size if self.rng.random() < 0.6 else 1 for size in sizes[first:]]
        inputs = [x, self.numbers(self.choose(shape, shape, [], [1]))]  # type: ignore[arg-type]
        if self.rng.random() < 0.3:
            inputs.reverse()
        return self.op(str(self.choose("Add", "Mul", "Sub")), *inputs)

    def grow_where(self) -> list[ir.Value]:
        x = self.pick()
        return self.op("Where", self.op("Greater", x, self.numbers([]))[0], x, self.numbers([1]))

    def grow_concat(self) -> list[ir.Value]:
        x = self.pick()
        same = [v for v in self.values if self.sizes(v) == self.sizes(x)][-3:]
        if self.rng.random() < 0.3:
            same.append(self.numbers(self.sizes(x)))
        return self.op("Concat", *same, axis=self.axis(x))

    def grow_split(self) -> list[ir.Value]:
        x, axis = self.pick(), self.axis(self.values[-1])
        axis = self.axis(x)
        size = self.sizes(x)[axis]
        first = int(self.rng.integers(1, max(size, 2)))
        if size < 2:
            return self.grow_unary()
        return self.op("Split", x, self.const([first, size - first]), count=2, axis=axis)

    def grow_slice(self) -> list[ir.Value]:
        x, axis = self.pick(), self.axis(self.values[-1])
        axis = self.axis(x)
        ends = self.const([int(self.rng.integers(1, 4))])
        inputs = [self.const([0]), ends]
        if self.rng.random() < 0.7:
            inputs.append(self.const([axis]))
        return self.op("Slice", x, *inputs)

    def grow_softmax(self) -> list[ir.Value]:
        x = self.pick()
        return self.op(str(self.choose("Softmax", "LogSoftmax")), x, axis=self.axis(x))

    def grow_reduction(self) -> list[ir.Value]:
        x, keep = self.pick(), int(self.rng.random() < 0.6)
        axes = sorted({self.axis(x) % len(self.sizes(x)) for _ in range(2)})
        kind = str(self.choose("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"))
        if kind == "ReduceSum" or self.opset >= 18:
            return self.op(kind, x, self.const(axes), keepdims=keep)
        return self.op(kind, x, axes=axes, keepdims=keep)

    def grow_best(self) -> list[ir.Value]:
        x = self.pick()
        keep = int(self.rng.random() < 0.6)
        found = self.op("ArgMax", x, axis=self.axis(x), keepdims=keep)[0]
        return self.op("Cast", found, to=int(ir.DataType.FLOAT))

    def grow_sum_so_far(self) -> list[ir.Value]:
        x = self.pick()
        return self.op("CumSum", x, self.const(self.axis(x)))

    def grow_top(self) -> list[ir.Value]:
        x = self.pick()
        values, places = self.op("TopK", x, self.const([1]), count=2, axis=self.axis(x))
        return [values, *self.op("Cast", places, to=int(ir.DataType.FLOAT))]

    def grow_pad(self) -> list[ir.Value]:
        x = self.pick()
        pads = self.rng.integers(0, 2, 2 * len(self.sizes(x))).tolist()
        mode = str(self.choose("constant", "edge"))
        return self.op("Pad", x, self.const(pads), self.numbers([]), mode=mode)

    def grow_repeated(self) -> list[ir.Value]:
        x = self.pick()
        repeats = [int(self.rng.integers(1, 3)) for _ in self.sizes(x)]
        return self.op("Tile", x, self.const(repeats))

    def grow_expand(self) -> list[ir.Value]:
        x = self.pick()
        sizes = [int(self.choose(1, 3)) if n == 1 else n for n in self.sizes(x)]  # type: ignore[call-overload]
        return self.op("Expand", x, self.const(sizes[int(self.rng.integers(2)) :]))

    def grow_gather(self) -> list[ir.Value]:
        x = self.pick()
        axis = self.axis(x)
        indices = self.rng.integers(0, self.sizes(x)[axis], 2).tolist()
        return self.op("Gather", x, self.const(self.choose(indices, indices[0])), axis=axis)

    def grow_squeeze(self) -> list[ir.Value]:
        x = self.pick()
        thin = [axis for axis, size in enumerate(self.sizes(x)) if size == 1]
        return self.op("Squeeze", x, self.const(thin[-1:])) if thin else self.grow_unary()

    def grow_unsqueeze(self) -> list[ir.Value]:
        x = self.pick()
        return self.op("Unsqueeze", x, self.const([self.axis(x)]))

    def grow_norm(self) -> list[ir.Value]:
        """What works in one order of axes alone."""
        x = self.pick()
        size = self.sizes(x)[-1]
        if self.opset < 17 or self.rng.random() < 0.5:
            return self.op("MatMul", x, self.numbers([size, size]))
        return self.op("LayerNormalization", x, self.numbers([size]), axis=-1)


def transposes(model: ir.Model) -> int:
    return sum(node.op_type == "Transpose" for node in all_nodes(model))


def copy(model: ir.Model) -> ir.Model:
    return ir.serde.from_proto(ir.to_proto(model))


def examine(seed: int) -> tuple[int, int]:
    """Move the Transposes of one graph; return how many nodes and Transposes it has less.

    Raises:
        AssertionError: Something is wrong with the result.
    """
    grown = TransposedGraph(seed, 5 + seed % 18, (13, 17, 18, 21)[seed % 4])
    place = PLACES[seed % 7 % 3]
    model, feed = place(grown.model), grown.feed()
    if place is in_branches:
        feed["condition"] = np.asarray(seed % 2 == 0)
    try:
        expected = run(model, feed)
    except RUNTIME_ERRORS:
        return 0, 0
    names = [value.name for value in model.graph.outputs]
    after = copy(model)
    changed = MoveTransposes().run(after)
    fewer = transposes(model) - transposes(after)
    assert changed == (fewer > 0), f"{fewer} Transposes fewer, said to have changed: {changed}"
    assert [value.name for value in after.graph.outputs] == names, "other names of outputs"
    check(after)
    wrong = difference(expected, run(after, feed), ROUNDING)
    assert wrong == "", wrong
    text = canonical(after)
    assert not MoveTransposes().run(after), "a second run changes something"
    assert canonical(after) == text, "a second run changes something and does not say so"
    return _nodes(model) - _nodes(after), fewer


def _nodes(model: ir.Model) -> int:
    return sum(node.op_type != "Constant" for node in all_nodes(model))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    saved, moved, found = 0, 0, 0
    for number in range(arguments.count):
        seed = arguments.seed * 1_000_000 + number
        try:
            nodes, fewer = examine(seed)
        except Exception as error:  # noqa: BLE001 - each is a finding, told with its seed
            found += 1
            print(f"{seed}: {type(error).__name__}: {str(error)[:300]}")
            continue
        saved, moved = saved + fewer, moved + (fewer > 0)
        if nodes < fewer:
            print(f"{seed}: {fewer} Transposes fewer, {nodes} nodes fewer")
    print(f"{arguments.count} graphs, {moved} changed, {saved} Transposes fewer, {found} findings")


if __name__ == "__main__":
    main()
