"""Faults of versions and calls: what the IR version admits, which opsets exist, who calls whom."""

from __future__ import annotations

import onnx.defs
import onnx_ir as ir

from vlmpass.ir_tools.check.fault import fault
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.graph.ir_versions import features
from vlmpass.ir_tools.graph.walk import scopes

__all__ = ["check_functions", "check_versions"]


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
    # Older ones have no functions by the standard; onnx and ONNX Runtime read them all the same.
    needed, why = max(each for each in features(model) if each[1] != "functions")
    if model.ir_version < needed:
        raise CheckError(
            f"IR version {model.ir_version} has no {why}", remedy=f"set it to {needed} or higher"
        )


def check_functions(model: ir.Model) -> None:
    """Check that calls fit the functions' signatures and that no function calls itself.

    Raises:
        CheckError: The first fault.
    """
    calls: dict[ir.OperatorIdentifier, list[ir.OperatorIdentifier]] = {}
    for scope in scopes(model) if model.functions else ():
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
