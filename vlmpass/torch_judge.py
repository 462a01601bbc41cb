"""Holds a model to the PyTorch module that it was exported from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from vlmpass.acceptance import worst_of
from vlmpass.ir_tools.errors import ArgumentError, VerifyError
from vlmpass.ir_tools.run.recorded import verify_recorded
from vlmpass.ir_tools.run.torch_hooks import array_of
from vlmpass.ir_tools.worker.transport import Array
from vlmpass.torch_values import Call, negated, resized

if TYPE_CHECKING:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["Judge"]

_OTHERS: tuple[Callable[[int], int], ...] = (
    lambda n: n + 1,
    lambda n: n * 2,
    lambda n: n + 8,
    lambda n: n - 1,
)
"""What every dynamic dimension becomes in a second comparison: the first that the module takes."""


class Judge:
    """Compares results with a module, on its arguments and on others of other sizes.

    Args:
        call: The module and its arguments.
        exported: What was exported; its dynamic dimensions are those that vary.
        rounded: Whether weights are rounded on the way: then types and shapes must be those of the
            module, and how far off the numbers are is told.
        decided: Where its code decides by values, of which an exporter kept one outcome.

    Attributes:
        notes: What was compared.

    Raises:
        ArgumentError: The model takes something else than the arguments' tensors.
    """

    def __init__(
        self, call: Call, exported: ir.Model, *, rounded: bool, decided: Sequence[str] = ()
    ) -> None:
        self.notes: list[str] = []
        self._decided = decided
        self._rounded = rounded
        self._call = call
        inputs = exported.graph.inputs
        if len(inputs) != len(call.tensors):
            raise ArgumentError(
                f"the exported model takes {len(inputs)} inputs, and {len(call.tensors)} tensors "
                "are among the arguments",
                remedy="give each tensor that the module reads, and no other",
            )
        self._types = [value.dtype for value in exported.graph.outputs]
        self._shapes = [_dims(value) for value in inputs]
        self._sizes: dict[str, int] = {}
        for dims, tensor in zip(self._shapes, call.tensors, strict=True):
            for dim, size in zip(dims, tensor.shape, strict=True):
                self._sizes.update(_solved(dim, int(size)))

    def __call__(self, result: ir.Model) -> None:
        """Compare a result.

        Raises:
            VerifyError: It computes something else, or does not run.
        """
        self._compare(result, self._call.tensors, self._sizes)
        if any(isinstance(dim, str) for dims in self._shapes for dim in dims):
            self._compare_others(result)
        if self._decided:
            self._compare_decided(result)

    def _compare_decided(self, result: ir.Model) -> None:
        """Compare with numbers of the other sign, with which the module may decide otherwise."""
        places = f"{len(self._decided)} places, such as {self._decided[0]}"
        told = f"the trace keeps one outcome of what the module decides in {places}"
        tensors = [negated(tensor) for tensor in self._call.tensors]
        try:
            self._call.outputs(tensors)
        except Exception as error:  # noqa: BLE001 - the module's own code
            self.notes.append(f"{told}; it takes no numbers of the other sign: {error}")
            return
        try:
            self._compare(result, tensors, self._sizes, " with numbers of the other sign")
        except VerifyError as error:
            raise VerifyError(
                f"{told}; {error}", remedy="write it with torch.where, or export by dynamo"
            ) from error
        self.notes.append(told)

    def _compare_others(self, result: ir.Model) -> None:
        refused = ""
        for sizes, tensors in self._others():
            try:
                self._call.outputs(tensors)
            except Exception as error:  # noqa: BLE001 - the module's own code; told if all fail
                refused = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            self._compare(result, tensors, sizes)
            return
        why = refused or "sizes that are computed of others have no value"
        self.notes.append(f"compared with the module at these sizes alone: {why}")

    def _others(self) -> Iterator[tuple[dict[str, int], list[torch.Tensor]]]:
        for other in _OTHERS:
            sizes = {name: max(other(size), 1) for name, size in self._sizes.items()}
            shapes = [[_size(dim, sizes) for dim in dims] for dims in self._shapes]
            if all(size > 0 for shape in shapes for size in shape):
                pairs = zip(self._call.tensors, shapes, strict=True)
                yield sizes, [resized(tensor, shape) for tensor, shape in pairs]

    def _compare(
        self,
        result: ir.Model,
        tensors: tuple[torch.Tensor, ...] | list[torch.Tensor],
        sizes: Mapping[str, int],
        how: str = "",
    ) -> None:
        made = self._call.outputs(tensors)
        inputs, outputs = result.graph.inputs, result.graph.outputs
        for what, there, those in (("inputs", inputs, tensors), ("outputs", outputs, made)):
            if len(there) != len(those):
                raise VerifyError(
                    f"the model has {len(there)} {what}, where the module has {len(those)}"
                )
        expected = {
            str(value.name): _in_type(array, value, exported)
            for value, array, exported in zip(outputs, made, self._types, strict=True)
        }
        names = [str(value.name) for value in inputs]
        fed = dict(zip(names, map(array_of, tensors), strict=True))
        found = verify_recorded(expected, result, inputs=fed)
        at = " ".join(f"{name}={size}" for name, size in sizes.items())
        where = (f" at {at}" if at else "") + how
        same_kind = all(each.expected == each.actual for each in found.outputs)
        if not (found.ok or (self._rounded and same_kind and not found.findings)):
            raise VerifyError(
                f"it computes something else than the module{where}: {worst_of(found)}"
            )
        for output, array in zip(outputs, made, strict=True):
            if _differs(output.shape, array.shape):
                declared = f"it declares output {output.name} as {output.shape}"
                raise VerifyError(f"{declared}, and the module gives {list(array.shape)}{where}")
        most = max((each.max_abs for each in found.outputs), default=0.0)
        told = f"computes what the module does{where}: off by {most:.1e} at most"
        if self._rounded:
            told = f"with rounded weights{where}: off by {most:.1e} at most from the module"
        self.notes.append(told)


def _differs(declared: ir.Shape | None, found: Sequence[int]) -> bool:
    """Return whether a size that is declared as a number is another one."""
    if declared is None or len(declared) != len(found):
        return declared is not None
    sizes = zip(declared, found, strict=True)
    return any(isinstance(one, int) and one != other for one, other in sizes)


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    shape = value.shape if value.shape is not None else ir.Shape(())
    return tuple(dim if isinstance(dim, int) else dim.value or "" for dim in shape)


def _solved(dim: int | str, size: int) -> dict[str, int]:
    """Return what the symbol of a dimension is, such as 3 for ``14*rows`` of 42."""
    symbols = [] if isinstance(dim, int) or not dim else sorted(ir.SymbolicDim(dim).free_symbols())
    if len(symbols) != 1:
        return {}
    values = (n for n in range(1, size + 1) if _size(dim, {symbols[0]: n}) == size)
    found = next(values, None)
    return {} if found is None else {symbols[0]: found}


def _size(dim: int | str, sizes: Mapping[str, int]) -> int:
    """Return a size, or -1 where it is computed of one that is not known."""
    if isinstance(dim, int):
        return dim
    found = sizes.get(dim) or ir.SymbolicDim(dim).evaluate(dict(sizes))
    return found if isinstance(found, int) else -1


def _in_type(array: Array, value: ir.Value, exported: ir.DataType | None) -> Array:
    """Return what a module gives, in the type that an output was brought to after the export."""
    if value.dtype is None or value.dtype == exported:
        return array
    return array.astype(value.dtype.numpy())
