"""What comparing two large models takes, against what ONNX Runtime takes to run them.

    python benchmarks/verifying.py --size 8GB --memory 2GB --folder /tmp/bench
    python benchmarks/verifying.py --quick

The runtime loads both whole, one after the other, and runs each on the same sets of inputs. CPU
seconds of all processes count. The weights are zeros in files that take no room: this says what a
comparison costs and not what it finds.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import decoder
import numpy as np
from measure import table


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _measured(command: list[str]) -> tuple[float, float]:
    """Return the CPU seconds and the wall seconds of a command and of what it starts."""
    cpu, wall = _spent(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    return _spent() - cpu, time.perf_counter() - wall


def feeds(model: Path, folder: Path) -> list[Path]:
    """Write the sets of inputs that a comparison takes first, and return their files."""
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.run.inputs import InputPlan

    plan = InputPlan(load(model))
    kinds = [plan.attempts(size) for size in range(2)]
    kinds += [attempts for _, attempts in (*plan.sides(), *plan.hard())]
    files = []
    for index, attempts in enumerate(kinds):
        for attempt in islice(attempts, 1):
            files.append(folder / f"inputs{index}.npz")
            np.savez(files[-1], **attempt.inputs)  # type: ignore[arg-type]
    return files


def plainly(models: list[str], inputs: list[str]) -> None:
    """Load models in ONNX Runtime and run each on all inputs."""
    import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]

    for model in models:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for path in inputs:
            session.run(None, dict(np.load(path)))
        del session


def run(folder: Path, size: int, memory: str) -> str:
    """Make both models, compare them, run them plainly, and return the table."""
    source, target = folder / "verifying" / "m.onnx", folder / "verifying" / "m18.onnx"
    config = decoder.Config.of_size(size, opset=17, sparse=True, files=1 + size // 2_000_000_000)
    decoder.make(source, config)
    ours = [sys.executable, "-m", "vlmpass"]
    _measured([*ours, "convert", str(source), str(target), "--opset", "18", "--no-verify"])
    inputs = [str(path) for path in feeds(source, source.parent)]
    plain = [sys.executable, __file__, "--plainly", str(source), str(target), *inputs]
    rows = [["job", "CPU seconds", "x ONNX Runtime", "seconds"]]
    base = _measured(plain)
    found = _measured([*ours, "verify", str(source), str(target), "--memory", memory])
    for name, (cpu, wall) in (
        (f"ONNX Runtime, both models, {len(inputs)} sets of inputs", base),
        (f"vlmpass verify --memory {memory}", found),
    ):
        rows.append([name, f"{cpu:.1f}", f"{cpu / base[0]:.2f}", f"{wall:.1f}"])
    return table(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=decoder.parse_bytes, default=decoder.parse_bytes("8GB"))
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--folder", type=Path, default=Path("bench-verifying"))
    parser.add_argument("--quick", action="store_true", help="a small model: sanity")
    parser.add_argument("--plainly", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plainly:
        plainly(arguments.plainly[:2], arguments.plainly[2:])
        return
    if arguments.quick:
        arguments.size = decoder.parse_bytes("20MB")
    print(run(arguments.folder, arguments.size, arguments.memory))


if __name__ == "__main__":
    main()
