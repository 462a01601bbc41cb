"""The opset that a model's nodes were written for, where its file says another.

Exporters stamp an opset of their own choice on nodes of a later one: a Gelu in opset 17, a blocked
DequantizeLinear in 19. Such a model is invalid as it stands, and no conversion can start from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from vlmpass.ir_tools.check.full import check_types
from vlmpass.ir_tools.errors import CheckError, Refusal, Refused
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.operators.schema import default_opset, history
from vlmpass.ir_tools.system.opsets import FIRST_OPSET, OLDEST_OPSET, newest_opset
from vlmpass.rewriter_rules.opset.conversion import ill_formed
from vlmpass.rewriter_rules.opset.planner import Planner, label
from vlmpass.rewriter_rules.opset.stamp import stamp

__all__ = ["advised", "misfits_at", "nearest_valid", "remedy", "vet_meaning"]

_Use = tuple[ir.Node, int]
"""A node of the default domain, and the opset that its graph or function imports."""


def nearest_valid(model: ir.Model) -> int:
    """Return the opset nearest to the one stamped at which every node is valid.

    The stamped one comes first, then those above it, then, where it has not all nodes as they are
    written, those below. Where types or shapes are wrong at all of them, arguments and attributes
    decide.

    Raises:
        Refused: No opset has all nodes as they are written.
    """
    uses = list(_uses(model))
    stamped = _stamped(model)
    order = [*range(stamped, newest_opset() + 1), *range(stamped - 1, OLDEST_OPSET - 1, -1)]
    formed: list[int] = [
        opset for opset in order if not any(ill_formed(node, opset) for node, _ in uses)
    ]
    if not formed:
        raise Refused("restamp", list(_contradictions(uses, stamped)))
    # Types only widen: what passes below alone is sizes that are not inferred there.
    least = stamped if formed[0] == stamped else OLDEST_OPSET
    fitting = (opset for opset in formed if opset >= least and _passes(model, opset))
    return next(fitting, formed[0])


def misfits_at(model: ir.Model, opset: int) -> list[Refusal]:
    """Return the nodes that an opset does not have as they are written."""
    found = ((node, ill_formed(node, opset)) for node, _ in _uses(model))
    return [Refusal(label(node, opset), reason) for node, reason in found if reason]


def vet_meaning(model: ir.Model, opset: int) -> None:
    """Refuse an opset at which nodes that are valid as stamped would compute something else.

    Raises:
        Refused: Names them; which of the two is meant, nobody can know.
    """
    astray = frozenset(node for node, stamped in _uses(model) if ill_formed(node, stamped))
    try:
        plan = Planner(model, passed_over=astray).plan(opset)
        refusals = [Refusal(label(each.node, opset), "") for each in plan.replacements]
    except Refused as refused:
        refusals = list(refused.refusals)
    if refusals:
        reason = f"at opset {opset} it computes something else, or is written otherwise"
        advice = f"restamp{{to={opset}}} among --passes says that it was written for {opset}"
        told = [Refusal(each.node, reason, advice) for each in refusals]
        raise Refused("restamp", told)


def advised(model: ir.Model, refused: Refused) -> Refused:
    """Return a refusal with the advice to restamp, where nodes are not of the stamped opset."""
    astray = {label(node, opset) for node, opset in _uses(model) if ill_formed(node, opset)}
    if not any(each.node in astray for each in refused.refusals):
        return refused
    advice = remedy(model)
    told = [
        replace(each, remedy=each.remedy or advice) if each.node in astray else each
        for each in refused.refusals
    ]
    return Refused(refused.request, told)


def remedy(model: ir.Model) -> str:
    """Return the advice to restamp a model, or nothing if that does not make it valid."""
    try:
        opset = nearest_valid(model)
        if opset == _stamped(model) or not _passes(model, opset):
            return ""
        vet_meaning(model, opset)
    except Refused:
        return ""
    return f"vlmpass convert --restamp stamps opset {opset}, at which every node is valid"


def _stamped(model: ir.Model) -> int:
    stamped = default_opset(model.opset_imports)
    return newest_opset() if stamped is None else max(FIRST_OPSET, min(stamped, newest_opset()))


def _uses(model: ir.Model) -> Iterator[_Use]:
    for scope in scopes(model):
        opset = default_opset(scope.opsets)
        for node in scope.graph:
            ours = node.domain == "" and node.op_identifier() not in model.functions
            if opset is not None and ours and history(node.op_type):
                yield node, opset


def _passes(model: ir.Model, opset: int) -> bool:
    with _as_if(model, opset):
        try:
            check_types(model)
        except CheckError:
            return False
    return True


@contextlib.contextmanager
def _as_if(model: ir.Model, opset: int) -> Iterator[None]:
    imported = [model.graph.opset_imports]
    imported += [function.opset_imports for function in model.functions.values()]
    kept = [dict(imports) for imports in imported]
    version = model.ir_version
    stamp(model, opset)
    try:
        yield
    finally:
        model.ir_version = version
        for imports, before in zip(imported, kept, strict=True):
            imports.clear()
            imports.update(before)


def _contradictions(uses: list[_Use], stamped: int) -> Iterator[Refusal]:
    """Yield the first node that is not valid as stamped, and those valid at none of its opsets."""
    first = next(node for node, _ in uses if ill_formed(node, stamped))
    fitting = _fitting(first)
    yield Refusal(label(first, stamped), _said(fitting))
    seen = {fitting}
    for node, _ in uses:
        others = _fitting(node)
        if others not in seen and not set(others) & set(fitting):
            seen.add(others)
            yield Refusal(label(node, stamped), _said(others))


def _fitting(node: ir.Node) -> tuple[int, ...]:
    opsets = range(FIRST_OPSET, newest_opset() + 1)
    return tuple(opset for opset in opsets if not ill_formed(node, opset))


def _said(opsets: tuple[int, ...]) -> str:
    if not opsets:
        return "no opset has it as it is written"
    return f"as it is written, it is of opset {opsets[0]} to {opsets[-1]}"
