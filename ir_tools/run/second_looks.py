"""Two models differ on ONNX Runtime: is it the runtime that computes one of them otherwise?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.run.deviations import spell_standard
from vlmpass.ir_tools.run.participants import Side
from vlmpass.ir_tools.run.verdict import Verification
from vlmpass.ir_tools.worker.transport import Feed

if TYPE_CHECKING:
    from vlmpass.ir_tools.run.comparison import Comparison

__all__ = ["by_the_standard", "unoptimized"]


def unoptimized(found: Verification, compared: Comparison, fed: Feed | None) -> Verification:
    """Return a comparison without optimisations if that finds models equal; else the given one.

    Args:
        found: Says that they differ.
        compared: Compares them without optimisations.
        fed: The user's own inputs.
    """
    try:
        plain = compared.run(fed)
    except VerifyError:  # stopped, perhaps: that the models differ was found
        return found
    if not plain.ok:
        return found
    worst = max((each for each in found.outputs if not each.ok), key=lambda each: each.max_rel)
    note = (
        f"equal with ONNX Runtime's optimisations off; at its basic level it computes"
        f" '{worst.name}' differently for the two, relative error {worst.max_rel:.1e}"
    )
    return replace(plain, notes=(*plain.notes, note))


def by_the_standard(found: Verification, compared: Comparison, fed: Feed | None) -> Verification:
    """Return a comparison with what the standard says the first model computes.

    The given one where ONNX Runtime computes that model as the standard says, or this is no better.

    Args:
        found: Says that they differ.
        compared: Compares them.
        fed: The user's own inputs.
    """
    twin = clone(compared.a.model)
    what = spell_standard(twin)
    if not what:
        return found
    compared.a = Side(twin, allowance=compared.a.allowance)
    try:
        plain = compared.run(fed)
    except VerifyError:
        return found
    if not plain.ok:
        return found
    note = f"ONNX Runtime does not compute {what} as the standard says, but the result does"
    return replace(plain, notes=(*plain.notes, note))
