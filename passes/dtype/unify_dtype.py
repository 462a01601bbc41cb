"""The pass that lets one float type take the place of others, weights and all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.types import solve
from vlmpass.ir_tools.types.retype import retype
from vlmpass.ir_tools.types.typing import Typing
from vlmpass.passes.pipeline.base import Done, OptionError, Pass
from vlmpass.passes.pipeline.values import tell_kept_io
from vlmpass.rewriter_rules.restore import restore

__all__ = ["DTYPES", "UnifyDtype"]

DTYPES = {
    "float64": ir.DataType.DOUBLE,
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
}
RESTORED = "vlmpass.restored"
"""The metadata key of a model under which it says which rounded numbers are exact again."""

_LOG = logging.getLogger(__name__)
_Name = Literal["float64", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class UnifyDtype(Pass):
    """Let one float type take the place of others: weights, attributes, declarations, functions."""

    name: ClassVar[str] = "unify-dtype"

    to: Literal["float32", "float16", "bfloat16"] = "float32"
    """The type that takes their place."""

    from_: tuple[_Name, ...] = ("bfloat16", "float16", "float64")
    """The types that give way; `to` itself may be among them and is left out. Integers computed in
    float64 stay there."""

    keep_io: bool = False
    """Whether the graph's inputs and outputs keep their types, with Casts at the border."""

    keep_rounding: bool = False
    """Whether a Cast to a type that gives way and back is kept, which emulates its rounding."""

    restore_constants: bool = True
    """Whether a number that the exporter rounded to a type that gives way to float32 becomes what
    it was, where what stands around it says so: sqrt(2) of GELU, the root of a size. It is at most
    half a unit of the narrow type away. Not with `keep-rounding`."""

    def __post_init__(self) -> None:
        """Check that there is something to convert."""
        super().__post_init__()
        if not self._mapping():
            raise OptionError("from", f"nothing is left to convert to {self.to}")

    @property
    def half(self) -> ir.DataType | None:
        """The half precision, if it is one."""
        return None if self.to == "float32" else DTYPES[self.to]

    def run(self, model: ir.Model) -> Done:
        """Convert in place."""
        mapping = self._mapping()
        kept = _round_trips(model, solve(model), mapping) if self.keep_rounding else {}
        request = f"{self.name} to {self.to}"
        if self.keep_io:
            tell_kept_io(model, request, mapping)
        changed = retype(model, mapping, request=request, kept=kept, keep_io=self.keep_io)
        changes = EXACT
        if self.restore_constants and self.to == "float32" and not self.keep_rounding:
            changes = _restore(model)
        done = Done(changed or changes != EXACT, changes)
        if not done:
            _LOG.warning("%s: nothing to convert", request)
        return done

    def _mapping(self) -> dict[ir.DataType, ir.DataType]:
        to = DTYPES[self.to]
        return {DTYPES[name]: to for name in self.from_ if DTYPES[name] != to}


def _round_trips(
    model: ir.Model, typing: Typing, mapping: dict[ir.DataType, ir.DataType]
) -> dict[ir.Node, str]:
    """Return the Casts to a narrower type whose result is cast back at once."""
    found: dict[ir.Node, str] = {}
    for node in all_nodes(model):
        if (node.domain, node.op_type) != ("", "Cast") or node.inputs[0] is None:
            continue
        wide, narrow = typing.dtype(node.inputs[0]), typing.dtype(node.outputs[0])
        if wide is None or narrow not in mapping or holds_all(narrow, wide):
            continue
        backs = [user for user, _ in node.outputs[0].uses() if user.op_type == "Cast"]
        if any(
            (back := typing.dtype(user.outputs[0])) is not None
            and back.is_floating_point()
            and back not in mapping
            for user in backs
        ):
            found[node] = f"a round trip through {narrow.name} is kept for its rounding"
    return found


def _restore(model: ir.Model) -> NumberChanges:
    """Restore numbers; say so in the log and, for its readers, in the model's metadata."""
    changes = restore(model)
    if changes.restored:
        model.metadata_props[RESTORED] = changes.restored
        _LOG.warning("restored numbers that the exporter had rounded: %s", changes.restored)
    return changes
