"""Outputs told apart by the factor that their weights were scaled by."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from save_models import (
    BYTES,
)

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.weights import as_weight, scale

LIMIT = 2 * BYTES + 4096 + 100

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def scaled(path: Path, factor: float = 2.0) -> ir.Model:
    """Load a chain with every weight multiplied."""
    model = load(path)
    for value in model.graph.initializers.values():
        value.const_value = scale(as_weight(value.const_value), np.array(factor, np.float32))
    return model
