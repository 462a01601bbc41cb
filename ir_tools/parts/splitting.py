"""Which part every node goes to: by module, by layer, or by weight.

Parts run in their order, so that no node may take what a later part makes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.parts.scoping import Scoping, scoping
from vlmpass.ir_tools.parts.selection import taken_by
from vlmpass.ir_tools.run.segments import is_repeated, joins_nodes
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["Places", "by_layers", "by_scopes", "by_weight"]

_SLACK = 4
"""The last of so many parts of a budget is where the best place to cut is looked for."""


@dataclass(frozen=True)
class Places:
    """Where every node goes.

    Attributes:
        names: Of the parts, in the order in which they run.
        of: The part of every node; none for Constants and Casts of weights, which may be in many.
    """

    names: tuple[str, ...]
    of: Mapping[ir.Node, int]


class _Order:
    """The nodes that are to be placed, in an order in which they can run."""

    def __init__(self, model: ir.Model) -> None:
        self.nodes = [node for node in model.graph if not any(map(is_repeated, node.outputs))]
        self.takes = {node: taken_by(node) for node in self.nodes}
        self._at = {node: index for index, node in enumerate(self.nodes)}
        self.makers: dict[ir.Node, list[ir.Node]] = {}
        for node in self.nodes:
            found = [value.producer() for value in self.takes[node]]
            self.makers[node] = [each for each in found if each is not None and each in self._at]
            if any(self._at[each] >= self._at[node] for each in self.makers[node]):
                raise ModelError(
                    f"{name_node(node)} comes before what it takes",
                    remedy="run the pass topological-sort first",
                )


def by_scopes(model: ir.Model, scopes: Sequence[str]) -> Places:
    """Return a part for every module named; the rest goes where it is first needed.

    Raises:
        ModelError: A module is not there, lies in another one, or two of them need each other.
    """
    modules = scoping(model)
    labels: dict[ir.Node, int] = {}
    for index, scope in enumerate(scopes):
        for node in modules.inside(modules.find(scope)):
            if labels.setdefault(node, index) != index:
                raise ModelError(
                    f"'{scope}' and '{scopes[labels[node]]}' share {name_node(node)}",
                    remedy="name modules of which none lies in another",
                )
    return _settled(_Order(model), labels, scopes)


def by_layers(model: ir.Model, number: int) -> Places:
    """Return parts of some layers each; the rest goes where it is first needed.

    Layers are the outermost modules that are numbered, such as ``model.layers.0``.

    Raises:
        ModelError: There are none.
    """
    labels: dict[ir.Node, int] = {}
    found: dict[tuple[str, int], int] = {}
    order = _Order(model)
    ends: dict[tuple[str, int], list[str]] = defaultdict(list)
    for node, (stem, layer) in _layers(scoping(model)).items():
        key = stem, layer // number
        labels[node] = found.setdefault(key, len(found))
        ends[key].append(str(layer))
    if not found:
        raise ModelError("no module of the model is numbered", remedy="split it by --budget")
    names = [f"{stem}.{_span(ends[stem, group])}" for stem, group in found]
    return _settled(order, labels, names)


def _span(layers: Sequence[str]) -> str:
    first, last = min(map(int, layers)), max(map(int, layers))
    return str(first) if first == last else f"{first}-{last}"


def _layers(modules: Scoping) -> dict[ir.Node, tuple[str, int]]:
    """Return the outermost numbered module of every node that lies in one of several."""
    told: dict[ir.Node, tuple[str, int]] = {}
    for node, path in modules.paths.items():
        at = next((i for i, each in enumerate(path or ()) if each.isdecimal()), None)
        if path and at:
            told[node] = ".".join(path[:at]), int(path[at])
    numbers = Counter(stem for stem, _ in set(told.values()))
    return {node: each for node, each in told.items() if numbers[each[0]] > 1}


def _settled(order: _Order, labels: Mapping[ir.Node, int], names: Sequence[str]) -> Places:
    """Place what has no label where it is first needed, and put the parts in order."""
    ranks = _ranks(order, labels, names)
    last = len(names) - 1
    place: dict[ir.Node, int] = {}
    users: dict[ir.Node, int] = {}
    for node in reversed(order.nodes):
        at = ranks[labels[node]] if node in labels else users.get(node, last)
        place[node] = at
        for maker in order.makers[node]:
            users[maker] = min(users.get(maker, last), at)
    told = sorted(range(len(names)), key=ranks.__getitem__)
    return Places(tuple(names[index] for index in told), place)


def _ranks(order: _Order, labels: Mapping[ir.Node, int], names: Sequence[str]) -> dict[int, int]:
    """Return the place of every label among them, by what needs what.

    Raises:
        ModelError: Two need each other.
    """
    needs = _needs(order, labels, len(names))
    ranks: dict[int, int] = {}
    while len(ranks) < len(names):
        free = [i for i in range(len(names)) if i not in ranks and needs[i] <= ranks.keys() | {i}]
        if not free:
            left = [i for i in range(len(names)) if i not in ranks]
            a = left[0]
            b = next(i for i in left if i in needs[a] and i != a)
            raise ModelError(
                f"'{names[a]}' needs what '{names[b]}' makes, and the other way round",
                remedy="name a module that has both in it, or split by --budget",
            )
        ranks[free[0]] = len(ranks)
    return ranks


def _needs(order: _Order, labels: Mapping[ir.Node, int], number: int) -> list[set[int]]:
    """Return the labels upstream of every label."""
    found: list[set[int]] = [set() for _ in range(number)]
    above: dict[ir.Node, frozenset[int]] = {}
    for node in order.nodes:
        seen: set[frozenset[int]] = {above[maker] for maker in order.makers[node]}
        reached = next(iter(seen)) if len(seen) == 1 else frozenset().union(*seen)
        label = labels.get(node)
        if label is not None:
            found[label] |= reached
            reached = reached if label in reached else reached | {label}
        above[node] = reached
    return found


def by_weight(model: ir.Model, typing: Typing, budget: int) -> Places:
    """Return parts in the order of the graph, none with more weights than a budget.

    A node that has more is a part of its own. Within the last quarter of a part the cut is where
    the fewest values cross, and none is made where a value of unknown type would, or between two
    nodes that ONNX Runtime makes one of.

    Args:
        model: The model.
        typing: Its types.
        budget: Bytes of weights in a part; one that two parts use counts in both.

    Raises:
        ModelError: There are no nodes.
    """
    order = _Order(model)
    if not order.nodes:
        raise ModelError("the model has no node that computes anything: there is nothing to split")
    crossing = _crossing(order, typing)
    weight = _weights(order)
    place: dict[ir.Node, int] = {}
    part, start = 0, 0
    while start < len(order.nodes):
        stop = _stop(order, crossing, weight, start, budget)
        place.update(dict.fromkeys(order.nodes[start:stop], part))
        part, start = part + 1, stop
    return Places(tuple(f"part{index + 1}" for index in range(part)), place)


def _stop(
    order: _Order,
    crossing: Sequence[int | None],
    weight: Callable[[ir.Value], int],
    start: int,
    budget: int,
) -> int:
    """Return where a part ends: before the node that is too much, or somewhat earlier."""
    used: set[ir.Value] = set()
    total, last = 0, start
    sums: list[int] = []
    for at in range(start, len(order.nodes)):
        last = at if crossing[at] is not None else last
        fresh = [value for value in order.takes[order.nodes[at]] if value not in used]
        used.update(fresh)
        total += sum(map(weight, fresh))
        if total > budget and last > start:
            free = [each for each in range(start + 1, last + 1) if crossing[each] is not None]
            least = budget - budget // _SLACK
            near = [each for each in free if sums[each - start - 1] >= least] or free[-1:]
            return min(near, key=lambda each: (crossing[each] or 0, -each))
        sums.append(total)
    return len(order.nodes)


def _crossing(order: _Order, typing: Typing) -> list[int | None]:
    """Return how many values cross the place before every node; None where none may be cut."""
    at = {node: index for index, node in enumerate(order.nodes)}
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(order.nodes):
        last.update(dict.fromkeys(order.takes[node], index))
    steps, unknown = ([0] * (len(order.nodes) + 2) for _ in range(2))
    for value, end in last.items():
        maker = value.producer()
        if maker is not None and maker in at and at[maker] < end:
            known = typing.text_of(value) is not None or value.type is not None
            counted = steps if known and not joins_nodes(value) else unknown
            counted[at[maker] + 1] += 1
            counted[end + 1] -= 1
    found: list[int | None] = []
    crossing = blocked = 0
    for step, more in zip(steps, unknown, strict=True):
        crossing, blocked = crossing + step, blocked + more
        found.append(None if blocked else crossing)
    return found


def _weights(order: _Order) -> Callable[[ir.Value], int]:
    """Return what tells the bytes that a value brings into a part as a weight."""

    def weight(value: ir.Value) -> int:
        if value.is_initializer():
            return value.const_value.nbytes if value.const_value is not None else 0
        maker = value.producer()
        if maker is None or not is_repeated(value):
            return 0
        return sum(map(weight, filter(None, maker.inputs)))

    return weight
