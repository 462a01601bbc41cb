"""What else is looked at while onnx checks in another process, and which fault comes first."""

from __future__ import annotations

import pytest
from check_models import model

from vlmpass.ir_tools.check.full import check_types
from vlmpass.ir_tools.errors import CheckError

VALID = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
WRONG = model("g (float[2] x) => (float[2] y) { y = Nonsense(x) }")


def test_both_are_done() -> None:
    done: list[str] = []
    check_types(VALID, meanwhile=lambda: done.append("looked"))
    assert done == ["looked"]
    with pytest.raises(CheckError, match="Nonsense"):
        check_types(WRONG, meanwhile=lambda: done.append("looked"))
    assert done == ["looked", "looked"]


@pytest.mark.parametrize("raised", [CheckError("a name is there twice"), KeyboardInterrupt()])
def test_what_is_found_meanwhile_comes_first_and_onnx_is_asked_again(
    raised: BaseException,
) -> None:
    def refuse() -> None:
        raise raised

    for each in (VALID, WRONG):
        with pytest.raises(type(raised)):
            check_types(each, meanwhile=refuse)
    check_types(VALID)
    with pytest.raises(CheckError, match="Nonsense"):
        check_types(WRONG)
