"""Models as text, and what check() says about broken ones."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"

H17 = '<ir_version: 8, opset_import: ["" : 17]>\n'

HFN = '<ir_version: 8, opset_import: ["" : 17, "l" : 1]>\n'


def model(text: str, header: str = H17) -> ir.Model:
    return ir.from_onnx_text(header + text)


def said(m: ir.Model) -> str:
    with pytest.raises(CheckError) as caught:
        check(m)
    return str(caught.value)
