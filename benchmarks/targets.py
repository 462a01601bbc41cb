"""How long it takes to say what targets run: of many nodes, and of a model of many gigabytes.

    python benchmarks/targets.py [--nodes 20000] [--size 30GB] [--dtype float32]

The nodes are those of a decoder, types and shapes inferred before; the model is one of blocks of
real width whose data file is a hole, so that it takes no room. Its check is a process of its own;
bare imports are those that the command makes before it reads the model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from decoder import DTYPES, Config, make, parse_bytes

TARGETS = ("ort-cpu", "openvino", "tensorrt-10.15")
IMPORTS = "import vlmpass.cli.app, vlmpass.cli.check, vlmpass.suits, vlmpass.ir_tools.load"
"""What the command imports before it reads a model."""

CHECK = "import sys; from vlmpass.cli.app import run; run(sys.argv[1:])"
PEAK = """import re, sys
print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)"""
"""What a system counts at its end is of before the process was one of its own, too."""


def of_nodes(count: int, rounds: int) -> tuple[int, float]:
    """Return how many nodes there were, and the fewest CPU seconds that judging them took."""
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.targets import profile
    from vlmpass.ir_tools.targets.findings import assess
    from vlmpass.passes.infer import Infer

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        nodes, layers = 0, 8
        while nodes < count:
            layers = layers * count // nodes + 1 if nodes else layers
            make(path, Config(layers=layers, hidden=16, heads=2, kv_heads=1, intermediate=16))
            model = load(path)
            nodes = sum(1 for _ in model.graph.all_nodes())
        Infer().run(model)
        targets, seconds = [profile(each) for each in TARGETS], []
        for _ in range(rounds):
            started = time.process_time()
            assess(model, targets)
            seconds.append(time.process_time() - started)
        return nodes, min(seconds)


def process(code: str, *arguments: str) -> tuple[float, float]:
    """Return the CPU seconds, its children's too, and the largest memory in MB, of some Python."""
    command = [sys.executable, "-c", f"{code}\n{PEAK}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        said = child.stderr.read().split()
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    return usage.ru_utime + usage.ru_stime, int(said[-1]) / 1000


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--size", type=parse_bytes, default=parse_bytes("30GB"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    nodes, seconds = of_nodes(asked.nodes, asked.rounds)
    print(f"{nodes} nodes against {', '.join(TARGETS)}: {seconds:.2f} CPU s")
    with TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "big.onnx"
        make(path, Config.of_size(asked.size, dtype=asked.dtype, sparse=True))
        size = sum(each.stat().st_size for each in Path(folder).iterdir()) / 1e9
        for target in (TARGETS[0], ",".join(TARGETS[1:])):
            check = ["check", str(path), "--target", target]
            whole = [process(CHECK, *check) for _ in range(asked.rounds)]
            bare = [process(IMPORTS) for _ in range(asked.rounds)]
            spent, memory = min(e[0] for e in whole), min(e[1] for e in whole)
            print(
                f"{size:.1f} GB, check --target {target}: {spent:.2f} CPU s, {memory:.0f} MB"
                f"; imports {min(e[0] for e in bare):.2f} CPU s, {min(e[1] for e in bare):.0f} MB"
            )


if __name__ == "__main__":
    main()
