"""Which value is the first that a narrow type cannot hold, seen while others are compared."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.run.addition import Addition
from vlmpass.ir_tools.run.gauge import Gauge
from vlmpass.ir_tools.run.ranges import too_large
from vlmpass.ir_tools.run.segment_runner import Watch
from vlmpass.ir_tools.types.typing import solve
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Leaving", "Watched"]


@dataclass(frozen=True)
class Leaving:
    """A value that a narrow type cannot hold.

    Attributes:
        name: Of the value, or of what computes it inside of a node.
        inside: The node that computes it inside, such as a normalisation; empty for a value that
            the model itself has.
        reaches: Its largest magnitude; infinite where the narrow type is given it.
    """

    name: str
    inside: str
    reaches: float


class Watched:
    """Measures the values of a twin while something else watches it.

    Args:
        watch: The other.
        twin: Computes in float32 and casts what is to be rounded to the type.
        dtype: The type.
    """

    def __init__(self, watch: Watch, twin: ir.Model, dtype: ir.DataType) -> None:
        self._watch, self._twin, self._dtype = watch, twin, dtype
        self._gauge = Gauge(solve(twin), twin)

    def prepare(self, segment: ir.Model) -> Addition:
        """Let the other give it outputs; what measures comes on top."""
        self._watch.prepare(segment)
        return self._gauge.prepare(segment)

    def see(self, results: Feed) -> None:
        """Take what was measured, and show the other the rest."""
        self._gauge.see(results)
        self._watch.see(results)

    def first(self, model: ir.Model) -> Leaving | None:
        """Return the first that the type cannot hold.

        Args:
            model: What the twin was made of; what it has no value for is inside of a node.
        """
        found = too_large(self._twin, self._gauge.found, self._dtype)
        if not found:
            return None
        name, reaches = next(iter(found.items()))
        values = {value.name: node for node in model.graph for value in node.outputs}
        if name in values or name in {value.name for value in model.graph.inputs}:
            return Leaving(name, "", reaches)
        return Leaving(name, name_node(_around(self._twin, name, values)), reaches)


def _around(twin: ir.Model, name: str, nodes: dict[str | None, ir.Node]) -> ir.Node:
    """Return the node of a model that a value of its twin is inside of."""
    nearest = [value for node in twin.graph for value in node.outputs if value.name == name]
    seen = set(nearest)
    for value in nearest:
        for user, _ in value.uses():
            for made in user.outputs:
                if made.name in nodes:
                    return nodes[made.name]
                if made not in seen:
                    seen.add(made)
                    nearest.append(made)
    raise AssertionError(f"'{name}' leads to nothing that the model has")
