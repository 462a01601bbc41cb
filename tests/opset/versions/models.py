"""One model around one operator version: places, constants, axes without sizes, left-out parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tests.evaluate.differential import compare
from tests.fuzz.left_out import given, outputs_of, use
from tests.fuzz.left_out import schema as definition
from tests.fuzz.models import Parts, make_node, versions, whole
from tests.fuzz.recipes import RECIPES, Spec
from vlmpass.ir_tools.operators.schema import schema

from . import arithmetic, layers, odds
from .draw import At, Generator, fitted, retyped, spec_of

LEFT_OUT = ("ImageDecoder", "OptionalGetElement")
"""Operators that take encoded images or optional values: onnx's node tests have them."""


@dataclass(frozen=True)
class Case:
    """A model around an operator version, and what its inputs are."""

    operator: str
    version: int
    opset: int
    model: onnx.ModelProto
    feeds: dict[str, object]

    def __str__(self) -> str:
        return f"{self.operator}-{self.version} at opset {self.opset}"


def _recipe(draw: At, op_type: str) -> Spec:
    if draw.chance(0.2):
        draw.dice.dtype = np.dtype(str(draw.among(["float16", "float64"])))
    version = definition(op_type, draw.at).version
    spec = RECIPES[op_type](draw.dice, version)
    draw.dice.dtype = np.dtype(np.float32)
    return spec


def _folded(draw: At, op_type: str) -> Spec:
    return spec_of(compare.GENERATORS[op_type](draw, op_type))


def generators(op_type: str) -> list[Generator]:
    """Return all that draw arguments of an operator."""
    own = {**arithmetic.GENERATORS, **layers.GENERATORS, **odds.GENERATORS}
    found = [own[op_type]] if op_type in own else []
    found += [_recipe] if op_type in RECIPES else []
    folded = op_type in compare.GENERATORS and op_type not in ("ArgMax", "ArgMin", "Concat")
    return found + [_folded] * folded


def targets() -> list[tuple[str, int, int]]:
    """Return the operator versions that are drawn: name, since-version, last opset."""
    return [each for each in versions() if each[0] not in LEFT_OUT]


def cases(
    seed: int, count: int, chosen: Sequence[tuple[str, int, int]], tries: int = 12
) -> Iterator[Case]:
    """Yield so many models of each version; fewer where hardly a combination is valid."""
    for index, (name, version, last) in enumerate(chosen):
        made = 0
        for number in range(count * tries):
            case = drawn((seed, index, number), name, version, last)
            made += case is not None
            if case is not None:
                yield case
            if made == count:
                break


def drawn(seed: Sequence[int], name: str, version: int, last: int) -> Case | None:
    """Return one model of a version; None where the combination is not valid."""
    opset = int(np.random.default_rng([*seed, 1]).integers(version, last + 1))
    draw = At(seed, opset)
    try:
        spec = draw.among(generators(name))(draw, name)
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        return None  # a generator that knows the operator's later versions only
    found = schema(name, version)
    # Arithmetic on arrays without axes gives numpy's scalars, which no runtime takes.
    spec.inputs = [None if each is None else np.asarray(each) for each in spec.inputs]
    spec = fitted(spec, found)
    if draw.chance(0.25):
        try:
            spec = retyped(draw, spec, found)
        except TypeError:
            return None  # numpy has no cast between some of the small types
    return _around(draw, spec, version)


def _around(draw: At, spec: Spec, version: int) -> Case | None:
    dice, parts = draw.dice, Parts()
    found = definition(spec.op_type, draw.at)
    place = draw.among(["main"] * 4 + ["branch"] + ["function"] * (draw.at >= 8))
    try:
        inputs = _inputs(draw, spec, found, parts, place)
        outputs = outputs_of(spec, found, dice, 0)
        parts.nodes.append(make_node(spec, inputs, outputs, "node" if draw.chance(0.5) else ""))
    except (ValueError, TypeError, AssertionError):
        return None  # onnx's helper takes no such attribute
    use(parts, [each for each in outputs if each], dice)
    parts.dims = {name: _dims(draw, array) for name, array in parts.feeds.items()}
    feeds = {**parts.feeds, **({"cond": np.array(draw.chance(0.5))} if place == "branch" else {})}
    model = whole(parts, draw.at, place, feeds)
    if model is None:
        return None
    return Case(spec.op_type, version, draw.at, model, feeds)


def _inputs(draw: At, spec: Spec, found, parts: Parts, place: str) -> list[str]:
    names = []
    for index, array in enumerate(spec.inputs):
        formal = found.input(index)
        # Without a number of turns, a Loop whose condition stays true has no end.
        optional = formal.optional and (spec.op_type, index) != ("Loop", 0)
        if array is None or (optional and draw.chance(0.25)):
            names.append("")
        else:
            names.append(given(f"x{index}", array, spec, index, draw.dice, parts, place))
    while names and names[-1] == "":
        names.pop()
    return names


def _dims(draw: At, array: np.ndarray) -> list[int | str | None]:
    """Declare each axis by its size, by a name or by nothing; all of them alike in most inputs."""
    way = draw.among(["sizes", "sizes", "sizes", "names", "nothing", "mixed"])
    if way == "mixed":
        return [draw.among([size, f"n{size}", None]) for size in array.shape]
    options = {"sizes": array.shape, "names": [f"n{size}" for size in array.shape]}
    return list(options.get(way, [None] * array.ndim))
