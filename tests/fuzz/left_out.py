"""Nodes with optional inputs and outputs left out, through every pass and opset.

Every operator version that has an optional argument, or outputs that may be left out, and many of
ONNX Runtime's own; in the main graph, in a branch, in a Loop and in functions, where one call may
give what another one leaves out. As a script it goes through as many as are asked for:

    python -m tests.fuzz.left_out --count 5000 [--seed N] [--only REGEX] [--case SEED-NUMBER]

A nightly run takes 20 000.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset

from .models import Array, Parts, make_node, versions, whole
from .places import IN_FUNCTIONS, PLACES
from .recipes import RECIPES, Dice, Spec
from .runtime import NEWEST_OPSET
from .trial import Finding, Trial, pipelines, report

CONTRIB = "com.microsoft::"


@dataclass(frozen=True)
class Case:
    """One model, and what its inputs are."""

    name: str
    opset: int
    place: str
    model: onnx.ModelProto
    feeds: dict[str, object]


def targets() -> list[tuple[str, int, int]]:
    """Return the operator versions with something to leave out: name, version, last opset.

    Every such one of the standard has a recipe, and many of those that ONNX Runtime has kernels of.
    """
    own = [(name, OLDEST_OPSET, NEWEST_OPSET) for name in RECIPES if name.startswith(CONTRIB)]
    return own + [
        (name, max(version, OLDEST_OPSET), end)
        for name, version, end in versions()
        if end >= OLDEST_OPSET and _leaves_out(schema(name, end))
    ]


def _leaves_out(found: Schema) -> bool:
    several = any(each.variadic for each in found.outputs)
    return several or any(each.optional for each in (*found.inputs, *found.outputs))


def schema(name: str, opset: int) -> Schema:
    domain, _, operator = name.rpartition("::")
    found = in_force(domain, operator, opset)
    assert found is not None, name
    return found


def cases(
    seed: int, count: int, only: Sequence[tuple[str, int, int]] | None = None
) -> Iterator[Case]:
    """Yield valid models, every operator version in turn."""
    chosen = only if only is not None else targets()
    made = 0
    for number in itertools.count():
        if made >= count or number >= 20 * count + 20 * len(chosen):
            return
        name, low, high = chosen[number % len(chosen)]
        case = draw(np.random.default_rng([seed, number]), name, low, high)
        if case is not None:
            made += 1
            yield replace(case, name=f"{case.name}/{seed}-{number}")


def draw(rng: np.random.Generator, name: str, low: int, high: int) -> Case | None:
    """Return one model of an operator; None where this combination is not valid."""
    dice = Dice(rng)
    opset = int(rng.integers(low, high + 1))
    found = schema(name, opset)
    if dice.maybe(0.2):
        dice.dtype = np.dtype(str(dice.one("float16", "float64")))
    spec = RECIPES[name](dice, found.version)
    place = PLACES[int(rng.integers(len(PLACES)))]
    parts = Parts()
    del spec.inputs[found.max_inputs :]
    inputs = _inputs(spec, found, dice, parts, place)
    for twin in range(1 + dice.maybe()):
        outputs = outputs_of(spec, found, dice, twin)
        parts.nodes.append(make_node(spec, inputs, outputs, f"n{twin}" if dice.maybe() else ""))
        use(parts, [each for each in outputs if each], dice)
    feeds = {**parts.feeds, **({"cond": np.array(dice.maybe())} if place == "branch" else {})}
    model = whole(parts, opset, place, feeds)
    if model is None:
        return None
    return Case(f"{name}-{found.version}", opset, place, model, feeds)


def _inputs(spec: Spec, found: Schema, dice: Dice, parts: Parts, place: str) -> list[str]:
    """Name the inputs that stay; the others are "", or not there where they come last."""
    names = []
    for index, array in enumerate(spec.inputs):
        formal = found.input(index)
        if formal.optional and dice.maybe(0.5):
            at_call = place in IN_FUNCTIONS and dice.maybe(0.3)
            names.append(f"x{index}" if at_call else "")
            if at_call:
                parts.absent.append(f"x{index}")
                if dice.maybe():
                    parts.feeds[f"x{index}"] = array  # another call gives it
            continue
        names.append(given(f"x{index}", array, spec, index, dice, parts, place))
    while names and names[-1] == "" and dice.maybe(0.7):
        names.pop()
    return names


def given(
    name: str, array: Array, spec: Spec, index: int, dice: Dice, parts: Parts, place: str
) -> str:
    """Make an input a constant of one kind or the other, or one of the model's, and name it."""
    if index in spec.constant or dice.maybe(0.3):
        if place in IN_FUNCTIONS or dice.maybe():
            tensor = onnx.numpy_helper.from_array(array)
            parts.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            parts.constants[name] = array
    else:
        parts.feeds[name] = array
    if index in spec.sequences:
        parts.nodes.append(helper.make_node("SequenceConstruct", [name, name], [f"{name}.s"]))
        return f"{name}.s"
    return name


def outputs_of(spec: Spec, found: Schema, dice: Dice, twin: int) -> list[str]:
    """Name the outputs that stay; the others are "", or not there where they come last."""
    names = []
    for index in range(min(spec.outputs, found.max_outputs)):
        formal = found.output(index)
        gone = (formal.optional or formal.variadic) and dice.maybe(0.5)
        names.append("" if gone else f"y{twin}{index}")
    while names and names[-1] == "" and dice.maybe(0.6):
        names.pop()
    return names if any(names) else [f"y{twin}0"]


def use(parts: Parts, outputs: Sequence[str], dice: Dice) -> None:
    """Give some outputs out as they are, some behind another node."""
    for name in outputs:
        if dice.maybe(0.3):
            parts.outputs.append(name)
        elif dice.maybe(0.8):
            parts.nodes.append(helper.make_node("Identity", [name], [f"{name}.i"]))
            parts.outputs.append(f"{name}.i")
    if not parts.outputs:
        parts.outputs.append(outputs[0])


def judge(case: Case, seed: int = 0, *, every: bool = False) -> Iterator[Finding]:
    """Send a case through pipelines: all of them, or one of each kind and two opsets."""
    rng = random.Random(f"{seed} {case.name} {case.opset} {case.place}")
    known = range(OLDEST_OPSET, newest_opset() + 1)
    opsets = list(known) if every else rng.sample(known, 3)
    texts = pipelines(case.model, opsets)
    trial = Trial(case.model, case.feeds)
    for text in texts if every else rng.sample(texts, 8):
        yield from trial.through(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--every", action="store_true", help="every pipeline and opset for each")
    parser.add_argument("--case", help="one model by its number, such as 0-17")
    arguments = parser.parse_args()
    if arguments.case:
        seed, number = map(int, arguments.case.split("-"))
        again = draw(np.random.default_rng([seed, number]), *targets()[number % len(targets())])
        return report([(arguments.case, judge(again, every=True))] if again else [])
    chosen = [each for each in targets() if re.search(arguments.only, each[0])]
    found = cases(arguments.seed, arguments.count, chosen)
    return report((case.name, judge(case, every=arguments.every)) for case in found)


if __name__ == "__main__":
    sys.exit(main())
