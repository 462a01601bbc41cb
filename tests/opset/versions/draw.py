"""Random arguments of an operator at one opset, from every generator that the tests have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.evaluate.differential.draw import Case, Draw, dtype_of, element_type
from tests.fuzz.recipes import Dice, Spec
from vlmpass.ir_tools.operators.schema import Schema, history, schema

Generator = Callable[["At", str], Spec]


class At(Draw):
    """A seeded source of arguments for one opset, whatever a generator would choose.

    Attributes:
        at: The opset.
        dice: What the recipes draw from.
    """

    def __init__(self, seed: Sequence[int], at: int) -> None:
        super().__init__(seed)
        self.at = at
        self.dice = Dice(self.rng)

    def opset(self, op_type: str, low: int = 7) -> int:
        return self.at

    def axis(self, rank: int) -> int:
        """Return an axis, from the end only where the opset has that."""
        found = super().axis(rank)
        return found % rank if self.at < 11 and rank else found

    def axes(self, rank: int) -> list[int]:
        return [each % rank if self.at < 11 else each for each in super().axes(rank)]

    def ones(self, *shape: int) -> np.ndarray:
        """Return plain numbers in float32."""
        return np.asarray(self.rng.standard_normal(shape)).astype(np.float32)

    def some(self, **attributes: object) -> dict[str, object]:
        """Return a random part of attributes."""
        return {name: value for name, value in attributes.items() if self.chance(0.5)}

    def kind(self, op_type: str, index: int = 0) -> np.dtype:
        """Return an element type that an input may have."""
        return np.dtype(self.dtype(self.formals(op_type, self.at)[index]).numpy())


def spec_of(case: Case) -> Spec:
    return Spec(case.op_type, case.opset, case.inputs, case.attributes, case.outputs)


def fitted(spec: Spec, found: Schema) -> Spec:
    """Spell arguments as a version has them: what it takes as an attribute is one."""
    newest = schema(found.name, history(found.name)[-1])
    while len(spec.inputs) > found.max_inputs:
        formal, array = newest.input(len(spec.inputs) - 1), spec.inputs.pop()
        name = formal.name.lower()
        if name in found.attributes and array is not None:
            spec.attributes[name] = array.tolist()
    if found.name in ("Div", "Mod") and spec.inputs[1].dtype.kind in "iu":
        spec.inputs[1] = np.where(spec.inputs[1] == 0, 1, spec.inputs[1]).astype(
            spec.inputs[1].dtype
        )
    axes, first = spec.attributes.get("axes"), spec.inputs[0] if spec.inputs else None
    if found.version < 11 and isinstance(axes, list) and first is not None and first.ndim:
        spec.attributes["axes"] = [axis % first.ndim for axis in axes]
    known = found.attributes
    spec.attributes = {name: given for name, given in spec.attributes.items() if name in known}
    return spec


WORDS = np.array(["", "a", "ab", "é", "-1", "b"], object)


def retyped(draw: At, spec: Spec, found: Schema) -> Spec:
    """Give all inputs of one type parameter another type that it admits."""
    formals = [found.input(index) for index in range(len(spec.inputs))]
    pairs = [(f, a) for f, a in zip(formals, spec.inputs, strict=True) if a is not None]
    free = [f for f, _ in pairs if not f.parameter.startswith("tensor(")]
    if not free:
        return spec
    chosen = draw.among(free)
    admitted = sorted(each for each in chosen.types if each.startswith("tensor("))
    if not admitted:
        return spec
    dtype = dtype_of(draw.among(admitted))
    for index, (formal, array) in enumerate(zip(formals, spec.inputs, strict=True)):
        if array is not None and formal.parameter == chosen.parameter:
            spec.inputs[index] = _as(draw, array, dtype)
    return spec


def _as(draw: At, array: np.ndarray, dtype) -> np.ndarray:
    if dtype == element_type(array) or array.dtype == object:
        return array
    if dtype.name == "STRING":
        return WORDS[draw.rng.integers(0, len(WORDS), array.shape)]
    with np.errstate(all="ignore"):
        if array.dtype.kind == "f" and dtype.is_integer():
            array = np.round(array.astype(np.float64) * 3)
        return np.asarray(array).astype(dtype.numpy())
