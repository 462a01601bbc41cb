"""Seconds against nodes, in one run: simplifying, conversion, and a sweep with nothing to do.

    python benchmarks/speed.py --folder /tmp/bench --peers onnxslim onnxsim onnxscript
    python benchmarks/speed.py --quick

The graphs are those of `families`, with the given number of nodes. Every figure is from a
process of its own and counts the passes alone, not loading or saving; a peer's counts its call. Of
several runs the fastest counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import families
from measure import table

PASSES = {
    "simplify, the whole pipeline": None,
    "convert-opset to 21": "infer,convert-opset{to=21}",
}
SWEEPS = 5


def _pipeline(text: str | None, path: Path) -> float:
    from vlmpass.ir_tools.load import load
    from vlmpass.passes import PassManager, parse
    from vlmpass.presets import SIMPLIFY

    model, manager = load(path), PassManager(parse(text or SIMPLIFY))
    start = time.perf_counter()
    manager.run(model, in_place=True)
    return time.perf_counter() - start


def _sweep(path: Path) -> float:
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.rewrite import RuleSet, all_rules, apply_rules

    model, rules = load(path), RuleSet(all_rules())
    while apply_rules(model, rules):
        pass
    seconds = []
    for _ in range(SWEEPS):
        start = time.perf_counter()
        assert not apply_rules(model, rules)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / len(model.graph)


def _onnxslim(path: Path) -> float:
    import onnx
    import onnxslim

    model = onnx.load(str(path))
    start = time.perf_counter()
    onnxslim.slim(model)
    return time.perf_counter() - start


def _onnxsim(path: Path) -> float:
    import onnx
    import onnxsim

    model = onnx.load(str(path))
    start = time.perf_counter()
    onnxsim.simplify(model)
    return time.perf_counter() - start


def _onnxscript(path: Path) -> float:
    import onnx_ir as ir
    from onnxscript import optimizer

    model = ir.load(path)
    start = time.perf_counter()
    optimizer.optimize(model)
    return time.perf_counter() - start


PEERS: dict[str, Callable[[Path], float]] = {
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxscript": _onnxscript,
}


def one(job: str, path: Path) -> float:
    """Run one job in this process and return its seconds; of the sweep, seconds per node."""
    if job == "sweep":
        return _sweep(path)
    return PEERS[job](path) if job in PEERS else _pipeline(PASSES[job], path)


def _run(job: str, path: Path) -> float:
    command = [sys.executable, __file__, "--one", job, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{job} failed: {result.stderr[-500:]}")
    figure = float(json.loads(result.stdout.splitlines()[-1]))
    print(f"{job} on {path.parent.name}: {figure:.3g} s", file=sys.stderr)
    return figure


def run(folder: Path, family: str, sizes: list[int], peers: list[str], rounds: int) -> str:
    """Run everything and return the table; of `rounds` runs of a job the fastest counts."""
    paths = {size: folder / f"{family}{size}" / "m.onnx" for size in sizes}
    for size, path in paths.items():
        if not path.exists():
            families.make(family, path, size)
    small, large = min(sizes), max(sizes)
    rows = [[family, *(f"{size} nodes" for size in sizes), "ratio"]]
    base = 0.0
    for job in PASSES:
        times = {size: min(_run(job, paths[size]) for _ in range(rounds)) for size in sizes}
        base = base or times[small]
        ratio = f"{times[large] / times[small]:.1f}"
        rows.append([job, *(f"{times[size]:.2f} s" for size in sizes), ratio])
    rates = [1 / min(_run("sweep", paths[size]) for _ in range(rounds)) for size in sizes]
    rows.append(["all rules, none applies", *(f"{rate:.0f} nodes/s" for rate in rates), ""])
    for peer in peers:
        seconds = _run(peer, paths[small])
        gap = f"{seconds / base:.0f} x vlmpass's simplify"
        rows.append([peer, f"{seconds:.2f} s", *("" for _ in sizes[1:]), gap])
    return table(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--families", nargs="+", choices=families.FAMILIES, default=None)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[])
    parser.add_argument("--folder", type=Path, default=Path("bench-speed"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small graphs, one round: sanity")
    parser.add_argument("--one", nargs=2, metavar=("JOB", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one[0], Path(arguments.one[1]))))
        return
    if arguments.quick:
        arguments.nodes, arguments.rounds = [1_000, 10_000], 1
    for family in arguments.families or families.FAMILIES:
        print(run(arguments.folder, family, arguments.nodes, arguments.peers, arguments.rounds))


if __name__ == "__main__":
    main()
