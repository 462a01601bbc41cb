"""Types of options: each reads a word, writes it back, and says what it takes with an example."""

from __future__ import annotations

import json
import math
import numbers
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["WORD", "BadValueError", "Kind", "Text", "kind_of", "write_word"]

WORD = re.compile(r"""[^\s,{}\[\]="']+""")


class BadValueError(ValueError):
    """A value does not fit an option's type."""


@dataclass(frozen=True)
class Text:
    """A word of pipeline text and its place; what was quoted is a string and nothing else."""

    text: str
    quoted: bool = False
    start: int = 0
    stop: int = 0


Written = Text | Sequence[Text]


def write_word(text: str, *, quote: bool = False) -> str:
    """Return a word as pipeline text, quoted where the grammar or the caller needs it."""
    if quote or not WORD.fullmatch(text):
        return json.dumps(text, ensure_ascii=False)
    return text


class Kind:
    """One type of option: how it is read, written and explained."""

    says: str
    example: str

    def read(self, written: Written) -> object:
        """Return the value that a word or list of words stands for.

        Raises:
            BadValueError: They are no value of this kind.
        """
        if not isinstance(written, Text):
            raise BadValueError
        return self.read_word(written)

    def read_word(self, word: Text) -> object:
        """Return the value that one word stands for, or raise BadValueError."""
        raise NotImplementedError

    def accept(self, value: object) -> object:
        """Return a Python value in the form the field holds it, or raise BadValueError."""
        raise NotImplementedError

    def write(self, value: object) -> str:
        """Return an accepted value as pipeline text."""
        return str(value)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it takes, if they can be listed."""
        return ()


class _Int(Kind):
    says, example = "an integer", "18"

    def read_word(self, word: Text) -> object:
        if word.quoted or not re.fullmatch(r"[+-]?[0-9]+", word.text):
            raise BadValueError
        return int(word.text)

    def accept(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise BadValueError
        return int(value)


class _Float(Kind):
    says, example = "a number", "1e-3"

    def read_word(self, word: Text) -> object:
        if word.quoted or not re.fullmatch(r"[+-]?([0-9.]+(e[+-]?[0-9]+)?|inf)", word.text, re.I):
            raise BadValueError
        try:
            return float(word.text)
        except ValueError:
            raise BadValueError from None

    def accept(self, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise BadValueError
        try:
            found = float(value)
        except OverflowError:
            raise BadValueError from None
        if math.isnan(found):
            raise BadValueError
        return found


class _Bool(Kind):
    says, example = "true or false", "true"

    def read_word(self, word: Text) -> object:
        if word.quoted or word.text not in self.choices:
            raise BadValueError
        return word.text == "true"

    def accept(self, value: object) -> object:
        if not isinstance(value, bool):
            raise BadValueError
        return value

    def write(self, value: object) -> str:
        return "true" if value else "false"

    @property
    def choices(self) -> tuple[str, ...]:
        return ("true", "false")


class _None(Kind):
    says, example = "none", "none"

    def read_word(self, word: Text) -> object:
        if word.quoted or word.text != "none":
            raise BadValueError
        return None

    def accept(self, value: object) -> object:
        if value is not None:
            raise BadValueError
        return None

    def write(self, value: object) -> str:
        return "none"


class _Str(Kind):
    says, example = "a word, or text in double quotes", "name"

    def read_word(self, word: Text) -> object:
        return word.text

    def accept(self, value: object) -> object:
        if not isinstance(value, str):
            raise BadValueError
        return value

    def write(self, value: object) -> str:
        return write_word(str(value))


class _Choice(Kind):
    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self.says = f"one of {', '.join(words)}" if len(words) > 1 else words[0]
        self.example = words[0]

    def read_word(self, word: Text) -> object:
        return self.accept(word.text)

    def accept(self, value: object) -> object:
        if not isinstance(value, str) or value not in self._words:
            raise BadValueError
        return value

    def write(self, value: object) -> str:
        return write_word(str(value))

    @property
    def choices(self) -> tuple[str, ...]:
        return self._words


class _List(Kind):
    def __init__(self, item: Kind) -> None:
        self._item = item
        self.says = f"a list, each item {item.says}"
        self.example = f"[{item.example}]"

    def read(self, written: Written) -> object:
        words = [written] if isinstance(written, Text) else written
        return tuple(self._item.read(word) for word in words)

    def accept(self, value: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise BadValueError
        return tuple(self._item.accept(item) for item in value)

    def write(self, value: object) -> str:
        assert isinstance(value, tuple)
        return "[" + ",".join(self._item.write(item) for item in value) + "]"

    @property
    def choices(self) -> tuple[str, ...]:
        return self._item.choices


class _Union(Kind):
    """The first kind that reads a word wins, the plain string coming last."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        order = (_None, _Bool, _Int, _Float, _Choice, _List, _Str)
        self._kinds = sorted(kinds, key=lambda kind: order.index(type(kind)))
        named = [kind for kind in self._kinds if not isinstance(kind, _None)]
        self.says = " or ".join(kind.says for kind in [*named, *self._kinds[: -len(named)]])
        self.example = named[0].example

    def read(self, written: Written) -> object:
        for kind in self._kinds:
            try:
                return kind.read(written)
            except BadValueError:
                continue
        raise BadValueError

    def accept(self, value: object) -> object:
        return self._fit(value)[1]

    def write(self, value: object) -> str:
        kind, value = self._fit(value)
        text = kind.write(value)
        if isinstance(value, str) and self.read(Text(text)) != value:
            return write_word(value, quote=True)
        return text

    def _fit(self, value: object) -> tuple[Kind, object]:
        for kind in self._kinds:
            try:
                return kind, kind.accept(value)
            except BadValueError:
                continue
        raise BadValueError

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(word for kind in self._kinds for word in kind.choices)


_SCALARS: Mapping[object, type[Kind]] = {
    int: _Int,
    float: _Float,
    bool: _Bool,
    str: _Str,
    type(None): _None,
}


def kind_of(annotation: object) -> Kind:
    """Return the kind of an annotation.

    Raises:
        TypeError: It is of no kind; those that exist are named.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _SCALARS:
        return _SCALARS[annotation]()
    if origin is typing.Literal and all(isinstance(word, str) for word in args):
        return _Choice(args)
    if origin in (typing.Union, types.UnionType):
        return _Union([kind_of(arg) for arg in args])
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _List(kind_of(args[0]))
    raise TypeError(
        f"{annotation} is no option type; take int, float, bool, str, Literal of strings, "
        "tuple[T, ...] of these, a union of these, or tuple[tuple[str, T], ...] for free names"
    )
