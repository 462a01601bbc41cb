"""What an option is: written once, for the command line, for Python and for both their help."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from vlmpass.ir_tools.errors import PipelineError, VlmpassError
from vlmpass.ir_tools.system.arguments import word

if TYPE_CHECKING:
    from vlmpass.ir_tools.targets import Profile

__all__ = [
    "Option",
    "choice",
    "helped",
    "nearest",
    "option",
    "options_of",
    "profile_of",
    "settle",
    "target_names",
    "told",
]

_T = TypeVar("_T")
Check: TypeAlias = "Callable[[str, object], object]"
Given: TypeAlias = "Mapping[str, object]"

_MANY = 50
"""Of how many names a message no longer lists all."""

_ELSEWHERE = re.compile(r"( *)(\w+(?:, \w+)*): See `ConvertOptions`\.")


@dataclass(frozen=True)
class Option:
    """One option; its name, type and default are those of the field that it belongs to.

    Attributes:
        name: As Python spells it.
        default: What it is where nobody says otherwise.
        help: What it does.
        check: Returns a value given for it as it is kept, or refuses it; takes the name, too.
        metavar: What stands for its value in the command line's help; empty for a flag.
        word: As the command line spells it.
        kind: What the command line reads for a value.
        least: The least number that it takes.
        refuse: Returns why it does not go with the other options, if so.
        among: Returns words that it takes, for shells to complete; there may be others.
    """

    name: str
    default: object
    help: str
    check: Check
    metavar: str
    word: str
    kind: type
    least: float | None
    refuse: Callable[[Given], VlmpassError | None]
    among: Callable[[], Iterable[str]]


def option(
    default: _T,
    help: str,
    check: Check,
    metavar: str = "",
    *,
    word: str = "",
    kind: type = str,
    least: float | None = None,
    refuse: Callable[[Given], VlmpassError | None] = lambda given: None,
    among: Callable[[], Iterable[str]] = tuple,
) -> _T:
    """Return the field of an option.

    Args:
        default, help, check, metavar, kind, least, refuse, among: See `Option`.
        word: As the command line spells it, if not as Python does but for hyphens.
    """
    rest = {"metavar": metavar, "word": word, "kind": kind, "least": least, "refuse": refuse}
    told = {"help": help, "check": check, "among": among, **rest}
    return field(default=default, metadata={"option": told})


def options_of(group: type) -> tuple[Option, ...]:
    """Return the options of a dataclass, in order."""
    found = []
    for each in fields(group):
        told = each.metadata.get("option")
        if told is not None:
            spelled = {**told, "word": told["word"] or each.name.replace("_", "-")}
            found.append(Option(each.name, each.default, **spelled))
    return tuple(found)


def told(given: object, group: type) -> dict[str, Any]:
    """Return the options of a group by name.

    Args:
        given: Has them all.
        group: The dataclass that the options are written in.
    """
    return {each.name: getattr(given, each.name) for each in options_of(group)}


def settle(given: object, group: type) -> None:
    """Hold every option of a group to its check, and then to the others.

    Args:
        given: Has them all; keeps what the checks return.
        group: The dataclass that the options are written in.

    Raises:
        VlmpassError: A value is none for its option, or does not go with another one.
    """
    found = options_of(group)
    for each in found:
        object.__setattr__(given, each.name, each.check(each.name, getattr(given, each.name)))
    for each in found:
        error = each.refuse(vars(given))
        if error is not None:
            raise error


def helped(*groups: type) -> Callable[[_T], _T]:
    """Return a decorator that writes out what a docstring leaves to the options' own help.

    Args:
        *groups: Dataclasses that have the options.
    """
    known = {each.name: each.help for group in groups for each in options_of(group)}

    def entries(match: re.Match[str]) -> str:
        more = f"{match[1]}    "
        texts = [f"{match[1]}{name}: {known[name]}" for name in match[2].split(", ")]
        return "\n".join(textwrap.fill(text, 100, subsequent_indent=more) for text in texts)

    def decorate(what: _T) -> _T:
        if what.__doc__ is not None:
            what.__doc__ = _ELSEWHERE.sub(entries, what.__doc__)
        return what

    return decorate


def choice(choices: Iterable[str], what: str) -> Check:
    """Return a check that takes one of some words, or None.

    Args:
        choices: The words.
        what: What they name, such as ``target``.
    """
    known = tuple(choices)

    def check(name: str, value: object) -> str | None:
        found = word(name, value)
        if found is not None and found not in known:
            raise nearest(found, known, what)
        return found

    return check


def nearest(word: str, known: Iterable[str], what: str) -> PipelineError:
    """Return an error for an unknown word that names the nearest known one, or all if not many.

    Args:
        word: What was written.
        known: Words that exist.
        what: What they name, such as ``target``.
    """
    choices = list(known)
    folded = {each.lower(): each for each in choices}
    found = difflib.get_close_matches(word.lower(), folded, 1, 0.6)
    remedy = f"choose one of {', '.join(choices)}"
    if found:
        remedy = f"did you mean '{folded[found[0]]}'?"
    elif len(choices) > _MANY:
        remedy = "look up its name"
    return PipelineError(f"there is no {what} '{word}'", remedy=remedy)


def target_names() -> tuple[str, ...]:
    """Return the names of all targets."""
    from vlmpass.ir_tools.targets import names

    return names()


def profile_of(target: str) -> Profile:
    """Return the profile of a target that was asked for, by name or as a ``.toml`` file.

    Raises:
        PipelineError: There is none, with the nearest name; or the file is no profile.
    """
    from vlmpass.ir_tools.targets import profile

    known = target_names()
    if not target.endswith(".toml") and target not in known:
        raise nearest(target, known, "target")
    return profile(target)
