"""Random graphs around every rule's pattern and every operator, made hostile, through every pass.

Any exception but the library's own is a failure, and so are an invalid result, another value, and
a second run that changes something. As a script:

    python -m tests.fuzz.hostile --count 5000 [--seed N] [--only REGEX] [--case SEED-NUMBER]

A nightly run takes 20 000.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
import re
import sys
import time
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from rules.catalogue import FIRES, HINTS, REFUSES, RULES
from rules.trials import draw as draw_instance

from vlmpass.ir_tools.check.structure import refuse_cycles
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.rewrite import Rule
from vlmpass.ir_tools.system.opsets import newest_opset

from . import left_out
from .models import typed
from .mutate import MUTATIONS
from .places import PLACES, placed
from .recipes import Dice
from .trial import Finding, Trial, copy, pipelines, report

IMPORTS = '"com.microsoft": 1'


@functools.cache
def texts(only: str) -> tuple[str, ...]:
    """Return the cases of rules as graphs in ONNX text."""
    cases = [*FIRES.items(), *REFUSES.items()]
    found = [case for name, each in cases if re.search(only, name) for case in each]
    return tuple(f"g {case[0]} {{ {case[1]} }}" for case in found)


@functools.cache
def rules(only: str) -> tuple[Rule, ...]:
    return tuple(each for each in RULES if re.search(only, each.name))


def seeds(rng: np.random.Generator, only: str = "") -> onnx.ModelProto | None:
    """Return a graph to start from: a rule's case, one around its pattern, or one operator."""
    way = rng.random() * (0.75 if only else 1)
    if way < 0.45:
        text = texts(only)[int(rng.integers(len(texts(only))))]
        opset = int(rng.choice([13, 17, 18, 20, 21, 24]))
        header = f'<ir_version: 10, opset_import: ["": {opset}, {IMPORTS}]>'
        try:
            return onnx.parser.parse_model(f"{header}\n{text}")
        except onnx.parser.ParseError:
            return None
    if way < 0.75:
        rule = rules(only)[int(rng.integers(len(rules(only))))]
        try:
            return ir.to_proto(draw_instance(rule, HINTS.get(rule.name, {}), rng))
        except (AssertionError, ValueError, TypeError):
            return None  # a draw whose own arithmetic does not work out
    targets = left_out.targets()
    case = left_out.draw(rng, *targets[int(rng.integers(len(targets)))])
    return None if case is None else case.model


def cases(
    seed: int, count: int, *, valid: float = 0.8, only: str = ""
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield mutated models by name; a share of them has to be valid.

    With `only`, they start from the rules whose names it finds.
    """
    made, number = 0, 0
    while made < count:
        number += 1
        rng = np.random.default_rng([seed, number])
        model = case(rng, must_be_valid=bool(rng.random() < valid), only=only)
        if model is not None:
            made += 1
            yield f"{seed}-{number}", model


def case(
    rng: np.random.Generator, *, must_be_valid: bool, only: str = ""
) -> onnx.ModelProto | None:
    model = seeds(rng, only)
    if model is None:
        return None
    dice = Dice(rng)
    model = placed(model, PLACES[int(rng.integers(len(PLACES)))]) if dice.maybe(0.3) else model
    for _ in range(int(rng.integers(0, 4))):
        before = copy(model)
        MUTATIONS[int(rng.integers(len(MUTATIONS)))](model, dice)
        if must_be_valid and typed(copy(model), {}) is None:
            model = before
    return typed(model, {}) if must_be_valid else model


def feeds_of(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, object]:
    """Return inputs of the declared types; symbols of one name have one size."""
    sizes: dict[str, int] = {}
    feeds: dict[str, object] = {}
    given = {each.name for each in model.graph.initializer}
    for value in model.graph.input:
        if value.name in given or not value.type.HasField("tensor_type"):
            continue
        shape = [
            sizes.setdefault(dim.dim_param or f"?{len(sizes)}", int(rng.integers(1, 4)))
            if not dim.HasField("dim_value")
            else dim.dim_value
            for dim in value.type.tensor_type.shape.dim
        ]
        feeds[value.name] = _array(value.type.tensor_type.elem_type, shape, rng)
    return feeds


def _array(kind: int, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    if kind == onnx.TensorProto.STRING:
        return np.array([str(n) for n in range(int(np.prod(shape)))], object).reshape(shape)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if dtype == np.bool_:
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0, 4, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def judge(name: str, model: onnx.ModelProto, some: int = 6) -> Iterator[Finding]:
    """Send a model through some pipelines and one opset."""
    rng = random.Random(name)
    try:
        refuse_cycles(load(copy(model)))
    except VlmpassError:
        return  # no pass gets to see it
    trial = Trial(model, feeds_of(model, np.random.default_rng(7)))
    opset = rng.randint(7, newest_opset())
    for text in _some(rng, pipelines(model, [opset]), some):
        yield from trial.through(text)


def _some(rng: random.Random, texts: list[str], count: int) -> list[str]:
    return rng.sample(texts, min(count, len(texts)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="one model by name, such as 0-17, through every pipeline")
    parser.add_argument("--valid", type=float, default=0.8, help="share that must be valid")
    parser.add_argument("--only", default="", help="start from rules of these names")
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    if arguments.case:
        seed, number = map(int, arguments.case.split("-"))
        rng = np.random.default_rng([seed, number])
        model = case(rng, must_be_valid=bool(rng.random() < arguments.valid))
        return report([(arguments.case, judge(arguments.case, model, 10**6))])
    until = time.monotonic() + arguments.seconds
    drawn = cases(arguments.seed, arguments.count, valid=arguments.valid, only=arguments.only)
    in_time = itertools.takewhile(lambda _: time.monotonic() < until, drawn)
    found = ((name, judge(name, model)) for name, model in in_time)
    return report(found)


if __name__ == "__main__":
    sys.exit(main())
