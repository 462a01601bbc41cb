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
from vlmpass.ir_tools.graph.walk import all_values
from vlmpass.ir_tools.operators.traits import rearranging
from vlmpass.ir_tools.run.addition import Addition
from vlmpass.ir_tools.types.typing import Typing
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Gauge"]


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
        for node in model.graph:
            for value in node.outputs:
                varies = value.name and constant_of(value) is None
                if varies and typing.dtype(value) == ir.DataType.FLOAT:
                    self._want(str(value.name), node)
        self._number = {name: number for number, name in enumerate(self._names)}
        self._prefix = _own_prefix(model)

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
        here = [str(value.name) for node in segment.graph for value in node.outputs]
        wanted = {name: self._number[name] for name in here if name in self._number}
        return _measuring(wanted, self._prefix)

    def see(self, results: Feed) -> None:
        """Take the magnitudes of one run."""
        for name, result in results.items():
            if name.startswith(self._prefix):
                number = int(name.removeprefix(self._prefix))
                self._note(self._names[number], float(np.asarray(result).reshape(-1)[0]))

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


def _own_prefix(model: ir.Model) -> str:
    """Return how no name of a model begins."""
    prefix = "magnitude/"
    while any((value.name or "").startswith(prefix) for value in all_values(model)):
        prefix = f"own/{prefix}"
    return prefix


def _measuring(wanted: Mapping[str, int], prefix: str) -> Addition:
    """Return what measures values, each in a float32 number that is called by a prefix and number.

    Args:
        wanted: The number by the value's name.
        prefix: How no other name begins.
    """
    nothing = f"{prefix}zero"

    def behind(name: str) -> Iterator[onnx.NodeProto]:
        if name in wanted:
            top = f"{prefix}{wanted[name]}"
            size, flat, filled = (f"{top}/{part}" for part in ("size", "flat", "filled"))
            yield _node("Abs", [name], size)
            yield _node("Flatten", [size], flat, axis=0)
            # A number that is always there: ReduceMax fails on an empty tensor.
            yield _node("Concat", [flat, nothing], filled, axis=1)
            yield _node("ReduceMax", [filled], top, keepdims=0)

    zero = onnx.TensorProto(name=nothing, dims=[1, 1], float_data=[0.0])
    zero.data_type = onnx.TensorProto.FLOAT
    return Addition(behind, [zero], [f"{prefix}{number}" for number in wanted.values()])


def _node(operator: str, takes: Sequence[str], makes: str, **integers: int) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type=operator, input=takes, output=[makes])
    for name, integer in integers.items():
        node.attribute.add(name=name, type=onnx.AttributeProto.INT, i=integer)
    return node
