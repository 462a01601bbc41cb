from __future__ import annotations

import pytest

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2_000_000_000),
        ("2GiB", 2_147_483_648),
        ("500MB", 500_000_000),
        ("1.5 gb", 1_500_000_000),
        ("1.5KiB", 1536),
        ("4096", 4096),
        ("1TB", 10**12),
        ("7b", 7),
        (4096, 4096),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "2G", "-1GB", "0", "0.3B", "1e9", "2 GB 3", "nan", 0, -5, "1,5GB"]
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(SaveError, match=r"(2GB|2GiB)"):
        parse_size(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (1, "1 bytes"),
        (9_999, "9999 bytes"),
        (10_000, "10 kB"),
        (999_600, "1 MB"),
        (2_000_000_000, "2 GB"),
        (2_031_000_000, "2.03 GB"),
        (10**16, "1e+04 TB"),
    ],
)
def test_sizes_for_people(nbytes, text):
    assert format_size(nbytes) == text
