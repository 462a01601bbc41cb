"""Whether two models take and give the same, before either is run."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["match_interfaces"]


def match_interfaces(a: ir.Model, b: ir.Model, findings: list[str]) -> dict[str, int]:
    """Return the sizes that the second model fixes of inputs that are dynamic in the first.

    Args:
        a: The reference.
        b: What is judged.
        findings: Gets what does not match.
    """
    pinned: dict[str, int] = {}
    wanted, offered = _required(a), {value.name: value for value in b.graph.inputs}
    findings += [f"input '{name}' is missing" for name in wanted if name not in offered]
    new = [name for name in _required(b) if name not in wanted]
    findings += [f"input '{name}' is new and has no default" for name in new]
    for name, value in wanted.items():
        if name in offered:
            pinned.update(_pinned(value, offered[name], findings))
    have = {value.name for value in b.graph.outputs}
    lost = [value.name for value in a.graph.outputs if value.name not in have]
    findings += [f"output '{name}' is missing" for name in lost]
    return pinned


def _pinned(a: ir.Value, b: ir.Value, findings: list[str]) -> Iterator[tuple[str, int]]:
    if a.shape is None or b.shape is None:
        return
    if len(a.shape) != len(b.shape):
        findings.append(f"input '{a.name}' has rank {len(b.shape)}, was {len(a.shape)}")
        return
    for axis, (old, new) in enumerate(zip(a.shape, b.shape, strict=True)):
        if isinstance(old, int) and isinstance(new, int) and old != new:
            findings.append(f"input '{a.name}' has {new} at axis {axis}, was {old}")
        elif isinstance(new, int) and isinstance(old, ir.SymbolicDim):
            yield old.value or f"{a.name}[{axis}]", new


def _required(model: ir.Model) -> dict[str, ir.Value]:
    initializers = model.graph.initializers
    return {v.name or "": v for v in model.graph.inputs if v.name not in initializers}
