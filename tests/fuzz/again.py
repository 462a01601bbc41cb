"""Presets run twice: the second run changes no byte of any file that the first wrote.

As a script it takes models and folders of models, or the fixtures if none is named; `--random`
asks each for so many sets of options at random, instead of what is asked for by name:

    python -m tests.fuzz.again [--only REGEX] [--presets REGEX] [--random N --seed N] [MODEL...]
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx

from vlmpass import Pipeline
from vlmpass.intent import DTYPES, FUSE, HALVES, QUANT
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset

from .trial import BARE, PRESETS, difference, place_of, quiet

Asked = Mapping[str, object]
"""Arguments of a pipeline, and of its conversion where they are among SAVING."""

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAVING = ("layout", "shard_size")
LAYOUTS = ("inline", "default", "hf", "single", "safetensors")
EVERY: Mapping[str, Asked] = {
    **PRESETS,
    **{f"quant {form}": {"quant": form} for form in QUANT},
    "bfloat16 keep-io": {"dtype": "bfloat16", "keep_io": True},
    **{f"opset {opset}": {"opset": opset} for opset in (7, 9, *range(11, 25), 26, 28)},
    "opset lowest": {"opset": "lowest"},
    "opset auto": {"opset": "auto"},
    "opset 13 simplify": {"opset": 13, "simplify": True},
    "opset 18 simplify": {"opset": 18, "simplify": True},
    "opset 21 fuse": {"opset": 21, "fuse": "standard", "simplify": True},
    "opset 23 fuse": {"opset": 23, "fuse": "standard"},
    "float32 opset 17": {"dtype": "float32", "opset": 17, "simplify": True},
    "float32 quant": {"dtype": "float32", "quant": "float", "simplify": True},
    "split": {"simplify": True, "shard_size": "64KB", "layout": "default"},
    **{f"pass {text}": {"passes": text} for text in BARE},
}
"""What is asked for by name: presets, opsets, combinations, and every pass alone."""


def fixtures() -> list[Path]:
    return models([FIXTURES])


def models(paths: Iterable[Path]) -> list[Path]:
    """Return models, and those in folders."""
    return [
        m for each in paths for m in (sorted(each.rglob("*.onnx")) if each.is_dir() else [each])
    ]


def draw(dice: random.Random) -> Asked:
    """Return options at random that may be given together."""
    asked: dict[str, object] = {}
    if dice.random() < 0.6:
        asked["opset"] = dice.choice(("lowest", "auto", *range(OLDEST_OPSET, newest_opset() + 1)))
    if dice.random() < 0.5:
        asked["dtype"] = dice.choice(DTYPES)
        asked["keep_io"] = dice.random() < 0.3
    if asked.get("dtype") in HALVES and dice.random() < 0.3:
        asked["calibrate"] = "random"
    for name, values in (("fuse", FUSE), ("quant", QUANT), ("target", ("ort-cpu",))):
        if dice.random() < 0.3:
            asked[name] = dice.choice(values)
    for name in ("simplify", "restamp", "mend_shifts"):
        asked[name] = dice.random() < (0.5 if name == "simplify" else 0.1)
    asked["widen_io"] = "opset" in asked and dice.random() < 0.2
    asked["layout"] = dice.choice(LAYOUTS)
    if asked["layout"] not in ("inline", "single") and dice.random() < 0.5:
        asked["shard_size"] = dice.choice(("40KB", "300KB", "1MB"))
    return {name: given for name, given in asked.items() if given is not False}


def changed(source: Path, asked: Asked, folder: Path) -> str | None:
    """Convert a model twice; say what the second run changed, None if the first is refused."""
    first, second = folder / "a" / "model.onnx", folder / "b" / "model.onnx"
    for path in (first, second):
        path.parent.mkdir()
    try:
        convert(source, first, asked)
    except VlmpassError:
        return None
    convert(first, second, asked)
    one, two = _files(first.parent), _files(second.parent)
    if one == two:
        return ""
    if one["model.onnx"] == two.get("model.onnx"):
        return f"data files {sorted(one)} -> {sorted(two)}"
    return difference(*(onnx.load(each, load_external_data=False) for each in (first, second)))


def convert(source: Path, path: Path, asked: Asked) -> None:
    saving = {"layout": "inline", **{name: asked[name] for name in SAVING if name in asked}}
    options = {name: given for name, given in asked.items() if name not in SAVING}
    Pipeline(**options).convert(source, path, verify=False, weights="copy", **saving)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Sweep:
    """Models through what is asked for, and how many pairs there were.

    Attributes:
        pairs: That were tried.
        refused: Of them, those of which the first run is refused.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.refused = 0

    def findings(self, source: Path, asked: Mapping[str, Asked]) -> Iterator[str]:
        for name, each in asked.items():
            self.pairs += 1
            with tempfile.TemporaryDirectory() as folder:
                try:
                    why = changed(source, each, Path(folder))
                except VlmpassError as error:
                    why = f"the second run is refused: {error}"
                except Exception as error:  # noqa: BLE001 - any other is what is looked for
                    why = place_of(error)
            self.refused += why is None
            if why:
                yield f"{source.name}, {name}: {why}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--presets", default="")
    parser.add_argument("--random", type=int, default=0, help="sets of options for each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    quiet()
    sources = [
        e for e in models(arguments.models or [FIXTURES]) if re.search(arguments.only, e.name)
    ]
    until = time.monotonic() + arguments.seconds
    sweep, count = Sweep(), 0
    named = {name: each for name, each in EVERY.items() if re.search(arguments.presets, name)}
    for source in sources:
        if time.monotonic() > until:
            print(f"{source.name} and what comes after it was not tried")
            break
        dice = random.Random(f"{arguments.seed} {source.name}")
        drawn = [draw(dice) for _ in range(arguments.random)]
        for finding in sweep.findings(source, {str(each): each for each in drawn} or named):
            count += 1
            print(finding, flush=True)
    tried = f"{sweep.pairs} pairs, {sweep.refused} refused"
    print(f"{len(sources)} models, {tried}, {count} findings")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
