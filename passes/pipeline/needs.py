"""What a pass needs to know of a model, and whether what is known is still whole."""

from __future__ import annotations

import enum
from collections.abc import Iterator

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_values

__all__ = ["Need", "Provisions"]


class Need(enum.Enum):
    """Something that the manager provides before a pass runs, where it is not there."""

    SHAPES = "shapes"
    """Every value has the type and shape that follow from the inputs."""

    @property
    def says(self) -> str:
        """How it is provided, in words."""
        return "infer runs first where they are not all there"


class Provisions:
    """What has been provided in a run of passes, and is still there."""

    def __init__(self) -> None:
        self._open: set[ir.Value] | None = None

    def lacks_shapes(self, model: ir.Model) -> bool:
        """Whether nobody has inferred shapes, or there are new values that have none."""
        known = self._open
        return known is None or any(value not in known for value in _shapeless(model))

    def provided(self, model: ir.Model) -> None:
        """Note that all shapes that follow have just been written."""
        self._open = set(_shapeless(model))

    def dropped(self) -> None:
        """Note that shapes may be wrong, or gone."""
        self._open = None


def _shapeless(model: ir.Model) -> Iterator[ir.Value]:
    return (value for value in all_values(model) if value.shape is None or value.type is None)
