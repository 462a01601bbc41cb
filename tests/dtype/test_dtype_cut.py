"""Labels of least cost, against trying all of them."""

from __future__ import annotations

import itertools
import random

import pytest

from vlmpass.passes.dtype.cut import FORBIDDEN, Offer, _total, minimize


def _random(seed: int, alphabet: str) -> tuple[list[str], list[dict[str, int]], list[Offer]]:
    chance = random.Random(seed)
    count = chance.randint(2, 7)
    costs = []
    for _ in range(count):
        allowed = chance.sample(alphabet, chance.randint(1, len(alphabet)))
        costs.append({label: chance.randint(0, 5) for label in sorted(allowed)})
    ends: list[int | str] = [*range(count), *alphabet]
    offers = [
        Offer(
            chance.choice(ends),
            tuple(chance.choice(ends) for _ in range(chance.randint(1, 4))),
            chance.randint(1, 9),
        )
        for _ in range(chance.randint(1, 8))
    ]
    return [next(iter(cost)) for cost in costs], costs, offers


def _least(costs: list[dict[str, int]], offers: list[Offer]) -> int:
    return min(_total(labels, costs, offers) for labels in itertools.product(*costs))


@pytest.mark.parametrize("seed", range(200))
def test_types_cut_is_optimal_for_two_labels(seed: int) -> None:
    start, costs, offers = _random(seed, "ab")
    assert _total(minimize(start, costs, offers), costs, offers) == _least(costs, offers)


@pytest.mark.parametrize("seed", range(100))
def test_types_cut_is_allowed_and_near_the_best_for_three(seed: int) -> None:
    start, costs, offers = _random(seed, "abc")
    total = _total(minimize(start, costs, offers), costs, offers)
    assert total < FORBIDDEN
    assert total <= 2 * _least(costs, offers)


def test_types_cut_charges_a_value_once_for_each_label() -> None:
    offers = [Offer("a", (0, 1, "b"), 10)]
    assert minimize(["a", "a"], [{"a": 2, "b": 0}, {"a": 2, "b": 0}], offers) == ["b", "b"]


def test_types_cut_long_chain() -> None:
    count = 3000
    offers = [Offer(i, (i + 1,), 10) for i in range(count - 1)] + [Offer("a", (0,), 10)]
    costs = [{"a": 1, "b": 0} for _ in range(count)]
    assert minimize(["a"] * count, costs, offers) == ["b"] * count
