"""Defects in what is known of ranges, one at a time; the generator has to find each.

As a script: which seed finds which.

    python -m tests.narrowing.planted [--count N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from tests.narrowing.graphs import judged
from vlmpass.ir_tools.shapes import intervals
from vlmpass.ir_tools.shapes.interval import Interval
from vlmpass.passes.dtype import narrowing_plan

Rule = Callable[[intervals.Ranged], Interval | None]


def _first(call: intervals.Ranged) -> Interval | None:
    return call.of(0)


def _second(call: intervals.Ranged) -> Interval | None:
    return call.of(1)


def _highs(call: intervals.Ranged) -> Interval | None:
    a, b = call.of(0), call.of(1)
    return None if a is None or b is None else Interval(a.low * b.low, a.high * b.high)


def _added(call: intervals.Ranged) -> Interval | None:
    a, b = call.of(0), call.of(1)
    return None if a is None or b is None else a + b


def _lesser(call: intervals.Ranged) -> Interval | None:
    parts = [each for each in call.operands if each is not None]
    return Interval(min(each.low for each in parts), min(each.high for each in parts))


def _greater(call: intervals.Ranged) -> Interval | None:
    parts = [each for each in call.operands if each is not None]
    return Interval(max(each.low for each in parts), max(each.high for each in parts))


def _zero(call: intervals.Ranged) -> Interval | None:
    return Interval(0, 0)


def _same_sign(call: intervals.Ranged) -> Interval | None:
    x = call.of(0)
    return x if x is None else Interval(max(x.low, 0), max(x.high, 0))


RULES: dict[str, tuple[str, Rule]] = {
    "a product has the product of the lows as its least": ("Mul", _highs),
    "a difference is a sum": ("Sub", _added),
    "a sum is its first operand": ("Add", _first),
    "a quotient is its divisor": ("Div", _second),
    "a remainder is zero": ("Mod", _zero),
    "a number and its negation are alike": ("Neg", _first),
    "no number is negative before Abs": ("Abs", _same_sign),
    "the greatest is the least": ("Max", _lesser),
    "the least is the greatest": ("Min", _greater),
    "Clip gives its lower end": ("Clip", _second),
    "Where takes its second operand always": ("Where", _second),
    "Concat has its first operand alone": ("Concat", _first),
    "Pad fills with what is there": ("Pad", _first),
    "ScatterND puts nothing": ("ScatterND", _first),
    "all is filled with zero": ("ConstantOfShape", _zero),
    "bits of two are those of the first": ("BitwiseOr", _first),
    "one bit differs at most": ("BitwiseXor", _first),
    "a sum along an axis has one term": ("ReduceSum", _first),
    "a sum so far has one term": ("CumSum", _first),
    "a product of matrices is one of numbers": ("MatMul", _second),
    "a range is its start": ("Range", _first),
    "a Cast gives zero": ("Cast", _zero),
    "no matrix is moved": ("Gather", _zero),
}


@contextmanager
def _rule(operator: str, rule: Rule) -> Iterator[None]:
    with patch.dict(intervals._RULES, {operator: rule}):
        yield


@contextmanager
def _patched(owner: object, name: str, new: object) -> Iterator[None]:
    with patch.object(owner, name, new):
        yield


OTHERS: dict[str, Callable[[], object]] = {
    "what is fed is small": lambda: _patched(
        intervals.Intervals, "_of_root", lambda self, value: Interval(0, 1)
    ),
    "nothing wraps": lambda: _patched(intervals, "of_type", lambda dtype: None),
    "an axis has one element": lambda: _patched(intervals.Intervals, "_most", lambda *_: 1),
    "all of uint32 fits": lambda: _patched(
        narrowing_plan, "within", lambda part, _: part is not None and part.high < 2**32
    ),
    "a node that is not proven changes": lambda: _patched(
        narrowing_plan.NarrowingPlan, "_why_not", lambda *_: None
    ),
    "what a graph gives out is int32": lambda: _patched(
        narrowing_plan.NarrowingPlan, "_give_out", lambda *_: None
    ),
}


def defects() -> dict[str, Callable[[], object]]:
    """Return all defects: what plants each, by what it is."""
    named = {name: (lambda pair=pair: _rule(*pair)) for name, pair in RULES.items()}
    return {**named, **OTHERS}


SEEDS = {
    "a product has the product of the lows as its least": 6,
    "a difference is a sum": 37,
    "a sum is its first operand": 0,
    "a quotient is its divisor": 8,
    "a remainder is zero": 4,
    "a number and its negation are alike": 24,
    "no number is negative before Abs": 25,
    "the greatest is the least": 5,
    "the least is the greatest": 6,
    "Clip gives its lower end": 1,
    "Where takes its second operand always": 0,
    "Concat has its first operand alone": 26,
    "Pad fills with what is there": 64,
    "ScatterND puts nothing": 2,
    "all is filled with zero": 14,
    "bits of two are those of the first": 28,
    "one bit differs at most": 13,
    "a sum along an axis has one term": 82,
    "a sum so far has one term": 20,
    "a product of matrices is one of numbers": 0,
    "a range is its start": 11,
    "a Cast gives zero": 0,
    "no matrix is moved": 0,
    "what is fed is small": 0,
    "nothing wraps": 3,
    "an axis has one element": 11,
    "all of uint32 fits": 0,
    "a node that is not proven changes": 0,
    "what a graph gives out is int32": 0,
}
"""Which random model shows each, see `main`."""


def finds(plant: Callable[[], object], seeds: Iterable[int]) -> int | None:
    """Return the first seed at which the generator notices a planted defect."""
    with plant():  # type: ignore[attr-defined]
        for seed in seeds:
            try:
                kind = judged(seed)[0]
            except Exception:  # noqa: BLE001 - however it shows
                return seed
            if kind not in ("equal", "left", "does not run"):
                return seed
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=400)
    asked = parser.parse_args()
    for name, plant in defects().items():
        print(f"{finds(plant, range(asked.count))!s:>5}  {name}", flush=True)


if __name__ == "__main__":
    main()
