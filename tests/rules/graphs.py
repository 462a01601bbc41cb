"""Random graphs full of what rules look for, grown at random and from the rules' own cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from rewrite.support import parse

from vlmpass.ir_tools.graph.infer_node import infer_node

FLOAT, DOUBLE, INT64 = ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64


class RandomGraph:
    """Grows a graph node by node; what it goes on from are float tensors of known sizes.

    Args:
        seed: Of everything random.
        nodes: How many nodes it has at least.
        opset: Of the default domain.
        cases: Graph texts, put in here and there and fed by what is there.
    """

    def __init__(self, seed: int, nodes: int, opset: int, cases: Sequence[str] = ()) -> None:
        self.rng = np.random.default_rng(seed)
        self.others: list[ir.Value] = []
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="random")
        self.values: list[ir.Value] = []
        for index, shape in enumerate(([2, 3, 4], [3, 4], [4])):
            value = ir.Value(name=f"in{index}", type=ir.TensorType(FLOAT), shape=ir.Shape(shape))
            self.graph.inputs.append(value)
            self.values.append(value)
        grow = [getattr(self, name) for name in dir(type(self)) if name.startswith("grow_")]
        waiting = list(cases)
        while waiting or len(self.graph) < nodes:
            if waiting and self.rng.random() < 0.3:
                self.put(parse(waiting.pop(), opset))
            else:
                self.step(grow[int(self.rng.integers(len(grow)))])
        unused = [value for value in self.values if not value.uses() and value.producer()]
        self.graph.outputs.extend([*unused, *self.others] or self.values[-1:])
        if self.rng.random() < 0.5:
            used = [v for v in self.values if v.producer() and v not in unused]
            self.graph.outputs.extend(used[-1:])

    @property
    def model(self) -> ir.Model:
        return ir.Model(self.graph, ir_version=10)

    def step(self, grow: Callable[[], ir.Value]) -> None:
        value = grow()
        assert value.shape is not None
        if 1 <= value.shape.rank() <= 5 and np.prod(value.shape.numpy()) <= 4096:
            self.values.append(value)

    # -------------------------------------------------------------------------------------- cases
    def put(self, case: ir.Model) -> None:
        """Put the nodes of another graph in; every symbolic size of its inputs is 3."""
        for domain, version in case.opset_imports.items():
            self.graph.opset_imports.setdefault(domain, version)
        stands: dict[ir.Value | None, ir.Value | None] = {None: None}
        for value in case.graph.inputs:
            stands[value] = self.fed(value)
        for value in case.graph.initializers.values():
            assert value.const_value is not None
            stands[value] = self.const(value.const_value.numpy(), value.const_value.numpy().dtype)
        for node in case.graph:
            inputs = [stands[value] for value in node.inputs]
            copy = ir.Node(
                node.domain,
                node.op_type,
                inputs,
                node.attributes.values(),
                num_outputs=len(node.outputs),
            )
            stands.update(zip(node.outputs, self.append(copy), strict=True))
        for value in case.graph.outputs:
            self.keep(stands[value])

    def fed(self, wanted: ir.Value) -> ir.Value:
        """Return a value like a case's input: one that is there, else a new input."""
        assert wanted.shape is not None
        sizes = [size if isinstance(size, int) else 3 for size in wanted.shape]
        like = [v for v in self.values if wanted.dtype == FLOAT and self.sizes(v) == sizes]
        if like and self.rng.random() < 0.8:
            return like[int(self.rng.integers(len(like)))]
        value = ir.Value(
            name=f"in{len(self.graph.inputs)}", type=wanted.type, shape=ir.Shape(sizes)
        )
        self.graph.inputs.append(value)
        return value

    def keep(self, value: ir.Value | None) -> None:
        """Go on from a case's output, or make it an output of the graph if it is unfit for that."""
        assert value is not None
        static = value.shape is not None and value.shape.is_static()
        if value.dtype == FLOAT and static and 1 <= len(self.sizes(value)) <= 5:
            self.values.append(value)
        elif value.producer() is not None and value not in self.others:
            self.others.append(value)

    # ------------------------------------------------------------------------------------- pieces
    def pick(self) -> ir.Value:
        recent = self.values[-6:] if self.rng.random() < 0.7 else self.values
        return recent[int(self.rng.integers(len(recent)))]

    def sizes(self, value: ir.Value) -> list[int]:
        assert value.shape is not None
        return [int(size) for size in value.shape.numpy()]

    def choose(self, *options: object) -> object:
        return options[int(self.rng.integers(len(options)))]

    def const(self, array: object, dtype: type = np.int64) -> ir.Value:
        tensor = ir.tensor(np.array(array, dtype))
        name = f"c{len(self.graph.initializers)}"
        tensor.name = name
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def number(self, value: object) -> ir.Value:
        return self.const(value, np.float32)

    def op(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        kept = [ir.convenience.convert_attribute(k, v) for k, v in attributes.items()]
        outputs = 2 if op_type == "Split" else 1
        return self.append(ir.Node("", op_type, inputs, kept, num_outputs=outputs))[0]

    def append(self, node: ir.Node) -> Sequence[ir.Value]:
        node.name = f"n{len(self.graph)}"
        for index, output in enumerate(node.outputs):
            output.name = f"v{len(self.graph)}_{index}"
        infer_node(node, self.graph.opset_imports)
        self.graph.append(node)
        return node.outputs

    # ------------------------------------------------------------------------------------- growth
    def grow_unary(self) -> ir.Value:
        kind = self.choose("Identity", "Neg", "Relu", "Abs", "Sigmoid", "Tanh", "Erf", "Ceil")
        return self.op(str(kind), self.pick())

    def grow_with_number(self) -> ir.Value:
        kind, number = self.choose(
            *((k, n) for k in ("Add", "Sub", "Mul", "Div") for n in (1, 0.5))
        )  # type: ignore[misc]
        unit = 0.0 if kind in ("Add", "Sub") else 1.0
        neutral = float(self.choose(number, unit))  # type: ignore[arg-type]
        shape = self.choose((), (1,))
        operand = self.number(np.full(shape, neutral))  # type: ignore[arg-type]
        return self.op(kind, self.pick(), operand)

    def grow_binary(self) -> ir.Value:
        x = self.pick()
        same = [v for v in self.values if self.sizes(v) == self.sizes(x)]
        y = same[int(self.rng.integers(len(same)))]
        return self.op(str(self.choose("Add", "Mul", "Sub", "Max", "Min")), x, y)

    def grow_transpose(self) -> ir.Value:
        x = self.pick()
        perm = [int(axis) for axis in self.rng.permutation(len(self.sizes(x)))]
        return self.op("Transpose", x, perm=perm)

    def grow_reshape(self) -> ir.Value:
        x = self.pick()
        sizes = self.sizes(x)
        target = self.choose([-1], sizes, [1, *sizes], [0] * (len(sizes) - 1) + [-1], [2, -1])
        if np.prod(sizes) % 2 and target == [2, -1]:
            target = [-1]
        return self.op("Reshape", x, self.const(target))

    def grow_unsqueeze(self) -> ir.Value:
        x = self.pick()
        axis = int(self.rng.integers(-len(self.sizes(x)) - 1, len(self.sizes(x)) + 1))
        return self.op("Unsqueeze", x, self.const([axis]))

    def grow_squeeze(self) -> ir.Value:
        x = self.pick()
        thin = [axis for axis, size in enumerate(self.sizes(x)) if size == 1]
        if not thin:
            return self.grow_unsqueeze()
        return self.op("Squeeze", x, self.const([int(self.rng.choice(thin))]))

    def grow_slice(self) -> ir.Value:
        x = self.pick()
        axis = int(self.rng.integers(len(self.sizes(x))))
        size = self.sizes(x)[axis]
        start = int(self.rng.integers(0, max(size - 1, 1)))
        end = self.choose(size, 2**63 - 1, start + 1)
        return self.op("Slice", x, self.const([start]), self.const([end]), self.const([axis]))

    def grow_concat(self) -> ir.Value:
        x = self.pick()
        same = [v for v in self.values if self.sizes(v) == self.sizes(x)][-3:]
        return self.op("Concat", *same, axis=int(self.rng.integers(-len(self.sizes(x)), 0)))

    def grow_split(self) -> ir.Value:
        x = self.pick()
        even = [axis for axis, size in enumerate(self.sizes(x)) if size % 2 == 0]
        if not even:
            return self.grow_unary()
        axis = int(self.rng.choice(even))
        first = self.op("Split", x, axis=axis, num_outputs=2)
        producer = first.producer()
        assert producer is not None
        if self.rng.random() < 0.5:
            return self.op("Concat", *producer.outputs, axis=axis)
        self.values.append(producer.outputs[1])
        return first

    def grow_casts(self) -> ir.Value:
        kind = self.choose(ir.DataType.FLOAT16, DOUBLE, FLOAT)
        inner = self.op("Cast", self.pick(), to=int(kind))  # type: ignore[call-overload]
        return self.op("Cast", inner, to=int(FLOAT))

    def grow_expand(self) -> ir.Value:
        x = self.pick()
        return self.op(
            "Expand", x, self.const(self.choose([1], self.sizes(x), [2, *self.sizes(x)]))
        )

    def grow_matmul(self) -> ir.Value:
        x = self.pick()
        size = self.sizes(x)[-1] if self.sizes(x) else 0
        if not size:
            return self.grow_unsqueeze()
        y = self.op("MatMul", x, self.number(self.rng.standard_normal((size, 4)) / 4))
        if self.rng.random() < 0.5:
            return self.op("Add", y, self.number(self.rng.standard_normal(4)))
        return self.op("Mul", y, self.number(0.5))

    def grow_norm(self) -> ir.Value:
        x, axes = self.pick(), self.const([-1])
        if not self.sizes(x):
            return self.grow_unsqueeze()
        centred = (
            x if self.rng.random() < 0.5 else self.op("Sub", x, self.op("ReduceMean", x, axes))
        )
        square = self.op("Mul", centred, centred)
        total = self.op("Add", self.op("ReduceMean", square, axes), self.number(1e-3))
        normal = self.op("Div", centred, self.op("Sqrt", total))
        return self.op("Mul", normal, self.number(self.rng.standard_normal(self.sizes(x)[-1])))

    def grow_gelu(self) -> ir.Value:
        x = self.pick()
        bent = self.op("Erf", self.op("Div", x, self.number(self.choose(np.sqrt(2), 1.4))))
        half = self.op("Mul", x, self.number(0.5))
        return self.op("Mul", half, self.op("Add", bent, self.number(1.0)))

    def grow_swish(self) -> ir.Value:
        x = self.pick()
        return self.op("Mul", x, self.op("Sigmoid", x))
