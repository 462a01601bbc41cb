"""What ONNX Runtime computes otherwise than the standard is held against the standard."""

import onnx_ir as ir
import pytest

from vlmpass.ir_tools.run import verify
from vlmpass.ir_tools.run.deviations import spell_standard


def pooled(attributes: str, operator: str = "AveragePool", sizes: str = "3,11") -> ir.Model:
    return ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["" : 19]>
        g (float[2,1,{sizes}] x) => (float[2,1,?,?] y) {{
            y = {operator}<kernel_shape = [1, 5], {attributes}>(x) }}"""
    )


DILATED = "dilations = [2, 2], strides = [1, 2]"
SAME = f'{DILATED}, auto_pad = "SAME_UPPER"'


@pytest.mark.parametrize("operator", ["AveragePool", "LpPool"])
def test_explicit_pads_are_what_same_says(operator):
    found = verify(pooled(SAME, operator), pooled(f"{DILATED}, pads = [0, 4, 0, 4]", operator))
    assert found.ok
    assert f"{operator} with SAME padding and dilations" in found.notes[-1]


@pytest.mark.parametrize("pads", ["0, 0, 0, 8", "0, 5, 0, 3", "0, 3, 0, 5"])
def test_other_pads_are_not(pads):
    found = verify(pooled(SAME), pooled(f"{DILATED}, pads = [{pads}]"))
    assert not found.ok
    assert not found.notes


def test_the_runtime_agrees_with_itself():
    found = verify(pooled(SAME), pooled(SAME))
    assert found.ok
    assert not found.notes


@pytest.mark.parametrize(
    ("attributes", "sizes", "pads"),
    [
        ('dilations = [3, 1], auto_pad = "SAME_LOWER"', "N,M", [0, 2, 0, 2]),
        ('dilations = [1, 2], strides = [1, 3], auto_pad = "SAME_LOWER"', "N,7", [0, 4, 0, 4]),
        ('dilations = [1, 2], strides = [1, 2], auto_pad = "SAME_LOWER"', "N,8", [0, 4, 0, 3]),
        ('dilations = [1, 2], strides = [1, 2], auto_pad = "SAME_UPPER"', "N,8", [0, 3, 0, 4]),
        ('dilations = [1, 2], strides = [1, 2], auto_pad = "SAME_UPPER"', "N,M", None),
        ('dilations = [1, 1], auto_pad = "SAME_UPPER"', "N,7", None),
        ('dilations = [2, 2], auto_pad = "VALID"', "N,7", None),
    ],
)
def test_pads_by_the_formula(attributes, sizes, pads):
    model = pooled(attributes, sizes=sizes)
    what = spell_standard(model)
    (node,) = model.graph
    assert bool(what) == (pads is not None)
    assert list(node.attributes.get_ints("pads") or ()) == (pads or [])
    assert ("auto_pad" in node.attributes) == (pads is None)
