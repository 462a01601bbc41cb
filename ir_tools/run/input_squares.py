"""The sums of x x' over what products take when a model runs, one product's after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.spans import Watched, watch_values
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Doubles", "Taken", "input_squares"]

_CHUNK_ELEMENTS = 1 << 20

Doubles = npt.NDArray[np.float64]
"""A matrix of sums."""

Taken = tuple[str, bool]
"""A value that a product takes, and whether it turns it first, so that x are the columns."""


@dataclass
class _Sums:
    """Sums up, and hands on what is complete."""

    wanted: Mapping[str, Sequence[Taken]]
    take: Callable[[str, Doubles, int], None]
    rows: dict[Taken, int] = field(default_factory=dict)
    held: dict[Taken, Doubles] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    left: dict[str, Sequence[Taken]] = field(init=False)

    def __post_init__(self) -> None:
        self.left = dict(self.wanted)

    def add(self, name: str, array: Array) -> None:
        """Add the squares of a value, a part of it at a time."""
        needed = {each for taken in self.left.values() for each in taken if each[0] == name}
        for taken in sorted(needed):
            rows = array.T if taken[1] else array.reshape(-1, array.shape[-1])
            if taken not in self.held:
                self.held[taken] = np.zeros((rows.shape[1],) * 2)
            self.rows[taken] = self.rows.get(taken, 0) + len(rows)
            step = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
            for start in range(0, len(rows), step):
                some = rows[start : start + step].astype(np.float64)
                with np.errstate(over="ignore", invalid="ignore"):
                    self.held[taken] += some.T @ some
            if not np.isfinite(self.held[taken]).all():
                raise VerifyError(
                    f"value '{name}' is not finite on the inputs that it is measured with",
                    remedy="give other inputs, or exclude the products that take it",
                )

    def over(self, names: Collection[str]) -> None:
        """Hand on the sums of products of which all values were seen, and forget those."""
        self.seen.update(names)
        for key, taken in list(self.left.items()):
            if all(name in self.seen for name, _ in taken):
                del self.left[key]
                if all(each in self.held for each in taken):
                    whole = sum((self.held[each] for each in taken[1:]), self.held[taken[0]])
                    self.take(key, whole, sum(self.rows[each] for each in taken))
        needed = {each for taken in self.left.values() for each in taken}
        self.held = {each: sums for each, sums in self.held.items() if each in needed}


def input_squares(
    model: ir.Model,
    wanted: Mapping[str, Sequence[Taken]],
    feeds: Sequence[Feed],
    take: Callable[[str, Doubles, int], None],
) -> None:
    """Hand on sums of x x', as soon as all that is asked for one key was seen.

    Args:
        model: A model that ONNX Runtime's CPU runs; it is not changed.
        wanted: By any key, values of the main graph that products take.
        feeds: Inputs, one run each.
        take: Gets a key, the sum over all its values and how many x there were; none whose values
            have no elements.

    Raises:
        VerifyError: ONNX Runtime is missing or does not run the model, or a value is not finite.
    """
    sums = _Sums(wanted, take)
    names = list(dict.fromkeys(name for taken in wanted.values() for name, _ in taken))
    watch_values(model, Watched(names, sums.add, sums.over), feeds)
