"""What two models do not share, as a comparison tells it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Change", "Difference"]


@dataclass(frozen=True)
class Change:
    """One thing that is different.

    Attributes:
        name: Of the value, node or weight.
        what: What of it, such as ``attribute axis`` or ``type``.
        before: As the first model has it; empty where it has none.
        after: As the second has it.
    """

    name: str
    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Difference:
    """What two models do not have in common; all is empty for equal ones.

    Attributes:
        interface: Inputs and outputs.
        model: Versions, opsets, metadata, functions.
        operators: How many nodes of each operator the two have, where that is different.
        removed: Nodes that only the first has.
        added: Nodes that only the second has.
        nodes: Nodes that both have, and that are different.
        values: Declared types and shapes inside that are different.
        weights: Weights that only one has, or that are different.
        renamed: Values of another name and the same origin, weights of the same content, old and
            new; names alone are no difference.
        same: How many nodes both have alike.
    """

    interface: tuple[Change, ...]
    model: tuple[Change, ...]
    operators: dict[str, tuple[int, int]]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    nodes: tuple[Change, ...]
    values: tuple[Change, ...]
    weights: tuple[Change, ...]
    renamed: dict[str, str]
    same: int

    @property
    def ok(self) -> bool:
        """Whether there is no difference but in names inside."""
        found = (self.interface, self.model, self.removed, self.added, self.nodes)
        return not any((*found, self.values, self.weights))
