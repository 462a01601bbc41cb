"""The main job against a plain copy and against peers, in one run: ratios and peak memory.

python benchmarks/main_job.py --size 8GB --folder /tmp/bench
python benchmarks/main_job.py --quick
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import decoder
from measure import Measured, measure, pairs, table

HERE = Path(__file__).parent
SHARD = 1_800_000_000
"""Bytes of a source file, below the limit of an output's, so that it can be kept."""


def _vlmpass(source: Path, target: Path, *options: str) -> list[str]:
    verb = ["convert", str(source), str(target), "--opset", "18", "--no-verify"]
    return [sys.executable, "-m", "vlmpass", *verb, *options]


def _peer(name: str, source: Path, target: Path) -> list[str]:
    return [sys.executable, str(HERE / "peers.py"), name, str(source), str(target)]


def _median(series: Sequence[Measured]) -> Measured:
    return sorted(series, key=lambda figures: figures.seconds)[len(series) // 2]


def _row(name: str, figures: Measured, ratio: float | None) -> list[str]:
    shown = "" if ratio is None else f"{ratio:.2f}"
    return [name, f"{figures.seconds:.2f}", shown, f"{figures.peak_mb:.0f}"]


def run(folder: Path, size: int, rounds: int, peers: Sequence[str]) -> str:
    """Make a model, run everyone on it and return the table."""
    source = folder / "source" / "big.onnx"
    if not source.exists():
        files = 1 + size // SHARD
        decoder.make(source, decoder.Config.of_size(size, opset=17, files=files))
    out = folder / "out"
    target = out / "big.onnx"
    rows = [["job", "seconds", "x plain copy", "peak MB"]]
    copy = _peer("copy", source, target)
    ours, plain, ratio = pairs(
        _vlmpass(source, target, "--weights", "copy"), copy, rounds=rounds, clean=[out]
    )
    rows.append(_row("plain copy, with fsync", _median(plain), 1.0))
    rows.append(_row("vlmpass 17 -> 18, shards written", _median(ours), ratio))
    for name in peers:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        figures = measure(_peer(name, source, target))
        rows.append(_row(name, figures, figures.seconds / _median(plain).seconds))
    shutil.rmtree(out, ignore_errors=True)
    kept = measure(_vlmpass(source, source.with_name("big.opset18.onnx")))
    if kept.status:
        raise SystemExit(kept.message)
    rows.append(_row("vlmpass 17 -> 18, data kept", kept, kept.seconds / _median(plain).seconds))
    source.with_name("big.opset18.onnx").unlink()
    return table(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=decoder.parse_bytes, default=decoder.parse_bytes("8GB"))
    parser.add_argument("--folder", type=Path, default=Path("bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=["onnx_ir", "onnxscript"])
    parser.add_argument("--quick", action="store_true", help="a small model, one round: sanity")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.rounds = decoder.parse_bytes("100MB"), 1
    print(run(arguments.folder, arguments.size, arguments.rounds, arguments.peers))


if __name__ == "__main__":
    main()
