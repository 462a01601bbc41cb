"""bfloat16 to float32 against writing as many bytes plainly, in one run: ratio and peak memory.

python benchmarks/widen.py --size 8GB --folder /tmp/bench
python benchmarks/widen.py --quick
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import decoder
from measure import Measured, pairs, table

HERE = Path(__file__).parent


def _row(name: str, series: list[Measured], ratio: float) -> list[str]:
    figures = sorted(series, key=lambda each: each.seconds)[len(series) // 2]
    peak = max(each.peak_mb for each in series)
    return [name, f"{figures.seconds:.2f}", f"{ratio:.2f}", f"{peak:.0f}"]


def run(folder: Path, size: int, rounds: int) -> str:
    """Make a bfloat16 model of a size in bytes, widen it and return the table."""
    source, out = folder / "source" / "half.onnx", folder / "out"
    if not source.exists():
        decoder.make(source, decoder.Config.of_size(size, opset=17, dtype="bfloat16"))
    target = out / "wide.onnx"
    verb = ["convert", str(source), str(target), "--dtype", "float32", "--no-verify"]
    widen = [sys.executable, "-m", "vlmpass", *verb]
    plain = [sys.executable, str(HERE / "peers.py"), "write_twice", str(source), str(target)]
    ours, theirs, ratio = pairs(widen, plain, rounds=rounds, clean=[out])
    rows = [["job", "seconds", "x plain write", "peak MB"]]
    rows.append(_row("plain write of twice the bytes, with fsync", theirs, 1.0))
    rows.append(_row("vlmpass bfloat16 -> float32", ours, ratio))
    return table(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=decoder.parse_bytes, default=decoder.parse_bytes("8GB"))
    parser.add_argument("--folder", type=Path, default=Path("bench-widen"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small model, one round: sanity")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.rounds = decoder.parse_bytes("100MB"), 1
    print(run(arguments.folder, arguments.size, arguments.rounds))


if __name__ == "__main__":
    main()
