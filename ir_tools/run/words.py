"""What runtimes say, without what only those who built them can use: C++ places, codes, folders."""

from __future__ import annotations

import re

from vlmpass.ir_tools.errors import cut

__all__ = ["said"]

_CODE = re.compile(r"^.*?\[ONNXRuntimeError\] : \d+ : (\w+) : (?:Load model from .*? failed:)?")
_INNER_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_PLACE = re.compile(r"(?:[\w./\\+-]|[A-Za-z]:(?=[/\\]))+\.(?:cc|h|cpp|hpp|cu|cuh|inc|inl):\d+:? ")
_FALSE = re.compile(r"^\S.{0,200}? was false\. ?(?=\S)")
_FOLDER = re.compile(r"[^\s'\"(]*vlmpass-run-[^\s'\"):]*")
_GUARANTEE = re.compile(r"ONNX Runtime only \*guarantees\*.*?(?=Current official support)")
_HEADLINE = re.compile(
    r"(?:Exception from|Check .* failed at) \S+:\d+:|FrontEnd API failed with \w+:|Summary:"
)
_ADVICE = "Please fix either the inputs/outputs or the model."
_LINES, _LONGEST = 3, 400


def said(text: str) -> str:
    """Return a runtime's message in one line: its word for the kind of error, and the reason.

    Args:
        text: As raised: several lines, with the place in the runtime's source and its signature.
    """
    text = cut(text)  # a pattern may take the square of a word's length
    lines = [line.strip() for line in text.partition("==> Context")[0].splitlines()]
    told = [each for each in lines if each != _ADVICE and not _HEADLINE.fullmatch(each)]
    line = " ".join(list(filter(None, told))[:_LINES])
    line = _GUARANTEE.sub("", _INNER_CODE.sub("", _CODE.sub(r"\1: ", line)))
    line = _FOLDER.sub("the model", _without_places(line)).replace(_ADVICE, "")
    line = " ".join(line.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST - 3]}..."
    return line or "no reason given"


def _without_places(line: str) -> str:
    """Return a line without any ``path/file.cc:42 void ns::function(int) condition was false.``"""
    found = _PLACE.search(line)
    while found is not None:
        rest = _without_signature(line[found.end() :])
        line = line[: found.start()] + _FALSE.sub("", rest)
        found = _PLACE.search(line)
    return line


def _without_signature(text: str) -> str:
    """Return what follows a function's name or, as some compilers write it, its whole signature."""
    opening = text.find("(")
    before = text[:opening]
    if opening < 0 or not _is_signature(before):
        return re.sub(r"^[\w:~]+ ", "", text)
    while text[opening : opening + 1] == "(":
        opening = _closing(text, opening) + 1
        follows = re.match(r"(?:::)?[\w~<>:]*(?=\()", text[opening:])
        opening += follows.end() if follows and not text[opening : opening + 1].isspace() else 0
    rest = re.sub(r"^ (?:const|noexcept|mutable)\b", "", text[opening:])
    return re.sub(r"^ \[with [^\]]*\]", "", rest).lstrip()


def _is_signature(before: str) -> bool:
    """Whether the words before a bracket are types and a qualified name, and no sentence."""
    words = before.split()
    return "::" in before and all(re.fullmatch(r"[\w:~<>*&,]+", word) for word in words)


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)
