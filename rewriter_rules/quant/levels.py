"""The numbers of 8 bits that an activation is rounded to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

__all__ = ["Levels"]


@dataclass(frozen=True)
class Levels:
    """A scale and a zero point: ``number = clip(round(x / scale) + zero)``.

    Attributes:
        scale: What one number more stands for, a float32.
        zero: The number that stands for zero.
        kind: The type of the numbers, of 8 bits.
    """

    scale: float
    zero: int
    kind: ir.DataType

    @classmethod
    def of(cls, low: float, high: float, kind: ir.DataType) -> Levels:
        """Return those between two numbers, and zero; of signed ones zero is in the middle.

        Args:
            low: The least number.
            high: The greatest.
            kind: int8 or uint8.
        """
        least, most = np.float32(min(low, 0.0)), np.float32(max(high, 0.0))
        if kind == ir.DataType.INT8:
            return cls(_positive(np.maximum(-least, most) / np.float32(127)), 0, kind)
        scale = _positive(np.float32((float(most) - float(least)) / 255))  # in doubles: no overflow
        return cls(scale, int(np.clip(np.rint(-least / scale), 0, 255)), kind)

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the greatest number."""
        return (-128, 127) if self.kind == ir.DataType.INT8 else (0, 255)


def _positive(scale: np.float32) -> float:
    """Return a scale that can be divided by, as hardware does that flushes denormals."""
    return float(scale) if scale >= np.finfo(np.float32).tiny else 1.0
