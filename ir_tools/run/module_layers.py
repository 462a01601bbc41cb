"""What the modules inside a program take and give, compared with the values of a model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.run.comparison import Comparison
from vlmpass.ir_tools.run.feeds import cast_all
from vlmpass.ir_tools.run.kept_values import Judged, Kept, Layer
from vlmpass.ir_tools.run.layer_runs import Inside, feeds_of, run_watched
from vlmpass.ir_tools.run.module_values import Look, matched_parts
from vlmpass.ir_tools.run.participants import Side
from vlmpass.ir_tools.run.program import Part, Program
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["of_module"]


def of_module(
    stack: ExitStack, compared: Comparison, fed: Feed | None, bound: float, folder: Path
) -> Inside:
    """Compare what modules take and give with a model's values.

    Args:
        stack: Closes what was opened.
        compared: A program and a model.
        fed: The user's own inputs; None for generated ones.
        bound: What is allowed of each value, see `compare_arrays`.
        folder: Where tensors are kept.
    """
    first = compared.a.program is not None
    side, other = (compared.b, compared.a) if first else (compared.a, compared.b)
    assert other.program is not None
    kept = Kept(folder)
    taken: list[Feed] = []
    seen: dict[Part, Look] = {}
    for feed in feeds_of(stack, compared, fed):
        shown = _seen(other, other.program, feed, kept, len(taken))
        if shown is not None:
            taken.append(feed)
            seen = seen or shown
    found = matched_parts(side.model, other.program.modules, seen)
    if not taken or not found:
        return Inside()
    pairs = {name: each.part for name, each in found.items()}
    modules = {name: each.module for name, each in found.items()}
    watch = Judged(
        side.model, pairs, kept, compared.tolerance, bound, modules=modules, reference=not first
    )
    leaving = run_watched(stack, side, taken, watch)
    layers = watch.by_value()
    apart = _apart(side.model, layers)
    told = tuple(layer for name, layer in layers.items() if name not in apart)
    return Inside(told, leaving, tuple(str(pairs[name]) for name in apart))


def _seen(
    side: Side, program: Program, feed: Feed, kept: Kept, number: int
) -> dict[Part, Look] | None:
    """Run a program, keep what its modules take and give; return None if it refuses the inputs."""
    found: dict[Part, Look] = {}

    def see(part: Part, array: Array) -> None:
        found[part] = array.dtype, array.shape
        kept.keep(part, number, array)

    try:
        program.watched(cast_all(feed, side.takes()), see)
    except VerifyError:  # ours, of keeping what is shown or of running
        raise
    except Exception:  # noqa: BLE001 - the module's own code; outputs were compared, which says so
        return None
    return found


def _apart(model: ir.Model, layers: Mapping[str, Layer]) -> list[str]:
    """Return values that differ though all that is compared next of what they lead to is equal."""
    wrong = [name for name, layer in layers.items() if not layer.difference.ok]
    values = {value.name: value for node in model.graph for value in node.outputs}
    owner = {
        inner: node
        for node in model.graph
        for graph in subgraphs(node)
        for inner in graph.all_nodes()
    }
    found = []
    for name in wrong:
        nexts = _next(values[name], layers, owner)
        if nexts and all(layers[each].difference.ok for each in nexts):
            found.append(name)
    return found


def _next(
    value: ir.Value, layers: Mapping[str, Layer], owner: Mapping[ir.Node, ir.Node]
) -> set[str]:
    """Return the first values on every way from one that were compared."""
    found: set[str] = set()
    ahead, seen = [value], {value}
    while ahead:
        for user, _ in ahead.pop().uses():
            for made in owner.get(user, user).outputs:
                if made in seen:
                    continue
                seen.add(made)
                if made.name in layers:
                    found.add(str(made.name))
                else:
                    ahead.append(made)
    return found
