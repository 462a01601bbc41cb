"""The smallest part of a model that still fails, by delta debugging.

What fails is for others to say: a function of a model. A part that the full check refuses where the
whole passes it does not count, so that what is left fails for the reason that the whole does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, Refused, VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.edit import constant_value, remove_dead
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.parts.lift import Lifter
from vlmpass.ir_tools.parts.selection import closed
from vlmpass.ir_tools.run.segments import is_repeated
from vlmpass.ir_tools.weights import as_weight, take

__all__ = ["Reducer", "Reduction", "smallest"]

_T = TypeVar("_T")
_LARGE = 64
"""Elements from which on a weight is worth replacing."""
_SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Reduction:
    """What is left of a model that fails.

    Attributes:
        model: It fails.
        tried: How many parts were tried.
        nodes: How many nodes of the whole were left after each step, by its name.
        replaced: Weights whose values do not matter.
        sizes: Sizes of dimensions that are smaller now, old and new.
    """

    model: ir.Model
    tried: int
    nodes: dict[str, int]
    replaced: tuple[str, ...]
    sizes: dict[str, int]


@dataclass
class Reducer:
    """Makes a model smaller for as long as it fails.

    Attributes:
        model: The whole; it stays as it is.
        fails: Whether a model fails.
        tried: How many models were asked about.
    """

    model: ir.Model
    fails: Callable[[ir.Model], bool]
    tried: int = 0
    _is_valid: bool = field(init=False)

    def __post_init__(self) -> None:
        self._is_valid = _passes(self.model)
        self._lifter = Lifter(self.model)

    def run(self, start: Sequence[ir.Node] | None = None) -> Reduction:
        """Return what is left.

        Args:
            start: Nodes that are known to fail alone; by default all are to be looked at.

        Raises:
            VerifyError: The whole does not fail.
        """
        nodes = [n for n in self.model.graph if not any(map(is_repeated, n.outputs))]
        told = {"whole": len(nodes)}
        if start is None:
            if not self._asked(self.model):
                raise VerifyError("the model passes the check: there is nothing to reduce")
            nodes = self._cut(nodes)
            told["cut"] = len(nodes)
        else:
            nodes = list(start)
        nodes = smallest(nodes, self._fail)
        told["nodes"] = len(nodes)
        model = self._fewer_outputs(self._lifted(nodes) or clone(self.model))
        model, sizes = self._smaller(model)
        model, replaced = self._without_weights(model)
        told["end"] = len(model.graph)
        return Reduction(model, self.tried, told, replaced, sizes)

    def _asked(self, model: ir.Model) -> bool:
        self.tried += 1
        return self.fails(model)

    def _holds(self, model: ir.Model) -> bool:
        """Whether a candidate fails, and not because it is no model."""
        return (not self._is_valid or _passes(model)) and self._asked(model)

    def _lifted(self, nodes: Iterable[ir.Node]) -> ir.Model | None:
        try:
            return self._lifter.lift(closed(self.model, dict.fromkeys(nodes)), "reduce")
        except Refused:  # a border without a type
            return None

    def _fail(self, nodes: Sequence[ir.Node]) -> bool:
        model = self._lifted(nodes) if nodes else None
        return model is not None and self._holds(model)

    def _cut(self, nodes: Sequence[ir.Node]) -> list[ir.Node]:
        """Return the nodes between the first start and the last end that are needed to fail."""
        stop = _first(range(1, len(nodes)), lambda at: self._fail(nodes[:at]), len(nodes))
        back = _first(range(1, stop), lambda length: self._fail(nodes[stop - length : stop]), stop)
        return list(nodes[stop - back : stop])

    def _fewer_outputs(self, model: ir.Model) -> ir.Model:
        names = [str(value.name) for value in model.graph.outputs]
        kept = smallest(names, lambda some: bool(some) and self._holds(_giving(model, some)))
        return _giving(model, kept)

    def _smaller(self, model: ir.Model) -> tuple[ir.Model, dict[str, int]]:
        """Return a model with the smallest sizes of its dimensions, each the same everywhere."""
        done: dict[str, int] = {}
        for size in _sizes(model):
            for small in _SIZES:
                if isinstance(size, int) and small >= size:
                    break
                candidate = _resized(model, size, small)
                if candidate is not None and self._holds(candidate):
                    model, done[str(size)] = candidate, small
                    break
        return model, done

    def _without_weights(self, model: ir.Model) -> tuple[ir.Model, tuple[str, ...]]:
        """Return a model that makes of ones the weights whose values do not matter."""
        large = [
            str(value.name)
            for value in model.graph.initializers.values()
            if value.const_value is not None
            and value.const_value.size >= _LARGE
            and value.const_value.dtype.is_floating_point()
            and not value.is_graph_input()
            and not value.is_graph_output()
        ]
        kept = smallest(
            large, lambda some: self._holds(_made(model, [n for n in large if n not in {*some}]))
        )
        replaced = [name for name in large if name not in kept]
        return (_made(model, replaced) if replaced else model), tuple(replaced)


def _passes(model: ir.Model) -> bool:
    try:
        check(model)
    except CheckError:
        return False
    return True


def _first(sizes: range, fails: Callable[[int], bool], otherwise: int) -> int:
    """Return the smallest size that fails, if those above a size all do; else one that does."""
    low, high = sizes.start, otherwise
    while low < high:
        middle = (low + high) // 2
        if fails(middle):
            high = middle
        else:
            low = middle + 1
    return high


def smallest(items: Sequence[_T], fails: Callable[[Sequence[_T]], bool]) -> list[_T]:
    """Return items that fail, of which none can be left out: Zeller's ddmin.

    Args:
        items: They fail.
        fails: Whether some of them do, given in their order.
    """
    if fails([]):
        return []
    kept, pieces = list(items), 2
    while len(kept) > 1:
        size = -(-len(kept) // pieces)
        chunks = [kept[at : at + size] for at in range(0, len(kept), size)]
        found = _fewer(kept, chunks, fails)
        if found is not None:
            pieces = 2 if len(found) <= size else max(pieces - 1, 2)
            kept = found
        elif size == 1:
            break
        else:
            pieces = min(2 * pieces, len(kept))
    return kept


def _fewer(
    kept: Sequence[_T], chunks: Sequence[list[_T]], fails: Callable[[Sequence[_T]], bool]
) -> list[_T] | None:
    """Return a chunk that fails alone, or what is left without one."""
    for chunk in chunks if len(chunks) > 1 else ():
        if fails(chunk):
            return list(chunk)
    for index in range(len(chunks)) if len(chunks) > 2 else ():
        rest = [each for other, chunk in enumerate(chunks) if other != index for each in chunk]
        if len(rest) < len(kept) and fails(rest):
            return rest
    return None


def _giving(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy that gives some outputs only, and takes and holds what they need."""
    copy = clone(model)
    graph = copy.graph
    kept = [value for value in graph.outputs if value.name in {*names}]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    remove_dead(list(graph))
    used = [v for v in graph.inputs if v.uses() or v.is_graph_output()]
    graph.inputs.clear()
    graph.inputs.extend(used)
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[str(value.name)]
    return copy


def _sizes(model: ir.Model) -> list[int | str]:
    """Return the sizes of inputs, names among them, largest first, names before numbers."""
    found: dict[int | str, None] = {}
    for value in model.graph.inputs:
        for dim in value.shape or ():
            size = dim if isinstance(dim, int) else dim.value
            if size is not None and size != 1:
                found[size] = None
    names = [each for each in found if isinstance(each, str)]
    return [*names, *sorted((e for e in found if isinstance(e, int)), reverse=True)]


def _resized(model: ir.Model, size: int | str, small: int) -> ir.Model | None:
    """Return a copy in which every axis of a size is of a smaller one, weights cut to it."""
    copy = clone(model)
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not isinstance(size, int) or size not in tuple(tensor.shape.numpy()):
            continue
        weight = as_weight(tensor)
        for axis, dim in enumerate(tensor.shape.numpy()):
            weight = take(weight, axis, 0, small) if dim == size else weight
        value.const_value, value.shape = weight, ir.Shape(weight.shape.numpy())
    for value in (*copy.graph.inputs, *copy.graph.outputs):
        if value.shape is not None:
            dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
            value.shape = ir.Shape([small if dim == size else dim for dim in dims])
    for node in copy.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return copy


def _made(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy in which nodes make some weights, of ones, instead of the file having them."""
    copy = clone(model)
    graph, fresh = copy.graph, Names.of(copy)
    for name in names:
        weight = graph.initializers[name]
        tensor = weight.const_value
        assert tensor is not None
        dims = np.asarray(tensor.shape.numpy(), np.int64)
        shape = constant_value(ir.tensor(dims), fresh.value(f"{name}_shape"))
        graph.register_initializer(shape)
        one = ir.tensor(np.ones(1, tensor.dtype.numpy()), dtype=tensor.dtype)
        node = ir.node(
            "ConstantOfShape", [shape], {"value": one}, name=fresh.node(f"{name}_of_ones")
        )
        made = node.outputs[0]
        made.type, made.shape = weight.type, ir.Shape(dims.tolist())
        weight.replace_all_uses_with(made)
        del graph.initializers[name]
        made.name = name
        graph.insert_before(graph[0], node)
    return copy
