"""Sizes as people write them: 2GB is 2 000 000 000 bytes, 2GiB is 2 147 483 648."""

from __future__ import annotations

import re

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.system.arguments import number

__all__ = ["SHARD_LIMIT", "format_size", "parse_size"]

_UNITS: dict[str, int] = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


SHARD_LIMIT = 2_000_000_000
"""The most bytes of a file where nobody says otherwise: what a protobuf, and many a tool, takes."""


def parse_size(text: int | str) -> int:
    """Return a number of bytes.

    Args:
        text: Bytes as a number, or a text such as ``500MB``, ``1.5GB`` or ``2GiB``; KB, MB, GB and
            TB are powers of 1000, KiB, MiB, GiB and TiB of 1024, in upper or lower case.

    Raises:
        SaveError: It is not a size, not above zero, or not a whole number of bytes.
    """
    if not isinstance(text, str):
        nbytes = number("a size", text, None)
        if nbytes is None or nbytes < 1:
            raise SaveError(f"a size of {text} bytes is not above zero", remedy="write 2GB or 2GiB")
        return nbytes
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise SaveError(f"'{text}' is not a size", remedy="write it as 500MB, 1.5GB or 2GiB")
    whole, _, fraction = match[1].partition(".")
    scale = int("1" + "0" * len(fraction))
    size, rest = divmod(int(whole + fraction) * unit, scale)
    if rest or size < 1:
        raise SaveError(f"'{text}' is not a whole number of bytes above zero", remedy="write 2GB")
    return size


def format_size(nbytes: int) -> str:
    """Return a size for people: exact below 10 000 bytes, else three digits and a unit."""
    if nbytes < 10_000:
        return f"{nbytes} bytes"
    power = 1
    while power < 4 and nbytes >= 999.5 * 1000**power:
        power += 1
    return f"{nbytes / 1000**power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
