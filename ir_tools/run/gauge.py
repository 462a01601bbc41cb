"""Measures how large the values of a model get while it runs, one number for each.

What computes the numbers goes into the file that is run alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.operators.traits import rearranging
from vlmpass.ir_tools.run.addition import Addition
from vlmpass.ir_tools.types.typing import Typing
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Gauge"]

_PARTS = ("size", "flat", "filled", "top")
"""Of what measures a value, step by step."""


class Gauge:
    """Measures the main graph's float32 values that vary; `SegmentRunner` takes it as a watch.

    What keeps all elements of its operand is not measured once more.

    Args:
        typing: Of the model.
        model: Its values are known by name.

    Attributes:
        found: The largest magnitude so far of every value, by name.
    """

    def __init__(self, typing: Typing, model: ir.Model) -> None:
        self.found: dict[str, float] = {}
        self._names: list[str] = []
        self._same: dict[str, str] = {
            str(v.name): str(v.name) for v in model.graph.inputs if not v.is_initializer()
        }
        self._also: dict[str, list[str]] = {}
        self._measures: dict[str, tuple[str, ...]] = {}
        for node in model.graph:
            for value in node.outputs:
                varies = value.name and constant_of(value) is None
                if varies and typing.dtype(value) == ir.DataType.FLOAT:
                    self._want(str(value.name), node)

    def _want(self, name: str, node: ir.Node) -> None:
        moves = not node.domain and node.op_type in rearranging()
        origin = node.inputs[0] if moves else None
        source = None if origin is None else self._same.get(str(origin.name))
        self._same[name] = source or name
        if source is None:
            self._names.append(name)
        else:
            self._also.setdefault(source, []).append(name)

    def prepare(self, segment: ir.Model) -> Addition:
        """Return what a part of the model computes besides: the magnitude of every value."""
        here = {value.name for node in segment.graph for value in node.outputs}
        names = [name for name in self._names if name in here]
        fresh = Names.of(segment)
        self._measures = {n: tuple(fresh.value(f"{n}/{part}") for part in _PARTS) for n in names}
        return _measuring(self._measures, fresh.value("magnitude/zero"))

    def see(self, results: Feed) -> None:
        """Take the magnitudes of one run."""
        for name, (*_, top) in self._measures.items():
            self._note(name, float(np.asarray(results[top]).reshape(-1)[0]))

    def see_inputs(self, feed: Feed) -> None:
        """Take the magnitudes of what is fed."""
        for name, given in feed.items():
            if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.size:
                self._note(name, float(np.abs(given).max()))

    def _note(self, name: str, largest: float) -> None:
        """Remember a magnitude; NaN counts as infinite."""
        largest = math.inf if math.isnan(largest) else largest
        for each in (name, *self._also.get(name, ())):
            self.found[each] = max(self.found.get(each, 0.0), largest)


def _measuring(measures: Mapping[str, Sequence[str]], nothing: str) -> Addition:
    """Return what measures values, whose names come with those of the steps, the last the number.

    Args:
        measures: Steps as `_PARTS` has them, by value.
        nothing: A name for a constant of one zero.
    """

    def behind(name: str) -> Iterator[onnx.NodeProto]:
        if name in measures:
            size, flat, filled, top = measures[name]
            yield _node("Abs", [name], size)
            yield _node("Flatten", [size], flat, axis=0)
            # A number that is always there: ReduceMax fails on an empty tensor.
            yield _node("Concat", [flat, nothing], filled, axis=1)
            yield _node("ReduceMax", [filled], top, keepdims=0)

    zero = onnx.TensorProto(name=nothing, dims=[1, 1], float_data=[0.0])
    zero.data_type = onnx.TensorProto.FLOAT
    return Addition(behind, [zero], [top for *_, top in measures.values()])


def _node(operator: str, takes: Sequence[str], makes: str, **integers: int) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type=operator, input=takes, output=[makes])
    for name, integer in integers.items():
        node.attribute.add(name=name, type=onnx.AttributeProto.INT, i=integer)
    return node
