"""Models brought to half precision, each judged as hardware rounds: what holds, what is refused.

python tests/dtype/half_matrix.py [--dtype float16] [--keep-io] [--only REGEX] MODEL...
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VlmpassError

FIXTURES = Path(__file__).parents[1] / "fixtures"


def outcome(source: Path, dtype: str, *, keep_io: bool = False) -> tuple[bool, str]:
    """Convert a model; say whether it was written, and what was verified or why it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = Pipeline(dtype=dtype, keep_io=keep_io).convert(
                source, Path(folder) / "model.onnx"
            )
        except VlmpassError as error:
            return False, " ".join(str(error).split())
    return True, str(report).rpartition("verified")[2].strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--keep-io", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    written = 0
    sources = arguments.models or sorted(FIXTURES.rglob("*.onnx"))
    sources = [source for source in sources if re.search(arguments.only, source.name)]
    for source in sources:
        start = time.perf_counter()
        held, text = outcome(source, arguments.dtype, keep_io=arguments.keep_io)
        written += held
        print(f"{source.name}, {time.perf_counter() - start:.1f} s: {text}", flush=True)
    print(f"{len(sources)} models, {written} written, {len(sources) - written} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
