"""What a pass needs to know of a model, and whether what is known is still whole."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_values

__all__ = ["Need", "Provisions"]


class Need(enum.Enum):
    """Something that the manager provides before a pass runs, where it is not there."""

    SHAPES = "shapes"
    """Every value has the type and shape that follow from the inputs."""
    NEW_SHAPES = "new shapes"
    """They were inferred of the nodes as they are: of fewer nodes, more may follow."""

    @property
    def says(self) -> str:
        """How it is provided, in words."""
        lacking = {
            Need.SHAPES: "they are not all there",
            Need.NEW_SHAPES: "the model has changed since they were inferred",
        }
        return f"infer runs first where {lacking[self]}"


class Provisions:
    """What has been provided in a run of passes, and is still there."""

    def __init__(self) -> None:
        self._open: set[ir.Value] | None = None
        self._changed = False

    def lacks(self, needs: Collection[Need], model: ir.Model) -> bool:
        """Whether nobody has inferred shapes, or there are new values that have none."""
        known = self._open
        if Need.NEW_SHAPES in needs and self._changed:
            return True
        if Need.SHAPES not in needs:
            return False
        return known is None or any(value not in known for value in _shapeless(model))

    def provided(self, model: ir.Model) -> None:
        """Note that all shapes that follow have just been written."""
        self._open, self._changed = set(_shapeless(model)), False

    def changed(self) -> None:
        """Note that the model is another one than that of which shapes were inferred."""
        self._changed = True

    def dropped(self) -> None:
        """Note that shapes may be wrong, or gone."""
        self._open = None


def _shapeless(model: ir.Model) -> Iterator[ir.Value]:
    return (value for value in all_values(model) if value.shape is None or value.type is None)
