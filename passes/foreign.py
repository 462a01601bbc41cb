"""Passes of onnx_ir and of packages built on it, run by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.clone import adopt
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.values import imported

__all__ = ["Foreign"]


@dataclass(frozen=True)
class Foreign(Pass):
    """Run an onnx_ir pass class of any package."""

    name = "foreign"
    edits_shapes: ClassVar[bool] = True
    nothing: ClassVar[str] = "the pass changed nothing"
    idempotent: ClassVar[bool] = False

    class_: str
    """The class as package.module:Class, such as
    onnx_ir.passes.common:CommonSubexpressionEliminationPass."""
    arguments: tuple[tuple[str, bool | int | float | str], ...] = ()
    """Keyword arguments for the class, such as size_limit=1024."""

    def __post_init__(self) -> None:
        """Find the class, so that a wrong name is noticed before anything runs."""
        super().__post_init__()
        self._pass()

    def run(self, model: ir.Model) -> bool:
        """Run the pass; if it returns another model, this one takes its contents over."""
        result = self._pass()(model)
        if result.model is not model:
            adopt(model, result.model)
        return result.modified

    def _pass(self) -> ir.passes.PassBase:
        found = imported("class", self.class_, "package.module:Class")
        if not (isinstance(found, type) and issubclass(found, ir.passes.PassBase)):
            raise OptionError("class", f"{self.class_} is no class derived from ir.passes.PassBase")
        try:
            return found(**dict(self.arguments))
        except TypeError as error:
            raise OptionError("class", f"{self.class_} rejects the arguments: {error}") from error
