"""The tables `operators`, `limits`, `slower` and `sets` of a profile, upon those it inherits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vlmpass.ir_tools.targets.conditions import EVERY
from vlmpass.ir_tools.targets.operator_facts import OperatorFacts, operator_facts, with_limits

__all__ = ["Operators", "operator_table"]

_UNSAID = "nothing is said of the operator itself"


class Operators(NamedTuple):
    """What is said of operators.

    Attributes:
        facts: By domain and name.
        sets: Lists of types that lines refer to, by name.
        slower: Operators that take longer than the nodes that they stand for, and what is known.
    """

    facts: Mapping[tuple[str, str], OperatorFacts]
    sets: Mapping[str, str]
    slower: Mapping[tuple[str, str], str]


def operator_table(tables: Mapping[str, Any], upon: Operators) -> Operators:
    """Return what the tables of a file say; an operator in it is said anew, in every version.

    Args:
        tables: Those called `operators`, `limits`, `slower` and `sets`, where the file has them.
        upon: What it inherits.

    Raises:
        ValueError: Something is not as it should be; names the key, in one line.
    """
    sets = dict(upon.sets)
    for name, words in _entries(tables.get("sets", {}), "sets"):
        if not isinstance(words, str):
            raise ValueError(f"sets.{name} is {words!r}; give one line of types")
        sets[name] = words
    facts = dict(upon.facts)
    for key, said in _entries(tables.get("operators", {}), "operators"):
        domain, _, name = key.rpartition(".")
        try:
            facts["" if domain == "ai.onnx" else domain, name] = operator_facts(said, sets)
        except ValueError as error:
            raise ValueError(f"operators.{key}: {error}") from None
    for key, said in _entries(tables.get("limits", {}), "limits"):
        domain, _, name = key.rpartition(".")
        meant = list(facts) if key == EVERY else [(domain, name)]
        try:
            if not facts.keys() >= set(meant):
                raise ValueError(_UNSAID)
            facts |= {each: with_limits(facts[each], said, sets) for each in meant}
        except ValueError as error:
            raise ValueError(f"limits.{key}: {error}") from None
    return Operators(facts, sets, {**upon.slower, **dict(_slower(tables.get("slower", {}), facts))})


def _slower(
    table: object, facts: Mapping[tuple[str, str], OperatorFacts]
) -> Iterator[tuple[tuple[str, str], str]]:
    for key, said in _entries(table, "slower"):
        domain, _, name = key.rpartition(".")
        if (domain, name) not in facts:
            raise ValueError(f"slower.{key}: {_UNSAID}")
        if not isinstance(said, str) or not said.strip() or "\n" in said:
            raise ValueError(f"slower.{key} is {said!r}; give one line of text")
        yield (domain, name), said


def _entries(table: object, name: str) -> Iterator[tuple[str, object]]:
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} is {table!r}; give a table")
    yield from _leaves(table, "")


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    """Yield what is said by dotted key; a table whose keys are versions is no further level."""
    for key, value in table.items():
        if isinstance(value, Mapping) and not any(each[:1].isdigit() for each in value) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
