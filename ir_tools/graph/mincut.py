"""The cheapest way to split the pins of nets into two sides."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["SINK", "SOURCE", "Nets"]

SOURCE: Final = "source"
SINK: Final = "sink"
_ALL: Final = 1 << 40


@dataclass
class Nets:
    """Nets over pins, each of which costs 1 where its pins are not all on one side.

    Pins are anything hashable; `SOURCE` and `SINK` are the pins that are on their sides for good.
    """

    _places: dict[Hashable, int] = field(default_factory=lambda: {SOURCE: 0, SINK: 1})
    _edges: list[list[int]] = field(default_factory=lambda: [[], []])
    _ends: list[int] = field(default_factory=list)
    _room: list[int] = field(default_factory=list)

    def add(self, pins: Iterable[Hashable]) -> None:
        """Add a net."""
        entry, leave = self._place(object()), self._place(object())
        self._connect(entry, leave, 1)
        for pin in dict.fromkeys(pins):
            place = self._place(pin)
            self._connect(place, entry, _ALL)
            self._connect(leave, place, _ALL)

    def split(self) -> tuple[int, set[Hashable]]:
        """Return how many nets the cheapest split cuts, and the pins on the side of the source.

        Of several such splits it is the one with the fewest pins there. Takes Dinic's algorithm:
        a few rounds over all nets.
        """
        cut = 0
        while (levels := self._levels())[1] >= 0:
            cut += self._augment(levels)
        return cut, {pin for pin, place in self._places.items() if levels[place] >= 0}

    def _place(self, pin: Hashable) -> int:
        place = self._places.setdefault(pin, len(self._edges))
        if place == len(self._edges):
            self._edges.append([])
        return place

    def _connect(self, start: int, end: int, room: int) -> None:
        for place, other, space in ((start, end, room), (end, start, 0)):
            self._edges[place].append(len(self._ends))
            self._ends.append(other)
            self._room.append(space)

    def _levels(self) -> Sequence[int]:
        """Return the distance of every place from the source, -1 where none has room to it."""
        levels = [-1] * len(self._edges)
        levels[0] = 0
        pending = deque([0])
        while pending:
            place = pending.popleft()
            for edge in self._edges[place]:
                end = self._ends[edge]
                if self._room[edge] and levels[end] < 0:
                    levels[end] = levels[place] + 1
                    pending.append(end)
        return levels

    def _augment(self, levels: Sequence[int]) -> int:
        """Send what has room along shortest ways; return how much that was."""
        following = [0] * len(self._edges)
        sent, way, place = 0, list[int](), 0
        while True:
            if place == 1:
                for edge in way:
                    self._room[edge] -= 1
                    self._room[edge ^ 1] += 1
                sent, way, place = sent + 1, [], 0
            edges, at = self._edges[place], following[place]
            while at < len(edges) and not self._leads(place, edges[at], levels):
                at += 1
            following[place] = at
            if at < len(edges):
                way.append(edges[at])
                place = self._ends[edges[at]]
            elif way:
                place = self._ends[way.pop() ^ 1]
                following[place] += 1
            else:
                return sent

    def _leads(self, place: int, edge: int, levels: Sequence[int]) -> bool:
        return self._room[edge] > 0 and levels[self._ends[edge]] == levels[place] + 1
