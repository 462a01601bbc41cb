"""Weights and constants in another element type, lazily; and those that a narrow type cannot hold.

A finite number of mask size, such as -3.4e38, means "as good as minus infinity"; cast to float16 it
would become a real infinity and make NaN of a row that is masked throughout. It becomes half of the
narrow type's range instead: a score can be added to it, or a second mask, without overflow. What
bounds other numbers, as in Clip, becomes the end of the range.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.weights import as_weight, cast

__all__ = ["MASK", "Narrowing", "bounds_only", "cast_tensor"]

_Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_LOG = logging.getLogger(__name__)
_SMALL_BYTES = 4096
_NAMED = 5
_INSPECTED_BYTES = 1 << 24
MASK = 1e9
"""The least size of a finite number that means "as good as minus infinity"."""
_REMEDIES = {ir.DataType.FLOAT: "leave float64 out of what gives way: unify-dtype{from=...}"}
_REMEDY = "keep its users in float32 with mixed-precision"


def cast_tensor(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """Return a tensor in another element type: a lazy weight, or its values where it is small.

    A single number that becomes wider stays lazy, so that it is known what it was held in before.
    """
    lazy = cast(as_weight(tensor), dtype)
    if tensor.nbytes > _SMALL_BYTES or (tensor.size == 1 and holds_all(dtype, tensor.dtype)):
        return lazy
    return ir.Tensor(lazy.numpy(), dtype=dtype, name=tensor.name, doc_string=tensor.doc_string)


def bounds_only(value: ir.Value) -> bool:
    """Whether all that takes a value takes it as a bound of other numbers."""
    users = [user for user, _ in value.uses()]
    return bool(users) and all(
        not user.domain and user.op_type in ("Clip", "Max", "Min") for user in users
    )


@dataclass
class Narrowing:
    """Casts tensors and keeps account of what the new type cannot hold.

    Tensors of up to 16 MiB are looked at; larger ones stay unread, and what they lose is counted
    when they are written.

    Attributes:
        refusals: Constants with quantities beyond the range, and numbers that would become zero.
        masks: Names of the constants whose masks were refitted.
        flushed: Names of the tensors some of whose elements become zero.
        subnormal: How many elements of which small tensors keep fewer digits; those of lazy ones
            are counted when they are written.
    """

    refusals: list[Refusal] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    subnormal: dict[str, int] = field(default_factory=dict)

    def cast(
        self, tensor: ir.TensorProtocol, dtype: ir.DataType, where: str, *, bound: bool = False
    ) -> ir.TensorProtocol:
        """Return a tensor in another element type.

        Args:
            tensor: A float tensor.
            dtype: The type wanted.
            where: What messages call it, such as ``initializer mask``.
            bound: Whether it only bounds other numbers.
        """
        if tensor.nbytes > _INSPECTED_BYTES or not _narrows(tensor.dtype, dtype):
            return cast_tensor(tensor, dtype)
        limit, tiny = _range(dtype)
        array: _Floats = (
            tensor.numpy().astype(np.float64, copy=False)
            if tensor.dtype == ir.DataType.DOUBLE
            else tensor.numpy().astype(np.float32, copy=False)
        )
        if tensor.nbytes <= _SMALL_BYTES:
            self._note_subnormal(array, dtype, where)
        if _fits(array, limit, tiny):
            return cast_tensor(tensor, dtype)
        finite = np.isfinite(array)
        beyond = finite & (np.abs(array) > limit)
        if beyond.any() and np.abs(array[beyond]).min() < MASK:
            worst = array[beyond][np.argmax(np.abs(array[beyond]))]
            problem = f"holds {worst:g}, and {dtype.name.lower()} ends at {limit:g}"
            self.refusals.append(Refusal(where, problem, _REMEDIES.get(dtype, _REMEDY)))
        self._note_zeros(array, finite & (array != 0) & (np.abs(array) <= tiny / 2), dtype, where)
        if not bound and not beyond.any() and _is_mask(array[finite], limit):
            beyond = finite & (array != 0)
        if not beyond.any():
            return cast_tensor(tensor, dtype)
        if not bound:
            self.masks.append(where)
        fit = np.copysign(limit if bound else limit / 2, array)
        fitted = np.where(beyond, fit, array).astype(dtype.numpy())
        return ir.Tensor(fitted, dtype=dtype, name=tensor.name, doc_string=tensor.doc_string)

    def _note_subnormal(self, array: _Floats, dtype: ir.DataType, where: str) -> None:
        info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
        least, tiny = float(info.smallest_normal), float(info.smallest_subnormal)
        sizes = np.abs(array)
        if number := int(np.count_nonzero((sizes > tiny / 2) & (sizes < least))):
            self.subnormal[where] = number

    def _note_zeros(
        self,
        array: _Floats,
        lost: npt.NDArray[np.bool_],
        dtype: ir.DataType,
        where: str,
    ) -> None:
        if not lost.any():
            return
        if array.size == 1:
            problem = f"is {array.reshape(-1)[0]:g} and would become zero in {dtype.name.lower()}"
            self.refusals.append(Refusal(where, problem, _REMEDIES.get(dtype, _REMEDY)))
        else:
            self.flushed.append(where)

    def report(self) -> None:
        """Log what was refitted and what lost elements to zero, by name."""
        if self.masks:
            _LOG.warning("masks refitted to the range of the new type: %s", _listed(self.masks))
        if self.flushed:
            _LOG.warning("some elements become zero in: %s", _listed(self.flushed))
        if self.subnormal:
            total = sum(self.subnormal.values())
            names = _listed(list(self.subnormal))
            _LOG.warning("%d elements become subnormal, with fewer digits, in: %s", total, names)


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _fits(array: _Floats, limit: float, tiny: float) -> bool:
    """Whether all numbers lie inside the range, none of them at its end, and none becomes zero."""
    sizes = np.abs(array)
    least = np.min(sizes, where=sizes > 0, initial=limit)
    return bool(least > tiny / 2 and np.max(sizes, initial=0) < limit)


def _is_mask(array: _Floats, limit: float) -> bool:
    """Whether numbers are the type's own lowest one, and zeros."""
    return bool((array == -limit).any() and ((array == 0) | (array == -limit)).all())


def _narrows(source: ir.DataType, to: ir.DataType) -> bool:
    """Whether a cast can overflow, or turn small numbers into zero."""
    if not source.is_floating_point() or not to.is_floating_point() or source == to:
        return False
    (old_limit, old_tiny), (limit, tiny) = _range(source), _range(to)
    return old_limit > limit or old_tiny < tiny


def _range(dtype: ir.DataType) -> tuple[float, float]:
    """Return the largest finite and the smallest positive number of a float type."""
    info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(info.max), float(info.smallest_subnormal)
