"""The pass that writes the opset into a model that its nodes were written for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.operators.schema import default_opset
from vlmpass.passes.pipeline.base import Pass
from vlmpass.rewriter_rules.opset import stamp
from vlmpass.rewriter_rules.opset.restamp import misfits_at, nearest_valid, vet_meaning

__all__ = ["Restamp"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restamp(Pass):
    """Stamp the opset that the nodes were written for, where the file says another.

    No node changes. A model with a Gelu in opset 17 is invalid, and no conversion can start from
    it; restamped it is one of opset 20. What was valid as stamped must mean the same, or the model
    is refused. Verification compares with the source restamped likewise.
    """

    name: ClassVar[str] = "restamp"
    mends_source: ClassVar[bool] = True

    to: int | None = None
    """Opset that the nodes were written for, as the caller knows; by default the nearest one at
    which every node is valid, above the stamped one if there is any."""

    def run(self, model: ir.Model) -> bool:
        """Change imports and ir_version in place, or refuse."""
        stamped = default_opset(model.opset_imports)
        if self.to is None:
            opset = nearest_valid(model)
            if opset == stamped:
                _LOG.warning("restamp: opset %d is the one that the nodes are written for", opset)
                return False
            vet_meaning(model, opset)
        else:
            opset = self.to
            if misfits := misfits_at(model, opset):
                raise Refused(f"restamp to {opset}", misfits)
            if opset == stamped:
                _LOG.warning("restamp: opset %d is stamped already", opset)
                return False
        _LOG.warning(
            "opset %s was stamped on nodes of opset %d; it is %d now", stamped, opset, opset
        )
        return stamp(model, opset)
