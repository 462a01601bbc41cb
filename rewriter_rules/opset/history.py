"""An operator's history and what each of its steps comes to, straight from the table."""

from __future__ import annotations

from dataclasses import dataclass

from vlmpass.ir_tools.operators.schema import Schema, history, schema, since
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET
from vlmpass.rewriter_rules.opset.table import Step, entry, is_same, why_unspelled

__all__ = ["StepSummary", "Version", "tell"]


@dataclass(frozen=True)
class StepSummary:
    """What one step comes to.

    Attributes:
        source: Since-version it leads from.
        target: Since-version it leads to; None where the operator does not exist.
        kind: ``same``: only types change; ``exact``: another form of the operator; ``expanded``:
            other operators; ``refused``: for every node.
        by: The adapter's name; empty where there is none.
        says: The adapter's formula, or why the step is refused.
    """

    source: int
    target: int | None
    kind: str
    by: str = ""
    says: str = ""


@dataclass(frozen=True)
class Version:
    """One since-version of an operator.

    Attributes:
        since: The opset that brought it.
        changes: What it changed, one text each; for the first version, none.
        up: The step to it from the version before; None for the first.
        down: The step from it to the version before, or out of existence; None for the version
            in force at opset 7, the lowest that is written.
    """

    since: int
    changes: tuple[str, ...]
    up: StepSummary | None
    down: StepSummary | None


def _step_summary(step: Step) -> StepSummary:
    _, source, target = step
    found = entry(step)
    if found is not None:
        return StepSummary(source, target, found.kind, found.name, found.summary)
    if is_same(step):
        return StepSummary(source, target, "same")
    reason = why_unspelled(step) or "no conversion is known"
    return StepSummary(source, target, "refused", says=reason)


def _names(found: Schema, *, outputs: bool = False) -> list[str]:
    return [formal.name for formal in (found.outputs if outputs else found.inputs)]


def _types(found: Schema) -> set[str]:
    return {name for formal in (*found.inputs, *found.outputs) for name in formal.types}


def _between(before: Schema, after: Schema) -> tuple[str, ...]:
    """Return what a version changed in the operator's signature."""
    pairs = [
        ("attribute", sorted(before.attributes), sorted(after.attributes)),
        ("input", _names(before), _names(after)),
        ("output", _names(before, outputs=True), _names(after, outputs=True)),
        ("type", sorted(_types(before)), sorted(_types(after))),
    ]
    texts = []
    for what, old, new in pairs:
        for verb, names in (
            ("added", [name for name in new if name not in old]),
            ("removed", [name for name in old if name not in new]),
        ):
            if names:
                plural = "s" if len(names) > 1 else ""
                texts.append(f"{what}{plural} {verb}: {', '.join(names)}")
    for name in sorted(set(before.defaults) & set(after.defaults)):
        old, new = before.defaults[name].value, after.defaults[name].value
        if old != new:
            texts.append(f"default of {name}: {old} -> {new}")
    if after.deprecated and not before.deprecated:
        texts.append("retired")
    return tuple(texts)


def tell(operator: str) -> tuple[Version, ...]:
    """Return an operator's versions from opset 7 on, oldest first; empty for an unknown one."""
    known = history(operator)
    lowest = since(operator, OLDEST_OPSET)
    versions = [version for version in known if lowest is None or version >= lowest]
    told = []
    for index, version in enumerate(versions):
        before = versions[index - 1] if index else None
        changes: tuple[str, ...] = ()
        up = None
        if before is not None:
            changes = _between(schema(operator, before), schema(operator, version))
            up = _step_summary((operator, before, version))
        oldest = before is None and lowest is not None
        down = None if oldest else _step_summary((operator, version, before))
        told.append(Version(version, changes, up, down))
    return tuple(told)
