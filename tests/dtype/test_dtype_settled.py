"""Islands of an earlier conversion are found at a cost that grows with what there is."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.types import solve
from vlmpass.passes.dtype.settled import settled


def _branches(count: int) -> ir.Model:
    """Branches that all take one value of the graph around them."""
    body = "{ y%d = Relu(x) }"
    nodes = " ".join(
        f"o{n} = If(c) <then_branch = t{n} () => (float[2] y{n}) {body % n},"
        f" else_branch = e{n} () => (float[2] z{n}) {{ z{n} = Neg(x) }}>"
        for n in range(count)
    )
    names = ", ".join(f"o{n}" for n in range(count))
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[2] a) => (float[2] s) {{ x = Abs(a) {nodes} s = Sum({names}) }}"""
    )


def test_what_subgraphs_share_is_asked_once_for_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = _branches(40), []
    typing, uses = solve(model), ir.Value.uses

    def counted(value: ir.Value) -> object:
        asked.append(value.name)
        return uses(value)

    monkeypatch.setattr(ir.Value, "uses", counted)
    assert settled(model, typing, ir.DataType.FLOAT16, keep_io=False) == {}
    assert asked.count("x") == 1
