"""repair-types: outputs of types that their operators do not make, and indices that are floats."""

from __future__ import annotations

import numpy as np
import pytest
from dtype_tools import casts, check, parse, run, text_of

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

ZEROS = """g (bfloat16[2,3] x) => (bfloat16[2,3] y) {
    s = Shape(x) z = ConstantOfShape<value = bfloat16[1] {b(1.5)}>(s) y = Add(x, z) }"""


def test_repair_a_fill_of_a_type_that_the_opset_cannot_fill_with() -> None:
    """ConstantOfShape makes bfloat16 from opset 20 on; torch writes it before."""
    model = parse(ZEROS, 17)
    assert RepairTypes().run(model)
    check(model)
    assert (casts(model), text_of(model, "z")) == (1, "tensor(float)")
    assert not RepairTypes().run(model)
    UnifyDtype().run(model)
    check(model)
    assert casts(model) == 0
    (y,) = run(model, {"x": np.ones((2, 3), np.float32)}).values()
    np.testing.assert_array_equal(y, np.full((2, 3), 2.5, np.float32))


@pytest.mark.parametrize("operator", ["Gather", "GatherElements"])
def test_repair_positions_computed_in_floats(operator: str) -> None:
    """torch's legacy exporter takes bucketize in floats, as in the vision model of Idefics3."""
    model = parse(
        f"""g (float[4] t, int64[2] p) => (float[2] y) <float one = {{1}}> {{
        f = Cast<to = 1>(p) i = Add(f, one) y = {operator}(t, i) }}"""
    )
    assert RepairTypes().run(model)
    check(model)
    assert casts(model) == 2
    table = np.float32([5, 6, 7, 8])
    (y,) = run(model, {"t": table, "p": np.array([2, 0])}).values()
    np.testing.assert_array_equal(y, table[[3, 1]])


def test_repair_refuses_integers_that_are_no_indices() -> None:
    model = parse("g (float[3] s) => (float[A,B,C] y) { y = ConstantOfShape(s) }")
    with pytest.raises(Refused, match="ConstantOfShape"):
        RepairTypes().run(model)


def test_repair_constant_indices_that_are_floats() -> None:
    """As an exporter leaves them behind a Where of integers and floats."""
    model = parse(
        """g (float[4,2] w) => (float[3,2] y) <float[3] i = {2, 0, 1}> { y = Gather(w, i) }"""
    )
    RepairTypes().run(model)
    check(model)
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(run(model, {"w": table})["y"], table[[2, 0, 1]])
