"""Texts as a stream can take them: arrows, rules and signs in ASCII where it has no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["encodable", "fitted", "printable", "shown_in"]

_ASCII = {
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFTWARDS ARROW}": "<-",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{MIDDLE DOT}": "*",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MINUS SIGN}": "-",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{BULLET}": "*",
    **dict.fromkeys("\u2010\u2013\u2014\u2500\u2501\u2578\u257a", "-"),  # dashes, rules and bars
    **dict.fromkeys("\u2502\u2503", "|"),
    **dict.fromkeys("\u2018\u2019", "'"),
    **dict.fromkeys("\u201c\u201d", '"'),
}
_ENCODING: ContextVar[str] = ContextVar("_ENCODING", default="utf-8")


def encodable(text: str, encoding: str) -> str:
    """Return a text with every character that an encoding lacks in ASCII or as an escape.

    Args:
        text: Any text; half surrogates, as in undecodable file names, are escaped too.
        encoding: Of a stream; an unknown one counts as ASCII.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_one(each, encoding) for each in text)
    except LookupError:
        return encodable(text, "ascii")
    return text


def _one(character: str, codec: str) -> str:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        escaped = character.encode("ascii", "backslashreplace").decode("ascii")
        return _ASCII.get(character, escaped)
    return character


@contextmanager
def shown_in(encoding: str) -> Iterator[None]:
    """Say what the screens made meanwhile are to be encoded in; UTF-8 if nobody says so."""
    token = _ENCODING.set(encoding)
    try:
        yield
    finally:
        _ENCODING.reset(token)


def fitted(text: str) -> str:
    """Return a text for a screen, before it is laid out: encodable, controls escaped."""
    return encodable(printable(text), _ENCODING.get())


def printable(text: str) -> str:
    """Return a text with control characters as escapes: a name must not steer a terminal."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    control = character < " " or "\x7f" <= character < "\xa0"
    return f"\\x{ord(character):02x}" if control and character not in "\n\t" else character
