"""The grammar of pipeline text, and errors that point into it.

    pipeline = [ pass { "," pass } ]
    pass     = word [ "{" { option [","] } "}" ]
    option   = (word | string) "=" value
    value    = word | string | "[" { (word | string) [","] } "]"

A string is JSON's. White space is free everywhere. Nothing is imported to read the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.passes.pipeline.kinds import WORD, Text

__all__ = ["OptionText", "PassText", "Span", "point", "read_pipeline"]

_SPACE = re.compile(r"\s*")
_WIDTH = 96


@dataclass(frozen=True)
class Span:
    """A range of characters of the pipeline text."""

    start: int
    stop: int


@dataclass(frozen=True)
class OptionText:
    """One written option; a quoted name is always a free one."""

    name: Text
    value: Text | tuple[Text, ...]
    span: Span


@dataclass(frozen=True)
class PassText:
    """One written pass."""

    name: str
    options: tuple[OptionText, ...]
    span: Span


def point(text: str, span: Span, problem: str) -> PipelineError:
    """Return an error that shows the line of the text with carets under a span.

    Args:
        text: The whole pipeline.
        span: What the error is about.
        problem: What is wrong with it.
    """
    begin = text.rfind("\n", 0, span.start) + 1
    end = text.find("\n", span.start)
    line = text[begin : len(text) if end < 0 else end]
    start, stop = span.start - begin, min(span.stop - begin, len(line))
    cut = max(0, min(start - _WIDTH // 2, len(line) - _WIDTH))
    shown = re.sub(r"\s", " ", line[cut : cut + _WIDTH])
    before = "…" if cut else ""
    after = "…" if cut + _WIDTH < len(line) else ""
    carets = "^" * max(1, min(stop, cut + _WIDTH) - start)
    indent = " " * (start - cut + len(before))
    return PipelineError(f"{problem}\n  {before}{shown}{after}\n  {indent}{carets}")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def take(self, mark: str) -> bool:
        if self.peek() != mark:
            return False
        self.at += 1
        return True

    def fail(self, expected: str) -> NoReturn:
        mark = self.peek()
        word = WORD.match(self.text, self.at)
        found = word.group() if word else mark
        got = f"found '{found}'" if found else "the text ends"
        span = Span(self.at, self.at + max(1, len(found)))
        raise point(self.text, span, f"{expected} is expected here, but {got}")

    def word(self, expected: str) -> Text:
        if self.peek() == '"':
            return self._string()
        match = WORD.match(self.text, self.at)
        if match is None:
            self.fail(expected)
        start, self.at = self.at, match.end()
        return Text(match.group(), False, start, self.at)

    def _string(self) -> Text:
        start = self.at
        try:
            value, self.at = json.JSONDecoder(strict=False).raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            problem = f"this string does not end or is no JSON string ({error.msg})"
            raise point(self.text, Span(start, len(self.text)), problem) from None
        return Text(value, True, start, self.at)

    def value(self) -> Text | tuple[Text, ...]:
        if not self.take("["):
            return self.word("a value")
        words: list[Text] = []
        while not self.take("]"):
            words.append(self.word("an item or ']'"))
            self.take(",")
        return tuple(words)

    def option(self) -> OptionText:
        name = self.word("an option or '}'")
        if not self.take("="):
            self.fail(f"'=' and a value for option '{name.text}'")
        self.peek()
        start = self.at
        value = self.value()
        return OptionText(name, value, Span(start, self.at))

    def pass_(self) -> PassText:
        name = self.word("the name of a pass")
        options: list[OptionText] = []
        if self.take("{"):
            while not self.take("}"):
                options.append(self.option())
                self.take(",")
        return PassText(name.text, tuple(options), Span(name.start, name.stop))

    def pipeline(self) -> tuple[PassText, ...]:
        passes: list[PassText] = []
        while self.peek():
            passes.append(self.pass_())
            if self.peek() and not self.take(","):
                self.fail("',' or the end")
            elif not self.peek() and self.text[: self.at].rstrip().endswith(","):
                self.fail("the name of a pass")
        return tuple(passes)


def read_pipeline(text: str) -> tuple[PassText, ...]:
    """Return the passes written in a pipeline text, none of them looked up yet.

    Raises:
        PipelineError: The text does not follow the grammar; the caret shows where.
    """
    return _Reader(text).pipeline()
