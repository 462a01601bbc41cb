"""Inputs and outputs of a model in a wider type where its target binds none of theirs."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.operators.dtypes import wider
from vlmpass.ir_tools.targets import Profile

__all__ = ["unbound", "widen_interface"]

_RULE = "wider-interface"


def unbound(
    model: ir.Model, target: Profile
) -> Iterator[tuple[MutableSequence[ir.Value], int, ir.DataType | None]]:
    """Yield inputs and outputs of types that a target does not bind, with a wider one that it does.

    Args:
        model: It is not changed.
        target: What for.

    Yields:
        The graph's inputs or outputs, the place among them, and the type; None for no such type.
    """
    if target.interface is None:
        return
    initializers = model.graph.initializers
    for values in (model.graph.inputs, model.graph.outputs):
        for place, value in enumerate(values):
            if not target.binds(value):
                plain = isinstance(value.type, ir.TensorType) and value.name not in initializers
                kinds = wider(value.type.dtype) if plain and value.type is not None else ()
                yield values, place, next(filter(target.binds_type, kinds), None)


def widen_interface(model: ir.Model, target: Profile) -> bool:
    """Let a model take and give wider types where its target binds none of those that it has.

    Returns:
        Whether anything was changed.
    """
    names = Names.of(model)
    found = [each for each in unbound(model, target) if each[2] is not None]
    for values, place, wide in found:
        assert wide is not None
        inner = values[place]
        outer = ir.Value(
            name=inner.name,
            type=ir.TensorType(wide),
            shape=inner.shape,
            doc_string=inner.doc_string,
            metadata_props=dict(inner.metadata_props),
        )
        assert inner.dtype is not None
        inner.name = names.value(f"{outer.name}_{inner.dtype.name.lower()}")
        goes_in = values is model.graph.inputs
        values[place] = outer
        first, last = (outer, inner) if goes_in else (inner, outer)
        assert last.dtype is not None
        node = ir.Node(
            "",
            "Cast",
            [first],
            [ir.AttrInt64("to", last.dtype.value)],
            outputs=[last],
            name=names.node(f"{outer.name}_cast"),
            metadata_props={"vlmpass.rule": _RULE},
        )
        if goes_in and len(model.graph):
            model.graph.insert_before(model.graph[0], node)
        else:
            model.graph.append(node)
    return bool(found)
