"""Graphs that grow node by node, each node tried by ONNX Runtime at several sizes of the inputs.

A node that does not run at one set of sizes takes that set out; one that leaves fewer than two sets
is not taken. So most of what is drawn runs, whatever it computes with shapes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Drawing", "Graph", "Name"]

Name = str
Arrays = dict[str, np.ndarray]
OPSET, IR_VERSION = 18, 9
_NAMES = ("a", "b", "c")
_SIZES = (0, 1, 1, 2, 3, 4, 6)
_SETS = 5
_MOST_ELEMENTS = 4096
_LARGEST = 1 << 40
_MAKES = frozenset({"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Tile"})
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.int32): 6, np.dtype(bool): 9}
ort.set_default_logger_severity(4)


@dataclass
class Graph:
    """What was drawn.

    Attributes:
        model: Every value of it is typed by what it computes; nothing between is declared.
        results: For each set of sizes every value, inputs included.
    """

    model: onnx.ModelProto
    results: list[Arrays]


@dataclass
class Drawing:
    """A graph that is being drawn.

    Attributes:
        random: Decides everything.
    """

    random: random.Random
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    sets: list[Arrays] = field(default_factory=list)
    types: dict[Name, int] = field(default_factory=dict)
    count: int = 0

    def add_inputs(self) -> None:
        """Draw the inputs: sizes that are named, anonymous, or numbers, 0 and 1 among them."""
        sets = [{name: self.random.choice(_SIZES) for name in _NAMES} for _ in range(_SETS)]
        self.sets = [{} for _ in sets]
        for index in range(self.random.randint(1, 3)):
            rank = self.random.choice((1, 2, 2, 3, 3, 4))
            dims = [self._dim() for _ in range(rank)]
            self._input(f"x{index}", TensorProto.FLOAT, dims, sets)
        if self.random.random() < 0.4:
            self._input("k", TensorProto.INT64, [self.random.randint(1, 3)], sets)

    def _dim(self) -> str | int | None:
        return self.random.choice(
            (*_NAMES, *_NAMES, None, None, 1, 2, 3, self.random.choice(_SIZES))
        )

    def _input(
        self, name: Name, kind: int, dims: list[str | int | None], sets: list[dict[str, int]]
    ) -> None:
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        self.types[name] = kind
        for sizes, arrays in zip(sets, self.sets, strict=True):
            shape = [
                dim if isinstance(dim, int) else sizes.get(dim or "", self.random.choice(_SIZES))
                for dim in dims
            ]
            numbers = [self.random.randint(-3, 6) for _ in range(int(np.prod(shape)))]
            dtype = np.float32 if kind == TensorProto.FLOAT else np.int64
            arrays[name] = np.array(numbers, dtype).reshape(shape)

    def const(self, value: object, dtype: type = np.int64) -> Name:
        """Add a constant."""
        array = np.asarray(value, dtype)
        found = self.node("Constant", [], value=numpy_helper.from_array(array))
        assert found is not None
        return found[0]

    def values(self, kind: int, ranks: tuple[int, ...] = (0, 1, 2, 3, 4)) -> list[Name]:
        """Return the values of a type and rank, the latest twice as likely to be drawn."""
        found = [
            name
            for name, each in self.types.items()
            if each == kind and self.sets[0][name].ndim in ranks
        ]
        return found + found[-4:]

    def pick(self, kind: int, *ranks: int) -> Name:
        """Return a value of a type and rank.

        Raises:
            IndexError: There is none.
        """
        return self.random.choice(self.values(kind, ranks or (0, 1, 2, 3, 4)))

    def rank(self, name: Name) -> int:
        """Return the rank of a value."""
        return self.sets[0][name].ndim

    def node(
        self,
        operator: str,
        inputs: list[Name],
        outputs: int = 1,
        captured: Sequence[Name] = (),
        **attributes: object,
    ) -> list[Name] | None:
        """Add a node if it runs at two sets of sizes at least; return its outputs.

        Args:
            operator: Of ONNX.
            inputs: Its inputs.
            outputs: How many it has.
            captured: What its subgraphs take from outside.
            attributes: Its attributes.
        """
        names = [f"v{self.count + index}" for index in range(outputs)]
        node = helper.make_node(operator, inputs, names, **attributes)
        found = self._try(node, captured)
        kept = [index for index, arrays in enumerate(found) if arrays is not None]
        if len(kept) < min(2, len(self.sets)):
            return None
        first = found[kept[0]]
        assert first is not None
        if any(array.dtype not in _TYPES for array in first):
            return None
        self.sets = [self.sets[index] for index in kept]
        for arrays, index in zip(self.sets, kept, strict=True):
            arrays.update(zip(names, found[index] or (), strict=True))
        self.types.update((n, _TYPES[a.dtype]) for n, a in zip(names, first, strict=True))
        self.nodes.append(node)
        self.count += outputs
        return names

    def _try(self, node: onnx.NodeProto, captured: Sequence[Name]) -> list[list[np.ndarray] | None]:
        taken = list(dict.fromkeys([*filter(None, node.input), *captured]))
        infos = [helper.make_tensor_value_info(name, self.types[name], None) for name in taken]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        session = _session(helper.make_graph([node], "one", infos, outputs))
        if session is None:
            return [None] * len(self.sets)
        free = node.op_type == "Constant"
        return [
            _run(session, {name: each[name] for name in taken}, free)
            if _meant(node, each)
            else None
            for each in self.sets
        ]

    def graph(self) -> Graph | None:
        """Return what was drawn; None where the whole does not run as its parts did."""
        shown = [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in self.types.items()
            if name.startswith("v")
        ]
        graph = helper.make_graph(self.nodes, "drawn", self.inputs, shown)
        names = [info.name for info in self.inputs]
        session = _session(graph)
        if session is None:
            return None
        results: list[Arrays] = []
        for arrays in self.sets:
            feeds = {name: arrays[name] for name in names}
            found = _run(session, feeds, free=True)
            if found is not None:
                by_name = zip((info.name for info in shown), found, strict=True)
                results.append({**feeds, **dict(by_name)})
        return Graph(_model(graph), results) if results else None


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def _session(graph: onnx.GraphProto) -> ort.InferenceSession | None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(_model(graph).SerializeToString(), options)
    except Exception:  # noqa: BLE001  whatever the runtime refuses is not drawn
        return None


def _run(
    session: ort.InferenceSession, feeds: Arrays, free: bool = False
) -> list[np.ndarray] | None:
    try:
        found = session.run(None, feeds)
    except Exception:  # noqa: BLE001  sizes that do not go together
        return None
    small = all(isinstance(a, np.ndarray) and a.size <= _MOST_ELEMENTS for a in found)
    return found if small and (free or not any(map(_huge, found))) else None


def _meant(node: onnx.NodeProto, arrays: Arrays) -> bool:
    """Whether the standard takes these inputs.

    ONNX Runtime joins empty tensors of any shape, pools where the window does not fit, and gives
    a -1 next to an axis of size 0 some size. Not held either: a Reshape to computed sizes of which
    two are 0 at once, each then copying an axis; see `reshaped`.
    """
    if node.op_type == "Reshape":
        zeros = int((arrays[node.input[1]] == 0).sum())
        open_ = -1 in arrays[node.input[1]] and 0 in arrays[node.input[0]].shape
        return zeros < 2 and not (zeros and open_ and node.attribute)
    if node.op_type in _MAKES and any(_huge(arrays[name], 64) for name in node.input):
        return False  # more than there is memory for
    if node.op_type in ("Div", "Mod") and arrays[node.input[1]].dtype.kind == "i":
        # By 0, and the least number by -1, end the process; so does the mean of no integers.
        return bool(arrays[node.input[1]].all()) and not _huge(arrays[node.input[0]])
    if node.op_type == "ReduceMean" and arrays[node.input[0]].dtype.kind == "i":
        return arrays[node.input[0]].size > 0
    if node.op_type in ("MaxPool", "AveragePool"):
        return min(arrays[node.input[0]].shape[2:]) >= 2
    if node.op_type != "Concat":
        return True
    axis = node.attribute[0].i
    shapes = [list(arrays[name].shape) for name in node.input]
    for shape in shapes:
        shape[axis] = 0
    return all(shape == shapes[0] for shape in shapes)


def _huge(array: np.ndarray, limit: int = _LARGEST) -> bool:
    """Whether integers are so large that what comes next may wrap."""
    return array.dtype.kind == "i" and bool((np.abs(array.astype(np.float64)) > limit).any())
