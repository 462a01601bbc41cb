"""What a model declares of a value's shape, against what follows from its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.check.fault import fault
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.shapes.inferred import Size, inferred_shapes

__all__ = ["Sizes", "check_declared", "declared_sizes", "merged", "refuted"]

Sizes: TypeAlias = "tuple[int | str | None, ...]"


def declared_sizes(value: ir.Value) -> Sizes | None:
    """Return the declared sizes of a value's axes, names among them; None if not even the rank."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def refuted(declared: Sizes | None, sizes: Sequence[Size] | None) -> bool:
    """Whether a declared size is another number, or a number where the inputs decide.

    Args:
        declared: Sizes as declared; None where nothing is, which nothing refutes.
        sizes: What follows from the inputs; None where nothing does.
    """
    if declared is None or sizes is None:
        return False
    return len(declared) != len(sizes) or any(
        isinstance(old, int) and old != size.known and (size.known is not None or size.varies)
        for old, size in zip(declared, sizes, strict=True)
    )


def merged(
    declared: Sizes | None, sizes: Sequence[Size] | None, *, stale: bool, keep_names: bool
) -> Sizes | None:
    """Return what is to be declared: what follows, and where nothing does what was declared.

    Args:
        declared: Sizes as declared.
        sizes: What follows from the inputs.
        stale: Whether declared sizes are known to be of other inputs: then none stays.
        keep_names: Whether a declared name stays where no number follows.
    """
    if sizes is None:
        return None if declared is None else tuple(None if stale else dim for dim in declared)
    if declared is None or len(declared) != len(sizes):
        return tuple(size.known for size in sizes)
    dims: list[int | str | None] = []
    for old, size in zip(declared, sizes, strict=True):
        named = isinstance(old, str) and keep_names and not isinstance(size.known, int)
        unknown = size.known is None and not stale
        dims.append(old if named or unknown else size.known)
    return tuple(dims)


def check_declared(model: ir.Model) -> None:
    """Check the sizes that results of operators beside ONNX are declared with.

    The onnx checker holds those of its own operators to what follows, and takes others as they are.

    Args:
        model: A valid one; it is not changed.

    Raises:
        CheckError: The first that is another number than follows from the inputs.
    """
    if not any(node.domain not in ("", "ai.onnx") for node in all_nodes(model)):
        return
    for value, sizes in inferred_shapes(model).items():
        node = value.producer()
        for axis, old, new in _other_numbers(declared_sizes(value), sizes):
            assert node is not None
            reason = f"{value.name} is declared with {old} in dimension {axis}, and it makes {new}"
            raise fault(node, reason, _INFERS)


_INFERS = "vlmpass convert --passes infer writes what follows from the inputs"


def _other_numbers(
    declared: Sizes | None, sizes: Sequence[Size] | None
) -> Iterator[tuple[int, int, int]]:
    """Yield the axes at which a declared number is not the one that follows, with both."""
    if declared is None or sizes is None or len(declared) != len(sizes):
        return
    for axis, (old, size) in enumerate(zip(declared, sizes, strict=True)):
        new = size.known
        if isinstance(old, int) and isinstance(new, int) and old != new:
            yield axis, old, new
