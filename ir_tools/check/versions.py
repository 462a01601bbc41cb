"""Faults of versions and calls: what the IR version admits, which opsets exist, who calls whom."""

from __future__ import annotations

import onnx.defs
import onnx_ir as ir

from vlmpass.ir_tools.check.fault import fault
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.walk import all_values, scopes, tensor_slots

__all__ = ["check_functions", "check_versions"]

_TYPES_SINCE_IR = {
    4: ("BFLOAT16",),
    9: ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    10: ("INT4", "UINT4"),
    11: ("FLOAT4E2M1",),
    12: ("FLOAT8E8M0",),
    13: ("INT2", "UINT2"),
    14: ("FLOAT6E2M3", "FLOAT6E3M2"),
}
"""From the version notes in onnx.proto."""
_IR_OF_TYPE = {name: ir_version for ir_version, names in _TYPES_SINCE_IR.items() for name in names}


def check_versions(model: ir.Model) -> None:
    """Check that the IR version admits what the model holds and that its opsets exist.

    Raises:
        CheckError: The first fault.
    """
    if model.ir_version > onnx.IR_VERSION:
        raise CheckError(
            f"IR version {model.ir_version} is newer than any this onnx knows ({onnx.IR_VERSION})",
            remedy="upgrade onnx",
        )
    newest = onnx.defs.onnx_opset_version()
    imports = [model.opset_imports]
    imports += [function.opset_imports for function in model.functions.values()]
    for opsets in imports:
        version = opsets.get("", newest)
        if not 1 <= version <= newest:
            raise CheckError(f"opset {version} is none that this onnx knows (1 to {newest})")
    needed, why = _needed_ir_version(model)
    if model.ir_version < needed:
        raise CheckError(
            f"IR version {model.ir_version} has no {why}", remedy=f"set it to {needed} or higher"
        )


def _needed_ir_version(model: ir.Model) -> tuple[int, str]:
    """Return the lowest IR version that has all the model holds, and what needs it."""
    needed = [(3, "opset imports")]
    # Older ones have no functions by the standard; onnx and ONNX Runtime read them all the same.
    if any(overload for _, _, overload in model.functions):
        needed.append((10, "overloaded functions"))
    used = {value.dtype for value in all_values(model)}
    used |= {slot.tensor.dtype for slot in tensor_slots(model)}
    for dtype in used - {None}:
        assert dtype is not None
        needed.append((_IR_OF_TYPE.get(dtype.name, 1), f"type {dtype.name.lower()}"))
    return max(needed)


def check_functions(model: ir.Model) -> None:
    """Check that calls fit the functions' signatures and that no function calls itself.

    Raises:
        CheckError: The first fault.
    """
    calls: dict[ir.OperatorIdentifier, list[ir.OperatorIdentifier]] = {}
    for scope in scopes(model):
        for node in scope.graph:
            function = model.functions.get(node.op_identifier())
            if function is None:
                continue
            if isinstance(scope.owner, ir.Function):
                calls.setdefault(scope.owner.identifier(), []).append(function.identifier())
            for kind, given, taken in (
                ("inputs", len(node.inputs), len(function.inputs)),
                ("outputs", len(node.outputs), len(function.outputs)),
            ):
                if given > taken:
                    raise fault(node, f"it has {given} {kind}, the function it calls {taken}")
    cycle = _cycle(calls)
    if cycle:
        names = " -> ".join(f"{domain}::{name}" for domain, name, _ in cycle)
        raise CheckError(f"functions call themselves: {names}")


def _cycle(
    calls: dict[ir.OperatorIdentifier, list[ir.OperatorIdentifier]],
) -> list[ir.OperatorIdentifier]:
    """Return functions that call each other in a circle, the first one again at the end."""
    done: set[ir.OperatorIdentifier] = set()
    for start in calls:
        path = [start]
        pending = [iter(calls[start])]
        while pending:
            callee = next(pending[-1], None)
            if callee is None:
                pending.pop()
                done.add(path.pop())
            elif callee in path:
                return [*path[path.index(callee) :], callee]
            elif callee not in done:
                path.append(callee)
                pending.append(iter(calls.get(callee, ())))
    return []
