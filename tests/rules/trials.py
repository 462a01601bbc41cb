"""A rule tried on random graphs made from its own pattern, compared by numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx.printer
import onnx_ir as ir
from rewrite.support import RUNTIME_ERRORS, difference, run

from rules.instances import Draw, Hints
from vlmpass.ir_tools.rewrite import Rule, apply_rules

OPSETS = (13, 15, 17, 18, 20, 21, 22, 23)
FLOATS = ("float32", "float16", "float64")


def draw(rule: Rule, hints: Hints, rng: np.random.Generator, *, own: bool = False) -> ir.Model:
    """Return one graph made from a rule's pattern.

    Args:
        rule: Whose.
        hints: What its pattern does not say.
        rng: Where randomness comes from.
        own: Whether at opsets too where a runtime's own operators say what the standard's do not.
    """
    low, high = rule.opset
    given = hints.get("opset", OPSETS)
    assert isinstance(given, Sequence)
    least = 0 if own and rule.or_emits else low or 0
    opsets = [n for n in given if least <= n <= (high or 99)] or [low]
    kinds = hints.get("dtypes", FLOATS)
    assert isinstance(kinds, Sequence)
    opset = opsets[int(rng.integers(len(opsets)))]
    dtype = np.dtype(str(kinds[int(rng.integers(len(kinds)))]))
    return Draw(rule, rng, hints, opset, dtype).model()


def feed_of(model: ir.Model, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random inputs of the sizes an instance was made for."""
    feed = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        assert value.name
        shape = [
            size if isinstance(size, int) else int(str(size.value)[1:]) for size in value.shape
        ]
        dtype = value.dtype.numpy()
        if dtype == np.bool_:
            feed[value.name] = np.asarray(rng.random(shape) < 0.5)
        elif dtype.kind in "iu":
            feed[value.name] = np.asarray(rng.integers(0, 4, shape)).astype(dtype)
        else:
            feed[value.name] = np.asarray(rng.standard_normal(shape)).astype(dtype)
    return feed


@dataclass
class Tally:
    """What became of the graphs drawn for a rule."""

    fired: int = 0
    declined: int = 0
    invalid: int = 0


def instances(
    rule: Rule, hints: Hints, seed: int = 0, *, own: bool = False
) -> Iterator[tuple[ir.Model, ir.Model]]:
    """Yield graphs on which a rule fires, each before and after, without end."""
    rng = np.random.default_rng(seed)
    while True:
        before = draw(rule, hints, rng, own=own)
        after = ir.serde.from_proto(ir.to_proto(before))
        welcome = rule.emits | (rule.or_emits if rng.random() < 0.5 else frozenset())
        applied = apply_rules(after, rule, emits=welcome, fast_math=True)
        yield before, after if applied else before


def trial(
    before: ir.Model,
    after: ir.Model,
    seed: int,
    rounding: float = 0.0,
    feed: dict[str, np.ndarray] | None = None,
) -> str | None:
    """Return how two graphs differ in numbers, empty if not; None if the first is no valid one."""
    if feed is None:
        feed = feed_of(before, np.random.default_rng(seed))
    try:
        expected = run(before, feed)
    except RUNTIME_ERRORS:
        return None
    try:
        return difference(expected, run(after, feed), rounding)
    except RUNTIME_ERRORS as error:
        return f"the result does not run: {error}"


def check_rule(
    rule: Rule, hints: Hints, rounding: float = 0.0, wanted: int = 50, tries: int = 3000
) -> Tally:
    """Rewrite random graphs until a rule fired often enough; fail at the first difference."""
    tally = Tally()
    for number, (before, after) in enumerate(
        itertools.islice(instances(rule, hints, own=True), tries)
    ):
        if before is after:
            tally.declined += 1
            continue
        found = trial(before, after, number, rounding)
        if found is None:
            tally.invalid += 1
            continue
        assert found == "", f"{rule.name}: {found}\n{_text(before)}\n{_text(after)}"
        tally.fired += 1
        if tally.fired == wanted:
            return tally
    raise AssertionError(f"{rule.name} fired on {tally.fired} graphs of {tries}: {tally}")


def _text(model: ir.Model) -> str:
    return onnx.printer.to_text(ir.to_proto(model))
