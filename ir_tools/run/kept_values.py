"""Values inside a model, kept in files until those of another one are compared with them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.inspecting.modules import module_of
from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.run.compare import OutputDifference, compare_arrays
from vlmpass.ir_tools.run.value_statistics import Statistics, statistics_of
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Judged", "Kept", "Layer", "shown"]


@dataclass(frozen=True)
class Layer:
    """One value that both models have.

    Attributes:
        name: In the second model; of a module, its path.
        expected_name: In the first.
        node: What makes it in the second model, or in the one model where the other is a module.
        module: The module that it is of; empty where that is unknown.
        difference: How it compares.
        expected: The first model's elements.
        actual: The second's.
        trial: Which set of inputs it compares worst for, counted from 0.
    """

    name: str
    expected_name: str
    node: str
    module: str
    difference: OutputDifference
    expected: Statistics
    actual: Statistics
    trial: int = 0


class Kept:
    """Keeps values of one model, or tensors of a program, in files.

    Args:
        folder: Where.
        wanted: Names of a model's values.
    """

    def __init__(self, folder: Path, wanted: Iterable[str] = ()) -> None:
        self._folder = folder
        self._wanted = wanted
        self._here: list[str] = []
        self._runs: dict[str, int] = {}
        self._files: dict[tuple[Hashable, int], Path] = {}

    def prepare(self, segment: ir.Model) -> Addition:
        """Add those that a segment makes to its outputs."""
        self._here = shown(segment, self._wanted)
        return NOTHING

    def see(self, results: Feed) -> None:
        """Write them."""
        for name in self._here:
            value = results[name]
            if isinstance(value, np.ndarray) and value.dtype != object:
                number = self._runs[name] = self._runs.get(name, -1) + 1
                self.keep(name, number, value)

    def keep(self, name: Hashable, number: int, value: Array) -> None:
        """Write a value.

        Args:
            name: What it is taken by.
            number: The set of inputs that it is of, counted from 0.
            value: Its elements.

        Raises:
            VerifyError: There is no room for it.
        """
        path = self._folder / f"{len(self._files)}.npy"
        self._files[name, number] = path
        try:
            np.save(path, _plain(value))
        except OSError as error:
            what = f"a value inside cannot be kept in {self._folder}: {error.strerror or error}"
            raise VerifyError(what, remedy="make room there, or set TMPDIR") from error

    def take(self, name: Hashable, number: int) -> Array | None:
        """Return a value for a set of inputs, mapped; None if it is no tensor."""
        path = self._files.get((name, number))
        return None if path is None else np.load(path, mmap_mode="r")


class Judged:
    """Compares values of a model with those kept.

    Args:
        model: The model.
        pairs: What was kept under which name, by what it is called in the model.
        kept: Those of the other.
        tolerance, bound: What is allowed of each, see `compare_arrays`.
        modules: The paths of the modules that values are of, where the graph does not tell.
        reference: Whether the model is the first of the two, and what was kept is judged.
    """

    def __init__(
        self,
        model: ir.Model,
        pairs: Mapping[str, Hashable],
        kept: Kept,
        tolerance: float | None,
        bound: float,
        *,
        modules: Mapping[str, str] | None = None,
        reference: bool = False,
    ) -> None:
        self._pairs, self._kept = pairs, kept
        self._tolerance, self._bound = tolerance, bound
        self._modules, self._reference = modules or {}, reference
        self._nodes = {v.name: node for node in model.graph for v in node.outputs if v.name}
        self._here: list[str] = []
        self._runs: dict[str, int] = {}
        self._layers: dict[str, Layer] = {}

    def prepare(self, segment: ir.Model) -> Addition:
        """Add those that a segment makes to its outputs."""
        self._here = shown(segment, self._pairs)
        return NOTHING

    def see(self, results: Feed) -> None:
        """Compare them."""
        for name in self._here:
            number = self._runs[name] = self._runs.get(name, -1) + 1
            held, seen = self._kept.take(self._pairs[name], number), results[name]
            if held is None or not isinstance(seen, np.ndarray):
                continue
            layer = self._layer(name, held, _plain(seen), number)
            worst = self._layers.get(name)
            if worst is None or _badness(layer.difference) > _badness(worst.difference):
                self._layers[name] = layer

    def _layer(self, name: str, held: Array, seen: Array, number: int) -> Layer:
        node = self._nodes[name]
        names, arrays = (str(self._pairs[name]), name), (held, seen)
        if self._reference:
            names, arrays = names[::-1], arrays[::-1]
        expected, actual = arrays
        found = compare_arrays(
            names[1], expected, actual, tolerance=self._tolerance, at_least=self._bound
        )
        return Layer(
            names[1],
            names[0],
            name_node(node),
            self._modules.get(name) or module_of(node) or "",
            found,
            statistics_of(expected),
            statistics_of(actual),
            number,
        )

    def layers(self) -> tuple[Layer, ...]:
        """Return all that was compared, in graph order."""
        return tuple(self.by_value().values())

    def by_value(self) -> dict[str, Layer]:
        """Return all that was compared, by the model's names, in graph order."""
        return {str(name): self._layers[name] for name in self._nodes if name in self._layers}


def _badness(found: OutputDifference) -> tuple[bool, int, float]:
    return not found.ok, sum(found.nan) + sum(found.inf), found.max_rel


def shown(segment: ir.Model, wanted: Iterable[str]) -> list[str]:
    """Give a segment outputs for values that are wanted, and return those that it makes.

    Args:
        segment: A copy; changed in place.
        wanted: Names of values.
    """
    made = {value.name: value for node in segment.graph for value in node.outputs}
    there = {value.name for value in segment.graph.outputs}
    here = [name for name in wanted if name in made]
    segment.graph.outputs.extend(made[name] for name in here if name not in there)
    return here


def _plain(value: Array) -> Array:
    """Return a value in a type that numpy's files have; narrow ones in float32."""
    return value.astype(np.float32) if value.dtype.kind == "V" else np.asarray(value)
