"""Presets run twice: the second run changes no byte of any file that the first wrote.

As a script it takes models, or the fixtures if none is named:

    python -m tests.fuzz.again [--only REGEX] [--presets REGEX] [MODEL...]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import VlmpassError

from .trial import PRESETS, difference

FIXTURES = Path(__file__).parents[1] / "fixtures"
EVERY: Mapping[str, Mapping[str, object]] = {
    **PRESETS,
    **{f"opset {opset}": {"opset": opset} for opset in (13, 17, 18, 21, 23, 26)},
    "opset 18 simplify": {"opset": 18, "simplify": True},
    "opset 21 fuse": {"opset": 21, "fuse": "standard", "simplify": True},
    "float32 opset 17": {"dtype": "float32", "opset": 17, "simplify": True},
}
"""What is asked for by name, opsets and combinations included."""


def fixtures() -> list[Path]:
    return sorted(FIXTURES.rglob("*.onnx"))


def changed(source: Path, preset: Mapping[str, object], folder: Path) -> str:
    """Convert a model twice; say what the second run changed, empty if nothing or refused."""
    first, second = folder / "a" / "model.onnx", folder / "b" / "model.onnx"
    for path in (first, second):
        path.parent.mkdir()
    try:
        Pipeline(**preset).convert(source, first, layout="inline", verify=False)
    except VlmpassError:
        return ""
    Pipeline(**preset).convert(first, second, layout="inline", verify=False)
    one, two = _files(first.parent), _files(second.parent)
    if one == two:
        return ""
    if one.keys() != two.keys():
        return f"files {sorted(one)} -> {sorted(two)}"
    return difference(ir.to_proto(ir.load(first)), ir.to_proto(ir.load(second)))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def findings(sources: list[Path], presets: str = "") -> Iterator[str]:
    for source in sources:
        for name, preset in EVERY.items():
            if not re.search(presets, name):
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    why = changed(source, preset, Path(folder))
                except VlmpassError as error:
                    why = f"the second run is refused: {error}"
            if why:
                yield f"{source.name}, {name}: {why}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--presets", default="")
    arguments = parser.parse_args()
    sources = arguments.models or fixtures()
    sources = [each for each in sources if re.search(arguments.only, each.name)]
    count = 0
    for finding in findings(sources, arguments.presets):
        count += 1
        print(finding, flush=True)
    print(f"{len(sources)} models, {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
