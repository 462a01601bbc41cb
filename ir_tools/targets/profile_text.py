"""The facts of operators as lines of a profile, so that a person can read and change them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from vlmpass.ir_tools.operators.schema import history
from vlmpass.ir_tools.targets.support import Support

__all__ = ["SETS", "operators_text", "types_line"]

SETS = {
    "real": "float double",
    "half": "float16 bfloat16",
    "signed": "int8 int16 int32 int64",
    "unsigned": "uint8 uint16 uint32 uint64",
    "float8": "float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz",
}
"""The lists of types that lines refer to by name."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = 84
"""Up to how many characters a list of lines is written in one."""

_LINE = 100
"""Up to how many characters an operator is written in one line."""


def types_line(name: str, kinds: Mapping[Support, Collection[str]]) -> str:
    """Return the line about the types of a type parameter.

    Args:
        name: The parameter or formal.
        kinds: The types of each kind, by the words of profiles.
    """
    words = []
    for support in sorted(kinds):
        if kinds[support]:
            words += [] if support is Support.NATIVE else [support.word]
            words += _grouped(kinds[support])
    return f"{name}: {' '.join(words)}"


def _grouped(types: Collection[str]) -> Iterator[str]:
    left = dict.fromkeys(sorted(types))
    for name, members in SETS.items():
        if left.keys() >= set(members.split()):
            yield f"@{name}"
            for each in members.split():
                del left[each]
    yield from left


def operators_text(facts: Mapping[str, Mapping[int, Sequence[str]]]) -> str:
    """Return the tables `sets` and `operators`.

    Args:
        facts: The lines by operator, with its domain before it where it has one, and since-version.
    """
    found = ["[sets]", *(f'{name} = "{types}"' for name, types in SETS.items()), "", "[operators]"]
    tables = []
    for name, by_version in sorted(facts.items()):
        sections = _merged(name, {since: list(by_version[since]) for since in sorted(by_version)})
        key = name if _BARE.fullmatch(name) else json.dumps(name)
        short = f"{key} = {{ {', '.join(_entry(*each) for each in sections)} }}"
        if len(short) <= _LINE and "\n" not in short:
            found.append(short)
        else:
            tables += ["", f"[operators.{key}]", *(_entry(*each) for each in sections)]
    return "\n".join([*found, *tables]) + "\n"


def _entry(versions: str, lines: Sequence[str]) -> str:
    return f"{versions} = {_lines(lines)}"


def _lines(lines: Sequence[str]) -> str:
    texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    if len(texts) == 1:
        return texts[0]
    short = f"[{', '.join(texts)}]"
    return short if len(short) <= _SHORT else "[\n  " + ",\n  ".join(texts) + ",\n]"


def _merged(name: str, facts: Mapping[int, list[str]]) -> list[tuple[str, list[str]]]:
    """Join neighbouring since-versions of which the same is said."""
    known = [each for each in history(name) if each >= min(facts)] or list(facts)
    runs: list[tuple[int, int, list[str]]] = []
    for since in sorted(facts):
        if runs and runs[-1][2] == facts[since] and _follows(runs[-1][1], since, known):
            runs[-1] = runs[-1][0], since, facts[since]
        else:
            runs.append((since, since, facts[since]))
    return [(str(a) if a == b else f"{a}-{b}", lines) for a, b, lines in runs]


def _follows(before: int, since: int, known: Sequence[int]) -> bool:
    return not any(before < each < since for each in known)
