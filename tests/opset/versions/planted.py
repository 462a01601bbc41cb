"""Faults put into adapters on purpose; the cases of their operators must find every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset import conversion as convert
from vlmpass.rewriter_rules.opset import table
from vlmpass.rewriter_rules.opset.seen import original
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Adapter, Outputs, Step

__all__ = ["PLANTED"]

Plant = Callable[[Adapter], Adapter]
Listed = Sequence["ir.Value | None"]


def _listed(outputs: Outputs) -> Listed:
    return [outputs] if isinstance(outputs, ir.Value) else outputs


def forgotten(run: Adapter) -> Adapter:
    """The step is taken for one that changes nothing."""
    return lambda op, node: UNCHANGED


def raises(run: Adapter) -> Adapter:
    """An exception of another library gets out."""

    def faulty(op: Tape, node: ir.Node) -> Outputs:
        raise ValueError("operands could not be broadcast together")

    return faulty


def negated(run: Adapter) -> Adapter:
    """The first result has the other sign."""

    def faulty(op: Tape, node: ir.Node) -> Outputs:
        first, *rest = _listed(run(op, node)) or [None]
        return [first if first is None else op.Neg(first), *rest]

    return faulty


def without(name: str) -> Plant:
    """An attribute of the last new node is lost."""

    def plant(run: Adapter) -> Adapter:
        def faulty(op: Tape, node: ir.Node) -> Outputs:
            outputs = run(op, node)
            for new in op.nodes[-1:]:
                new.attributes.pop(name, None)
            return outputs

        return faulty

    return plant


def turned(run: Adapter) -> Adapter:
    """The operands of every new node of two are the wrong way round."""

    def faulty(op: Tape, node: ir.Node) -> Outputs:
        outputs = run(op, node)
        for new in op.nodes:
            if len(new.inputs) == 2:
                one, other = new.inputs
                new.replace_input_with(0, other)
                new.replace_input_with(1, one)
        return outputs

    return faulty


def instead(old: str, new: str) -> Plant:
    """One operator stands for another."""

    def plant(run: Adapter) -> Adapter:
        def faulty(op: Tape, node: ir.Node) -> Outputs:
            outputs = run(op, node)
            for each in op.nodes:
                if each.op_type == old:
                    each.op_type = new
            return outputs

        return faulty

    return plant


def widened(run: Adapter) -> Adapter:
    """The result has another element type."""

    def faulty(op: Tape, node: ir.Node) -> Outputs:
        first, *rest = _listed(run(op, node)) or [None]
        return [first if first is None else op.Cast(first, to=ir.DataType.BOOL), *rest]

    return faulty


def touching(run: Adapter) -> Adapter:
    """The model is changed while its conversion is planned."""

    def faulty(op: Tape, node: ir.Node) -> Outputs:
        for value in node.inputs:
            if value is not None:
                original(value).doc_string = "seen"
        return run(op, node)

    return faulty


def lost(run: Adapter) -> Adapter:
    """The last operand is left out."""

    def faulty(op: Tape, node: ir.Node) -> Outputs:
        outputs = run(op, node)
        last = op.nodes[-1] if op.nodes else None
        if last is not None and len(last.inputs) > 1:
            last.resize_inputs(len(last.inputs) - 1)
        return outputs

    return faulty


PLANTED: dict[tuple[Step, str], Plant] = {
    (step, plant.__qualname__.split(".")[0]): plant
    for step, plant in (
        (("Softmax", 13, 11), forgotten),
        (("Hardmax", 11, 13), forgotten),
        (("Clip", 11, 6), forgotten),
        (("Squeeze", 13, 11), forgotten),
        (("Squeeze", 11, 1), forgotten),
        (("Split", 13, 11), forgotten),
        (("Slice", 10, 1), forgotten),
        (("Pad", 2, 11), forgotten),
        (("ReduceSum", 13, 11), forgotten),
        (("TopK", 11, 10), forgotten),
        (("Shape", 15, 13), forgotten),
        (("Flatten", 11, 9), forgotten),
        (("Unsqueeze", 13, 11), forgotten),
        (("Add", 6, 7), forgotten),
        (("GRU", 14, 7), forgotten),
        (("Concat", 11, 4), touching),
        (("Gelu", 20, None), negated),
        (("LayerNormalization", 17, None), negated),
        (("Mod", 10, None), turned),
        (("LessOrEqual", 12, None), turned),
        (("GreaterOrEqual", 12, None), instead("Or", "And")),
        (("BitwiseAnd", 18, None), widened),
        (("Trilu", 14, None), raises),
        (("CastLike", 15, None), raises),
        (("RMSNormalization", 23, None), lost),
        (("ReduceMean", 13, 18), without("keepdims")),
        (("Split", 18, 13), forgotten),
    )
}
"""Faults by the step that has them and what they are."""


def planted(patch: pytest.MonkeyPatch, step: Step, plant: Plant) -> None:
    """Put a fault into a step, until the patch is undone; routes are found anew."""
    found = table.entry(step)
    assert found is not None, step
    patch.setitem(table._TABLE, step, replace(found, run=plant(found.run)))
    patch.setattr(convert, "route", convert.route.__wrapped__)
