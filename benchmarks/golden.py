"""What conversions write, as hashes: nothing that a change is not about may change a byte.

    python benchmarks/golden.py MODEL ... > before.txt
    python benchmarks/golden.py MODEL ... --against before.txt

The fixtures and the models named are converted with a fixed list of options. A line says which
model and options, and the hash of all files written, or why it was refused; with `--verify`, what
numbers were held to as well. With `--against`, the lines that differ from an earlier run of the
same kind are printed instead, and the exit code is 1 if any do.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmpass import Report

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
OPTIONS: tuple[Mapping[str, object], ...] = (
    {"passes": ""},
    {"opset": 13},
    {"opset": 17},
    {"opset": 18},
    {"opset": 21, "widen_io": True},
    {"opset": 24},
    {"opset": "auto"},
    {"opset": "lowest"},
    {"dtype": "float32"},
    {"dtype": "float32", "opset": 18, "simplify": True, "fuse": "ort", "target": "ort-cpu"},
    {"dtype": "float16"},
    {"dtype": "float16", "keep_io": True, "simplify": True},
    {"dtype": "bfloat16", "keep_io": True},
    {"simplify": True},
    {"fuse": "standard", "opset": 23},
    {"fuse": "ort", "simplify": True},
    {"quant": "matmul-nbits"},
    {"quant": "dequantize-linear", "opset": 21},
    {"quant": "float", "dtype": "float32"},
    {"mend_shifts": True, "restamp": True, "simplify": True},
    {"passes": "simplify,convert-opset{to=23},fuse"},
    {"passes": "infer,unfuse,simplify"},
)
WRITTEN: tuple[Mapping[str, object], ...] = (
    {"layout": "default"},
    {"layout": "hf"},
    {"layout": "safetensors"},
    {"layout": "single"},
    {"layout": "inline"},
    {"shard_size": 100_000},
)


def jobs(models: Sequence[Path]) -> list[tuple[Path, Mapping[str, object]]]:
    """Return every model with every options; layouts go round, so that each sees many models."""
    found: list[tuple[Path, Mapping[str, object]]] = []
    for model in models:
        turn = zlib.crc32(model.name.encode())
        for number, options in enumerate(OPTIONS):
            found.append((model, {**options, **WRITTEN[(turn + number) % len(WRITTEN)]}))
    return found


def outcome(job: tuple[Path, Mapping[str, object]], verify: bool) -> str:
    """Return a line: the model, the options, and the hash or the refusal."""
    from vlmpass import Pipeline, VlmpassError

    model, options = job
    asked = {name: value for name, value in options.items() if name not in ("layout", "shard_size")}
    written = {name: value for name, value in options.items() if name not in asked}
    text = " ".join(f"{name}={value}" for name, value in options.items())
    with tempfile.TemporaryDirectory() as folder:
        try:
            pipeline = Pipeline(**asked)  # type: ignore[arg-type]
            target = Path(folder) / "result.onnx"
            report = pipeline.convert(
                model,
                target,
                verify=verify,
                **written,  # type: ignore[arg-type]
            )
        except VlmpassError as error:
            said = str(error).replace(folder, "").replace(str(model.parent), "")
            result = f"{type(error).__name__}: {' '.join(said.split())}"
        except Exception as error:  # noqa: BLE001 - a defect is an outcome to compare, too
            result = f"DEFECT {type(error).__name__}: {' '.join(str(error).split())}"
        else:
            result = digest(Path(folder)) + held_to(report)
    return f"{model.name} | {text} | {result}"


def held_to(report: Report) -> str:
    """Return what numbers were compared with, and the notes on it."""
    found = report.checked.numbers
    if found is None:
        return ""
    limits = sorted({f"{output.tolerance}" for output in found.outputs})
    twice = ", rounded too" if report.checked.rounded is not None else ""
    return f" within {' '.join(limits)}{twice}; {'; '.join(found.notes)}"


def digest(folder: Path) -> str:
    """Return the hash of all files of a folder, names included."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:32]


def differences(before: str, after: Sequence[str]) -> Iterator[str]:
    """Yield what an earlier run says otherwise; what only one of the two has run is left out."""
    old = dict(line.rsplit(" | ", 1) for line in before.splitlines() if " | " in line)
    for line in after:
        key, result = line.rsplit(" | ", 1)
        if key in old and old[key] != result:
            yield f"{key}\n  - {old[key]}\n  + {result}"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="beside the fixtures")
    parser.add_argument("--against", type=Path, help="an earlier run's output")
    parser.add_argument("--sample", type=int, help="of how many pairs, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--verify", action="store_true", help="compare numbers too")
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    pairs = jobs(sorted([*FIXTURES.rglob("*.onnx"), *asked.models]))
    if asked.sample is not None:
        pairs = random.Random(asked.seed).sample(pairs, min(asked.sample, len(pairs)))
    before = "" if asked.against is None else asked.against.read_text(encoding="utf-8")
    lines = []
    with ProcessPoolExecutor(asked.workers, get_context("spawn")) as pool:
        for line in pool.map(outcome, pairs, [asked.verify] * len(pairs)):
            lines.append(line)
            if asked.against is None:
                print(line, flush=True)
    found = list(differences(before, lines))
    if asked.against is not None:
        print("\n".join(found))
        print(f"{len(lines)} conversions, {len(found)} differ", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
