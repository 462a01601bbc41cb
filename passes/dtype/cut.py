"""Labels of least cost: alpha expansion by minimum cuts.

A cost is charged to a value once for every label that is wanted of it and that it does not have,
however many want it: what Casts cost. With two labels the result is optimal; with more it is a
strong local optimum (Boykov, Veksler, Zabih: Fast Approximate Energy Minimization via Graph Cuts).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["FORBIDDEN", "Offer", "minimize"]

FORBIDDEN = 1 << 90
"""A cost that no sum of others reaches."""


@dataclass(frozen=True)
class Offer:
    """A value and those that want it in their own label.

    Attributes:
        source: The index of the variable whose label the value has, or a label.
        users: The same for every user.
        cost: What each label other than the source's own costs, once.
    """

    source: int | str
    users: tuple[int | str, ...]
    cost: int


class _Network:
    """A flow network; capacities are integers."""

    def __init__(self, size: int) -> None:
        self.edges: list[list[int]] = [[] for _ in range(size)]
        self.ends: list[int] = []
        self.room: list[int] = []

    def node(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, start: int, end: int, capacity: int) -> None:
        self.edges[start].append(len(self.ends))
        self.ends.append(end)
        self.room.append(capacity)
        self.edges[end].append(len(self.ends))
        self.ends.append(start)
        self.room.append(0)

    def _levels(self, source: int, sink: int) -> list[int] | None:
        levels = [-1] * len(self.edges)
        levels[source] = 0
        queue = deque([source])
        while queue:
            node = queue.popleft()
            for edge in self.edges[node]:
                end = self.ends[edge]
                if self.room[edge] and levels[end] < 0:
                    levels[end] = levels[node] + 1
                    queue.append(end)
        return levels if levels[sink] >= 0 else None

    def _push(self, source: int, sink: int, levels: list[int], turn: list[int]) -> bool:
        """Send one path's worth of flow to the sink along rising levels."""
        path: list[int] = []
        node = source
        while node != sink:
            edges = self.edges[node]
            while turn[node] < len(edges):
                edge = edges[turn[node]]
                if self.room[edge] and levels[self.ends[edge]] == levels[node] + 1:
                    break
                turn[node] += 1
            else:
                if not path:
                    return False
                node = self.ends[path.pop() ^ 1]
                turn[node] += 1
                continue
            path.append(edge)
            node = self.ends[edge]
        least = min(self.room[edge] for edge in path)
        for edge in path:
            self.room[edge] -= least
            self.room[edge ^ 1] += least
        return True

    def sink_side(self, source: int, sink: int) -> list[bool]:
        """Cut at least cost; return for every node whether it lies on the sink's side."""
        while (levels := self._levels(source, sink)) is not None:
            turn = [0] * len(self.edges)
            while self._push(source, sink, levels, turn):
                pass
        reached = {source}
        queue = deque([source])
        while queue:
            for edge in self.edges[queue.popleft()]:
                if self.room[edge] and self.ends[edge] not in reached:
                    reached.add(self.ends[edge])
                    queue.append(self.ends[edge])
        return [node not in reached for node in range(len(self.edges))]


class _Expansion:
    """One move: every variable keeps its label or takes `label`; sink side means it takes it."""

    def __init__(self, labels: Sequence[str], label: str) -> None:
        self.labels = labels
        self.label = label
        self.network = _Network(len(labels) + 2)
        self.source, self.sink = len(labels), len(labels) + 1

    def unary(self, variable: int, keep: int, take: int) -> None:
        if self.labels[variable] != self.label:
            self.network.edge(variable, self.sink, keep)
            self.network.edge(self.source, variable, take)

    def _old(self, end: int | str) -> str:
        return end if isinstance(end, str) else self.labels[end]

    def _free(self, end: int | str) -> bool:
        return not isinstance(end, str) and self.labels[end] != self.label

    def offer(self, offer: Offer) -> None:
        self._taken(offer)
        olds = dict.fromkeys(self._old(user) for user in offer.users)
        for old in olds:
            if old != self.label:
                self._kept(offer, old)

    def _taken(self, offer: Offer) -> None:
        """Charge the new label, if a user takes it and the source does not."""
        source = offer.source
        if self._old(source) == self.label:
            return
        if any(self._old(user) == self.label for user in offer.users):
            if self._free(source):
                self.network.edge(int(source), self.sink, offer.cost)
            return
        wanted = self.network.node()
        for user in offer.users:
            if self._free(user):
                self.network.edge(wanted, int(user), FORBIDDEN)
        self.network.edge(int(source) if self._free(source) else self.source, wanted, offer.cost)

    def _kept(self, offer: Offer, old: str) -> None:
        """Charge an old label, if a user keeps it and the source does not have it."""
        source = offer.source
        users = [user for user in offer.users if self._old(user) == old]
        fixed = any(not self._free(user) for user in users)
        same = self._old(source) == old
        if same and not self._free(source):
            return
        if fixed:
            if same:
                self.network.edge(self.source, int(source), offer.cost)
            return
        unwanted = self.network.node()
        for user in users:
            self.network.edge(int(user), unwanted, FORBIDDEN)
        self.network.edge(unwanted, int(source) if same else self.sink, offer.cost)

    def best(self) -> list[str]:
        side = self.network.sink_side(self.source, self.sink)
        return [self.label if side[i] else old for i, old in enumerate(self.labels)]


def _total(
    labels: Sequence[str], costs: Sequence[Mapping[str, int]], offers: Sequence[Offer]
) -> int:
    def of(end: int | str) -> str:
        return end if isinstance(end, str) else labels[end]

    total = sum(cost.get(label, FORBIDDEN) for label, cost in zip(labels, costs, strict=True))
    for offer in offers:
        wanted = {of(user) for user in offer.users} - {of(offer.source)}
        total += offer.cost * len(wanted)
    return total


def minimize(
    start: Sequence[str], costs: Sequence[Mapping[str, int]], offers: Sequence[Offer]
) -> list[str]:
    """Return a label for every variable, of least total cost.

    Args:
        start: A label for each variable to start from.
        costs: For each variable, what each label costs; a missing label is not allowed.
        offers: Who wants whose label.
    """
    labels = list(start)
    alphabet = sorted({label for cost in costs for label in cost})
    least = _total(labels, costs, offers)
    improved = True
    while improved:
        improved = False
        for label in alphabet:
            move = _Expansion(labels, label)
            for variable, cost in enumerate(costs):
                keep = cost.get(labels[variable], FORBIDDEN)
                move.unary(variable, keep, cost.get(label, FORBIDDEN))
            for offer in offers:
                move.offer(offer)
            found = move.best()
            total = _total(found, costs, offers)
            if total < least:
                labels, least, improved = found, total, True
    return labels
