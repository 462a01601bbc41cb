"""What a profile says of one operator: types that have a kernel, and conditions that decide.

An operator has a line of text or a list of them, or a table of such by since-version. A line is

    T: float double automatic float16       what a type parameter or a formal takes; native first
    unsupported if antialias = 1: it is ignored            what else decides, and why
    native                                  nothing of the node matters
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vlmpass.ir_tools.targets.conditions import Condition, condition, type_text
from vlmpass.ir_tools.targets.support import Support

__all__ = [
    "KINDS",
    "Limit",
    "OperatorFacts",
    "Section",
    "Types",
    "operator_facts",
    "types_of",
    "with_limits",
]

KINDS = {each.word: each for each in Support}

_VERSIONS = re.compile(r"(\d+)(?:-(\d+)|(\+))?")
_LIMIT = re.compile(rf"({'|'.join(KINDS)})(?: if (.+?))?(?:: (.+))?")
_TYPES = re.compile(r"(\w+): (.+)")
_WORD = re.compile(r"[^\s()]+(?:\([^\s]*\))?")
OTHERS = "others"
"""What stands in a line for every type that it does not name."""


@dataclass(frozen=True)
class Types:
    """How well each type of a type parameter, or of a formal, is run.

    Attributes:
        name: The parameter or formal; empty for what the first operand has.
        kinds: By type, as the schemas spell it.
        others: What holds for a type that is not named.
        text: The line.
    """

    name: str
    kinds: Mapping[str, Support]
    others: Support | None
    text: str


@dataclass(frozen=True)
class Limit:
    """How well a node is run for which all conditions hold.

    Attributes:
        support: How well.
        conditions: All that must hold; none for a line about every node.
        reason: Why, in the profile's words; may be empty.
        text: The line.
    """

    support: Support
    conditions: tuple[Condition, ...]
    reason: str
    text: str


@dataclass(frozen=True)
class Section:
    """What is said for some since-versions.

    Attributes:
        first: The first since-version.
        last: The last one; None where every later one is meant.
        types: Lines about types.
        limits: Lines with conditions.
    """

    first: int
    last: int | None
    types: tuple[Types, ...]
    limits: tuple[Limit, ...]

    def covers(self, since: int) -> bool:
        """Whether it is about a since-version."""
        return self.first <= since and (self.last is None or since <= self.last)


@dataclass(frozen=True)
class OperatorFacts:
    """What a profile says of one operator.

    Attributes:
        sections: By since-version, ascending.
    """

    sections: tuple[Section, ...]

    def at(self, since: int) -> Section | None:
        """Return what is said of a since-version: what starts last."""
        found = [each for each in self.sections if each.covers(since)]
        return found[-1] if found else None


def operator_facts(said: object, sets: Mapping[str, str]) -> OperatorFacts:
    """Return what is said of an operator.

    Args:
        said: A line, lines, or a table of them by since-version (``13``, ``7-12`` or ``13+``).
        sets: Named lists of types, which lines refer to by ``@name``.

    Raises:
        ValueError: Something is not as it should be; says what, in one line.
    """
    if not isinstance(said, Mapping):
        return OperatorFacts((_section(1, None, said, sets),))
    if not said:
        raise ValueError("it says nothing")
    sections = []
    for versions, lines in said.items():
        match = _VERSIONS.fullmatch(versions)
        if match is None:
            raise ValueError(f"{versions!r} is no since-version; write 13, 7-12 or 13+")
        first = int(match[1])
        last = None if match[3] else int(match[2] or first)
        sections.append(_section(first, last, lines, sets))
    return OperatorFacts(tuple(sorted(sections, key=lambda each: each.first)))


def with_limits(facts: OperatorFacts, said: object, sets: Mapping[str, str]) -> OperatorFacts:
    """Return facts with more lines, at the since-versions that these are about.

    Args:
        facts: What is said of an operator.
        said: A line, lines, or a table of them by since-version, as for `operator_facts`.
        sets: Named lists of types.

    Raises:
        ValueError: Something is not as it should be; says what, in one line.
    """
    more = operator_facts(said, sets).sections
    sections = []
    for each in facts.sections:
        added = [limit for other in more if other.covers(each.first) for limit in other.limits]
        sections.append(replace(each, limits=(*each.limits, *added)))
    return OperatorFacts(tuple(sections))


def _section(first: int, last: int | None, said: object, sets: Mapping[str, str]) -> Section:
    lines = [said] if isinstance(said, str) else said
    if not isinstance(lines, Sequence) or not lines:
        raise ValueError(f"{said!r} is neither a line of text nor a list of such")
    for line in lines:
        if not isinstance(line, str) or not line.strip():
            raise ValueError(f"{line!r} is no line of text")
    found = [_line(line.strip(), sets) for line in lines]
    types = tuple(each for each in found if isinstance(each, Types))
    limits = tuple(each for each in found if isinstance(each, Limit))
    return Section(first, last, types, limits)


def types_of(words: str, sets: Mapping[str, str]) -> Types:
    """Return how well types are run, without a parameter that they are of.

    Args:
        words: Types, and words for kinds before them.
        sets: Named lists of types.

    Raises:
        ValueError: A word is neither; says which, in one line.
    """
    return _types("", words, words, sets)


def _line(line: str, sets: Mapping[str, str]) -> Types | Limit:
    match = _LIMIT.fullmatch(line)
    if match is not None:
        texts = match[2].split(" and ") if match[2] else []
        return Limit(KINDS[match[1]], tuple(map(condition, texts)), match[3] or "", line)
    match = _TYPES.fullmatch(line)
    name, words = (match[1], match[2]) if match else ("", line)
    return _types(name, words, line, sets)


def _types(name: str, words: str, line: str, sets: Mapping[str, str]) -> Types:
    kind, kinds, others = Support.NATIVE, dict[str, Support](), None
    for word in _expanded(words, sets):
        if word in KINDS:
            kind = KINDS[word]
        elif word == OTHERS:
            others = kind
        else:
            kinds[type_text(word)] = kind
    return Types(name, kinds, others, line)


def _expanded(words: str, sets: Mapping[str, str]) -> list[str]:
    found = []
    for word in _WORD.findall(words):
        if not word.startswith("@"):
            found.append(word)
        elif word[1:] in sets:
            found += sets[word[1:]].split()
        else:
            raise ValueError(f"there is no set {word}")
    return found
