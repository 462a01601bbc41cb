"""The table of operators that ONNX Runtime registers beside the standard ones."""

from __future__ import annotations

import importlib.resources

import contrib_table
import onnxruntime
import pytest

from vlmpass.ir_tools.operators.schema import in_force

MADE_WITH = "1.32.0"


@pytest.mark.skipif(onnxruntime.__version__ != MADE_WITH, reason="made with another ONNX Runtime")
def test_types_contrib_table_is_what_onnxruntime_registers() -> None:
    table = importlib.resources.files("vlmpass.ir_tools.operators") / "contrib.txt"
    assert table.read_text(encoding="utf-8").splitlines() == [
        *contrib_table.HEAD.splitlines(),
        *contrib_table.lines(),
    ]


def test_types_contrib_signature() -> None:
    known = in_force("com.microsoft", "MatMulNBits", 1)
    assert known is not None
    assert [each.parameter for each in known.inputs] == ["T1", "T2", "T1", "T3", "T4", "T1"]
    assert known.fixed == {"T2": "tensor(uint8)", "T4": "tensor(int32)"}
    assert known.allowed["T1"] == {"tensor(float)", "tensor(float16)", "tensor(bfloat16)"}


def test_types_contrib_variadic() -> None:
    known = in_force("com.microsoft", "QLinearConcat", 1)
    assert known is not None
    assert not known.inputs[-1].homogeneous
    assert known.input_at(7) is known.inputs[-1]


def test_types_nobody_knows() -> None:
    assert in_force("com.microsoft", "NoSuchOperator", 1) is None
    assert in_force("", "Gelu", 17) is None
