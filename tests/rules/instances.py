"""Graphs made at random from a rule's own pattern, to be rewritten and compared by numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.operators import commutes
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.rewrite import Rule
from vlmpass.ir_tools.rewrite.captures import Kind
from vlmpass.ir_tools.rewrite.pattern import (
    Absent,
    Anything,
    Capture,
    Either,
    Literal,
    Named,
    Number,
    Op,
    Output,
    Pattern,
    Through,
)

Hints = Mapping[str, object]
NUMBERS = (0.5, 2.0, 0.25, 3.0, 1.5, -0.75)


def parse_shape(text: str) -> tuple[str, list[str]]:
    """Split ``T[a,b,4]`` into element type and dimensions."""
    kind, _, dims = text.partition("[")
    return kind, [word for word in dims.rstrip("]").split(",") if word]


@dataclass
class Draw:
    """One random graph under construction.

    Attributes:
        rule: Whose pattern it is.
        rng: Where randomness comes from.
        hints: By capture name: ``"T[a,b,4]"`` for a value's or constant's element type and shape,
            a list to choose from, or a function of this draw. ``"Conv+"`` gives the inputs, and
            ``"Conv()"`` the attributes, that an open pattern leaves out; ``"any"`` is for `P.any`,
            ``"outputs"`` is how many outputs a captured node has, and ``"used"`` says which
            outputs of a root are used; all by default.
        opset: Of the default domain.
        dtype: What T stands for.
    """

    rule: Rule
    rng: np.random.Generator
    hints: Hints
    opset: int
    dtype: np.dtype
    sizes: dict[str, int] = field(default_factory=dict)
    made: dict[object, object] = field(default_factory=dict)
    chosen: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": self.opset}, name="instance")
        self.count = itertools.count()

    # ------------------------------------------------------------------------------------ choices
    def choose(self, options: Sequence[object]) -> object:
        return options[int(self.rng.integers(len(options)))]

    def dim(self, name: str) -> int:
        """Return the size of a dimension by its letter, or by the number it is."""
        if name.isdigit():
            return int(name)
        return self.sizes.setdefault(name, int(self.rng.integers(1, 5)))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a captured value."""
        value = self.made[name]
        assert isinstance(value, ir.Value)
        assert value.shape is not None
        return tuple(value.shape.numpy())

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        if dtype == np.bool_:
            return np.asarray(self.rng.random(shape) < 0.5)
        if dtype.kind in "iu":
            return np.asarray(self.rng.integers(0, 4, shape)).astype(dtype)
        return np.asarray(self.rng.standard_normal(shape)).astype(dtype)

    # ------------------------------------------------------------------------------------- values
    def input(self, shape: Sequence[int], dtype: np.dtype) -> ir.Value:
        kind = ir.DataType.from_numpy(dtype)
        value = ir.Value(
            name=f"in{next(self.count)}", type=ir.TensorType(kind), shape=ir.Shape(shape)
        )
        self.graph.inputs.append(value)
        return value

    def constant(self, array: np.ndarray) -> ir.Value:
        tensor = ir.tensor(np.asarray(array))
        if self.rng.random() < 0.5:
            node = ir.Node("", "Constant", (), [ir.AttrTensor("value", tensor)], num_outputs=1)
            return self.place(node)
        name = f"c{next(self.count)}"
        tensor.name = name
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def place(self, node: ir.Node) -> ir.Value:
        node.name = f"n{next(self.count)}"
        for index, output in enumerate(node.outputs):
            output.name = f"v{next(self.count)}_{index}"
        infer_node(node, self.graph.opset_imports)
        self.graph.append(node)
        return node.outputs[0]

    def typed(self, text: str, dtype: np.dtype | None) -> tuple[np.dtype, tuple[int, ...]]:
        kind, dims = parse_shape(text)
        named = {"T": dtype or self.dtype, "i64": np.dtype(np.int64), "i32": np.dtype(np.int32)}
        shape = tuple(self.dim(word) for word in dims)
        return named.get(kind) or np.dtype(kind), shape

    def captured(self, name: str, dtype: np.dtype | None) -> ir.Value:
        """Return the value or constant for a capture, the same each time."""
        if name not in self.made:
            self.made[name] = self.make(name, self.rule.kinds[name], dtype)
        value = self.made[name]
        assert isinstance(value, ir.Value)
        return value

    def make(self, name: str, kind: Kind, dtype: np.dtype | None) -> ir.Value:
        hint = self.hints.get(name)
        if isinstance(hint, list):
            hint = self.choose(hint)
        if callable(hint):
            hint = hint(self)
        if isinstance(hint, ir.Value):
            return hint
        if isinstance(hint, str):
            dtype, shape = self.typed(hint, dtype)
            if kind.constant:
                return self.constant(self.array(shape, dtype))
            return self.input(shape, dtype)
        if hint is None and not kind.constant:
            shape = tuple(int(size) for size in self.rng.integers(1, 5, self.rng.integers(1, 5)))
            return self.input(shape, dtype or self.dtype)
        if hint is None:
            hint = self.default(kind, name)
        if isinstance(hint, np.ndarray):
            return self.constant(hint)
        if isinstance(hint, (tuple, list)):
            return self.constant(np.array(hint, dtype=dtype or np.int64))
        return self.constant(self.scalar(hint, dtype))

    def default(self, kind: Kind, name: str) -> object:
        if kind.says == "a constant bool":
            return bool(self.rng.integers(2))
        if kind.says in ("a constant int", "a constant float"):
            return self.choose(NUMBERS if kind.says.endswith("float") else (0, 1, 2))
        raise AssertionError(f"{self.rule.name}: give a hint for {name} ({kind.says})")

    def scalar(self, number: object, dtype: np.dtype | None) -> np.ndarray:
        array = np.asarray(number)
        return array.astype(dtype or (np.int64 if array.dtype.kind == "i" else self.dtype))

    # ----------------------------------------------------------------------------------- patterns
    def value(self, pattern: Pattern, dtype: np.dtype | None) -> ir.Value | None:
        """Return a value that matches a pattern; None for an absent input."""
        match pattern:
            case Op():
                return self.node(pattern).outputs[0]
            case Output():
                return self.node(pattern.op).outputs[pattern.index]
            case Capture():
                return self.captured(pattern.name, dtype)
            case Number():
                return self.constant(self.scalar(pattern.value, dtype))
            case Named():
                value = self.value(pattern.inner, dtype)
                self.made.setdefault(pattern.name, value)
                return value
            case Through():
                value = self.value(pattern.inner, dtype)
                for _ in range(int(self.rng.integers(0, 3))):
                    value = self.place(ir.Node("", str(self.choose(pattern.ops)), [value]))
                return value
            case Either():
                if pattern not in self.made:
                    self.made[pattern] = self.choose(pattern.options)
                option = self.made[pattern]
                assert isinstance(option, Pattern)
                return self.value(option, dtype)
            case Absent():
                return None
        if pattern not in self.made:
            self.made[pattern] = self.make_anything(dtype)
        made = self.made[pattern]
        assert isinstance(made, ir.Value)
        return made

    def make_anything(self, dtype: np.dtype | None) -> ir.Value:
        hint = self.hints.get("any", "T[1]")
        hint = hint(self) if callable(hint) else hint
        if isinstance(hint, np.ndarray):
            return self.constant(hint)
        dtype, shape = self.typed(str(hint), dtype)
        return self.input(shape, dtype)

    def node(self, op: Op) -> ir.Node:
        if op not in self.made:
            self.made[op] = self.make_node(op)
        node = self.made[op]
        assert isinstance(node, ir.Node)
        return node

    def make_node(self, op: Op) -> ir.Node:
        label = ",".join(name for _, name in op.ops)
        domain, op_type = self.chosen.setdefault(label, self.choose(op.ops))  # type: ignore[misc]
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        schema = in_force(domain, op_type, self.graph.opset_imports[domain])
        slots: dict[int, tuple[Pattern | None, object]] = {}
        attributes: dict[str, object] = {}
        for name, expected in op.attributes.items():
            index = None if schema is None else schema.input_named(name)
            if index is None:
                attributes[name] = expected
            else:
                slots[index] = (Capture(expected) if isinstance(expected, str) else None, expected)
        free = (index for index in itertools.count() if index not in slots)
        rest: Sequence[ir.Value] = ()
        for pattern in op.inputs:
            if isinstance(pattern, Capture) and pattern.rest:
                rest = self.rest(pattern.name)
            else:
                slots[next(free)] = (pattern, None)
        inputs = [*self.inputs(op_type, domain, slots), *rest]
        more = self.hints.get(f"{op_type}+")
        if op.open and callable(more):
            inputs += more(self)
        if len(inputs) == 2 and commutes("", op_type) and self.rng.random() < 0.5:
            inputs.reverse()
        return self.finish(op, domain, op_type, inputs, attributes)

    def rest(self, name: str) -> Sequence[ir.Value]:
        if name not in self.made:
            hint = self.hints.get(name)
            assert callable(hint), f"{self.rule.name}: give a hint for {name}"
            self.made[name] = hint(self)
        made = self.made[name]
        assert isinstance(made, list)
        return made

    def inputs(
        self, op_type: str, domain: str, slots: dict[int, tuple[Pattern | None, object]]
    ) -> list[ir.Value | None]:
        """Build the inputs, constants last, so that they get the element type of the others."""
        formals = _formals(domain, op_type, self.graph.opset_imports[domain])
        bound: dict[str, np.dtype] = {}
        values: dict[int, ir.Value | None] = {}
        order = sorted(slots, key=lambda at: self.is_constant(slots[at][0]))
        for at in order:
            pattern, expected = slots[at]
            variable, fixed = formals[min(at, len(formals) - 1)] if formals else ("T", None)
            dtype = fixed or bound.get(variable)
            if pattern is None:
                if isinstance(expected, Anything):
                    continue
                numbers = expected if isinstance(expected, (tuple, list)) else [expected]
                values[at] = self.constant(np.array(numbers, dtype=dtype or np.int64))
            else:
                values[at] = self.value(pattern, dtype)
            made = values[at]
            if made is not None and made.dtype is not None:
                bound.setdefault(variable, made.dtype.numpy())
        return [values.get(at) for at in range(max(slots, default=-1) + 1)]

    def is_constant(self, pattern: Pattern | None) -> bool:
        if isinstance(pattern, Capture):
            return self.rule.kinds[pattern.name].constant
        return pattern is None or isinstance(pattern, Number)

    def finish(
        self,
        op: Op,
        domain: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, object],
    ) -> ir.Node:
        extra = self.hints.get(op.node or "") or self.hints.get(f"{op_type}()")
        given = dict(extra(self)) if callable(extra) else {}
        for name, expected in attributes.items():
            value = self.attribute(op_type, name, expected, inputs)
            if value is not None:
                given[name] = value
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        kept = [ir.convenience.convert_attribute(name, value) for name, value in given.items()]
        outputs = self.hints.get("outputs", op.outputs)
        assert isinstance(outputs, int)
        node = ir.Node(
            domain, op_type, inputs, kept, num_outputs=outputs if op.node else op.outputs
        )
        self.place(node)
        return node

    def attribute(
        self, op_type: str, name: str, expected: object, inputs: Sequence[ir.Value | None]
    ) -> object:
        if isinstance(expected, Anything):
            return None
        if isinstance(expected, Literal):
            return expected.text
        if not isinstance(expected, str):
            several = isinstance(expected, tuple) or name == "axes"
            return list(np.atleast_1d(expected).tolist()) if several else expected
        if expected in self.chosen:
            return self.chosen[expected]
        hint = self.hints.get(expected)
        value = (
            hint(self) if callable(hint) else self.choose(hint) if isinstance(hint, list) else hint
        )
        if value is None:
            value = self.usual(op_type, name, inputs)
        self.chosen[expected] = value
        return value

    def usual(self, op_type: str, name: str, inputs: Sequence[ir.Value | None]) -> object:
        """Return a value for an attribute that means the same in every operator."""
        first = inputs[0] if inputs else None
        rank = first.shape.rank() if first is not None and first.shape is not None else 1
        match name:
            case "perm":
                return [int(axis) for axis in self.rng.permutation(rank)]
            case "to":
                return int(ir.DataType[str(self.choose(("FLOAT", "FLOAT16", "DOUBLE", "INT64")))])
            case "axis":
                return int(self.rng.integers(-rank, rank)) if rank else 0
            case "keepdims":
                return int(self.rng.integers(2))
            case "epsilon":
                return self.choose((1e-5, 1e-6, 1e-12, 1e-3))
        raise AssertionError(f"{self.rule.name}: give a hint for attribute {name} of {op_type}")

    # -------------------------------------------------------------------------------------- whole
    def model(self) -> ir.Model:
        """Return the graph, sizes of inputs symbolic now and then, and the result used or not."""
        for root in self.rule.plan.roots:
            value = self.value(root, None)
            assert value is not None
            producer = value.producer()
            outputs = [value] if producer is None else list(producer.outputs)
            used = self.hints.get("used", range(len(outputs)))
            assert isinstance(used, Sequence)
            for output in [outputs[index] for index in used if index < len(outputs)]:
                if self.rng.random() < 0.5:
                    self.place(ir.Node("", "Identity", [output]))
                    output = self.graph[-1].outputs[0]
                self.graph.outputs.append(output)
        if self.rng.random() < 0.3:
            self.forget_sizes()
        return ir.Model(self.graph, ir_version=10)

    def forget_sizes(self) -> None:
        for value in self.graph.inputs:
            assert value.shape is not None
            value.shape = ir.Shape([f"s{size}" for size in value.shape.numpy()])
        for node in self.graph:
            if node.op_type != "Constant":
                for output in node.outputs:
                    output.shape = None
                infer_node(node, self.graph.opset_imports)


def _formals(domain: str, op_type: str, version: int) -> list[tuple[str, np.dtype | None]]:
    """Return type variable and only admitted type, if it is one, of each formal input."""
    schema = in_force(domain, op_type, version)
    formals: list[tuple[str, np.dtype | None]] = []
    for formal in schema.inputs if schema is not None else ():
        plain = [kind.removeprefix("tensor(").rstrip(")") for kind in formal.types]
        fixed = np.dtype(plain[0]) if len(plain) == 1 else None
        if set(plain) == {"int32", "int64"}:
            fixed = np.dtype(np.int64)
        formals.append((formal.parameter, fixed))
    return formals
