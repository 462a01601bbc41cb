"""The pass tie: the table of embeddings and the head of a decoder share what they hold twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import remove_initializer
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import Box, Weight, as_weight, reshape, transpose
from vlmpass.ir_tools.weights.boxes import grid, tile_shape
from vlmpass.passes.pipeline.base import Pass

__all__ = ["Tie"]

TABLES = {("", "Gather"): 1, ("com.microsoft", "GatherBlockQuantized"): 4}
"""Operators that look rows up, and how many of their first inputs a table is made of."""
TILE = 1 << 22
"""Elements that are compared at a time."""


@dataclass(frozen=True)
class Tie(Pass):
    """Let the table of embeddings and the head be one weight where they hold the same.

    What is looked up by rows, quantised or not, is compared bit for bit with every other weight of
    as many bytes: as it is, in another shape, or with rows and columns swapped. One of both stays,
    and the other is a Reshape or Transpose of it. Weights that stay are not written anew.
    """

    name: ClassVar[str] = "tie"
    nothing: ClassVar[str] = "no table of embeddings is held a second time"

    def run(self, model: ir.Model) -> bool:
        """Compare tables with other initializers of the main graph."""
        names, changed = Names.of(model), False
        for table in list(_tables(model.graph)):
            for other in list(model.graph.initializers.values()):
                if model.graph.initializers.get(table.name or "") is not table:
                    break  # it was another table's second copy
                form = None if other is table else _form(table, other)
                if form and may_apply(self.name, other.name or ""):
                    _share(model, table, other, form, names)
                    changed = True
                    break
        return changed


def _tables(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield initializers that rows are looked up in, larger ones first."""
    found = [
        value
        for value in graph.initializers.values()
        if _is_weight(value) and any(_looks_up(*use) for use in value.uses())
    ]
    yield from sorted(found, key=lambda value: -_tensor(value).nbytes)


def _looks_up(node: ir.Node, at: int) -> bool:
    return at != 1 and at < TABLES.get((node.domain, node.op_type), 0)


def _is_weight(value: ir.Value) -> bool:
    tensor = value.const_value
    plain = tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.size > 1
    return plain and not value.is_graph_input() and not value.is_graph_output()


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None
    return value.const_value


def _form(table: ir.Value, other: ir.Value) -> str | None:
    """Return how another weight is made of a table: as it is, Reshape or Transpose."""
    if not _is_weight(other) or all(_looks_up(*use) for use in other.uses()):
        return None
    one, two = as_weight(_tensor(table)), as_weight(_tensor(other))
    if one.dtype != two.dtype or one.size != two.size or one.dtype.bitwidth < 8:
        return _same_small_types(one, two)
    mine, others = one.expression.shape, two.expression.shape
    if mine == others:
        return "same" if _equal(one, two) else None
    if _equal(one, reshape(two, mine)):
        return "Reshape"
    turned = len(mine) == 2 and others == mine[::-1]
    return "Transpose" if turned and _equal(one, transpose(two, (1, 0))) else None


def _same_small_types(one: Weight, two: Weight) -> str | None:
    """Return whether weights of elements below a byte are the same; no kernel reshapes these."""
    alike = one.dtype == two.dtype and one.expression.shape == two.expression.shape
    return "same" if alike and one.size and _equal(one, two) else None


def _equal(one: Weight, two: Weight) -> bool:
    """Return whether two weights hold the same bits, read in tiles and until they differ."""
    if one.expression == two.expression:
        return True
    return all(_bits(one, box) == _bits(two, box) for box in _tiles(one))


def _tiles(weight: Weight) -> Iterator[Box]:
    """Yield boxes that cover a weight, which read well by rows and by columns."""
    shape = weight.expression.shape
    first = tuple((0, min(size, 16)) for size in shape)
    yield first
    yield from grid(shape, tile_shape(shape, tuple(reversed(range(len(shape)))), TILE))


def _bits(weight: Weight, box: Box) -> bytes:
    return np.ascontiguousarray(weight.read(box)).tobytes()


def _share(model: ir.Model, table: ir.Value, other: ir.Value, form: str, names: Names) -> None:
    """Let one weight stand for two: the head where it is reshaped, else the table.

    Heads in blocks of bits are best for kernels as they are, and a table is not read as a whole.
    """
    if form == "same":
        other.replace_all_uses_with(table)
        remove_initializer(other)
        return
    kept, gone = (other, table) if form == "Reshape" else (table, other)
    shape = [int(size) for size in _tensor(gone).shape.numpy()]
    tape = Tape(names, model.graph.opset_imports, gone.name or "table")
    new = (
        tape.Reshape(kept, tape.const(shape))
        if form == "Reshape"
        else tape.Transpose(kept, perm=[1, 0])
    )
    assert math.prod(shape) == _tensor(kept).size
    for constant in tape.constants:
        model.graph.register_initializer(constant)
    model.graph.insert_before(model.graph[0], tape.nodes)
    gone.replace_all_uses_with(new)
    remove_initializer(gone)
