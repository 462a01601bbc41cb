"""Whether a model is valid: structure, types and shapes, without the bytes of any weight."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.check.full import check_types
from vlmpass.ir_tools.check.structure import check_structure
from vlmpass.ir_tools.check.versions import check_functions, check_versions
from vlmpass.ir_tools.check.weightless import ReadBytes, without_weights
from vlmpass.ir_tools.load.source import Source, load

__all__ = ["check", "check_written"]


def check(source: Source) -> None:
    """Check a model of any size; it is not changed and no weight is read.

    First what the onnx checker misses and a runtime refuses (names across scopes, detached values,
    domains, calls of functions), then the onnx checker with strict type and shape inference.
    Operators of unknown domains, and those that ONNX Runtime keeps in the domain of ONNX, are taken
    as they are.

    Args:
        source: Anything that `load` takes.

    Raises:
        ModelError: It is none that can be opened.
        CheckError: The first fault: node, operator, reason, neighbouring nodes, and the onnx
            checker's own words where it found it.
    """
    model = source if isinstance(source, ir.Model) else load(source)
    _check_graph(model)
    check_types(model)


def check_written(
    model: ir.Model,
    written: Callable[[], onnx.ModelProto],
    read: ReadBytes,
    look: Callable[[], None],
) -> None:
    """Check a model and the protobuf that it was written as; it is as good as `check` of a load.

    Args:
        model: In memory.
        written: Returns its protobuf, with the same nodes in the same order, to be changed freely.
        read: Returns bytes of a data file that the protobuf refers to.
        look: Raises what else is wrong with what was written; it takes its time while onnx checks.

    Raises:
        CheckError: The first fault.
    """

    def meanwhile() -> None:
        _check_graph(model)
        look()

    def twin() -> onnx.ModelProto:
        try:
            return without_weights(written(), read)
        except Exception:
            meanwhile()  # it knows better what is wrong
            raise

    check_types(model, twin, meanwhile)


def _check_graph(model: ir.Model) -> None:
    check_versions(model)
    check_structure(model)
    check_functions(model)
