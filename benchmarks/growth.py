"""CPU seconds and memory against nodes: every pass, and what lies around the passes.

    python benchmarks/growth.py --nodes 5000 20000 80000
    python benchmarks/growth.py --quick

For each family of graphs every size gets a process of its own, which loads, converts, saves, checks
and compares the model. CPU seconds count, not wall, those of the processes in which onnx and the
runtime work among them. A ratio above that of the nodes is what is not linear; `--bound` makes it
an error, with a tenth of a second forgiven to the smaller size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import families
from measure import table

if TYPE_CHECKING:
    from vlmpass.ir_tools.save.staged import Staged

JOBS: dict[str, dict[str, Any] | str] = {
    "simplify and fuse": {"simplify": True, "fuse": "standard"},
    "simplify": {"simplify": True},
    "opset": {"opset": 21},
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "other passes": "inline-functions,fix-names,topological-sort,infer,unroll-loops,pack-products,"
    "unfuse{to=standard},substitute,tie,legalize{target=ort-cpu},quantize-weights{bits=8}",
    "onnx_ir": "",
}
"""What is asked for, as `Pipeline` takes it, or passes; `onnx_ir` loads and saves without us."""
_QUICK = [job for job in JOBS if job not in ("simplify", "onnx_ir")]
"""In sanity checks: what the others have in them is left out."""
FORGIVEN = 0.1
"""CPU seconds, about what a collection of garbage takes that hits one run and not the other."""
FORGIVEN_MB = 20.0
"""What the imports had taken at their height is there for a small model to use."""


class Clock:
    """Adds up CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = spent()
        yield
        self.add(stage, spent() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds for a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def spent() -> float:
    """Return the CPU seconds of this process and of those that it started, which end here."""
    from vlmpass.ir_tools.worker import bounded

    bounded._CHILD.stop()  # only what has ended is counted
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _alone(path: Path, clock: Clock) -> None:
    """Load and save a model by onnx_ir alone."""
    import onnx_ir

    with clock("(load)"):
        model = onnx_ir.load(path)
    with clock("(save)"):
        path.with_name("alone").mkdir(exist_ok=True)
        onnx_ir.save(model, path.with_name("alone") / "out.onnx")


def _stages(path: Path, job: str, clock: Clock, *, compare: bool) -> None:
    """Take a model all the way, once."""
    if job == "onnx_ir":
        _alone(path, clock)
        return
    from vlmpass.intent import Intent
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.run import verify
    from vlmpass.ir_tools.save import save
    from vlmpass.passes import PassManager, parse
    from vlmpass.passes.instruments.instrument import Instrument, Step
    from vlmpass.presets import pipeline_text

    class Timed(Instrument):
        def before(self, step: Step, model: object) -> None:
            self._start = spent()

        def after(self, step: Step, model: object, changed: bool) -> None:
            clock.add(step.text.partition("{")[0], spent() - self._start)

    with clock("(load)"):
        model = load(path)
    asked = JOBS[job]
    text = asked if isinstance(asked, str) else pipeline_text(Intent(**asked), model)
    PassManager(parse(text), [Timed()]).run(model, in_place=True)
    path.with_name("out").mkdir(exist_ok=True)
    start, checked = spent(), clock.seconds.get("(check)", 0.0)

    def judge(staged: Staged) -> None:
        with clock("(check)"):
            staged.check()

    save(model, path.with_name("out") / "out.onnx", before_commit=judge)
    clock.add("(save)", spent() - start - clock.seconds["(check)"] + checked)
    if compare:
        with clock("(verify)"):
            verify(load(path), model)


def one(family: str, path: Path, job: str, *, compare: bool = False) -> dict[str, float]:
    """Run everything in this process; seconds by stage, and ``MB`` of memory beyond the imports."""
    from vlmpass.ir_tools.system.memory import peak_rss

    tiny = path.with_name("tiny") / "m.onnx"
    families.make(family, tiny, 200)
    _stages(tiny, job, Clock(), compare=compare)  # imports and caches
    before = peak_rss()
    clock = Clock()
    _stages(path, job, clock, compare=compare)
    total = sum(clock.seconds.values())
    return {**clock.seconds, "total": total, "MB": (peak_rss() - before) / 1e6}


def _run(family: str, path: Path, job: str, *, compare: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", family, str(path), job]
    command += ["--compare"] if compare else []
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{job} of {path} failed: {result.stderr[-800:]}")
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def _rows(
    job: str, sizes: list[int], measured: list[dict[str, float]], worst: Callable[[float], None]
) -> Iterator[list[str]]:
    grown = sizes[-1] / sizes[0]
    for stage in measured[0]:
        figures = [each.get(stage, 0.0) for each in measured]
        ratio = figures[-1] / max(figures[0], 1e-3)
        forgiven = FORGIVEN_MB if stage == "MB" else FORGIVEN
        worst(figures[-1] / (figures[0] + forgiven) / grown)
        unit = "" if stage == "MB" else " s"
        yield [job, stage, *(f"{each:.2f}{unit}" for each in figures), f"{ratio:.1f}"]


def run(
    folder: Path, names: list[str], sizes: list[int], jobs: list[str], *, compare: bool
) -> tuple[str, float]:
    """Return the table, and the worst ratio of CPU seconds as a multiple of that of the nodes."""
    rows = [["family: job", "stage", *(f"{size} nodes" for size in sizes), "ratio"]]
    ratios = [0.0]
    for family in names:
        paths = [folder / f"{family}{size}" / "m.onnx" for size in sizes]
        for path, size in zip(paths, sizes, strict=True):
            if not path.exists():  # elsewhere: a process starts with the peak of its parent
                command = [sys.executable, __file__, "--make", family, str(path), str(size)]
                subprocess.run(command, check=True)
        for job in jobs:
            compared = compare and job == jobs[0]  # it is the same work after each
            measured = [_run(family, path, job, compare=compared) for path in paths]
            print(f"{family}: {job} done", file=sys.stderr)
            rows += _rows(f"{family}: {job}", sizes, measured, ratios.append)
    return table(rows), max(ratios)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--families", nargs="+", choices=families.FAMILIES, default=None)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--folder", type=Path, default=Path("bench-growth"))
    parser.add_argument("--bound", type=float, help="of the ratio, as a multiple of the nodes'")
    parser.add_argument("--compare", action="store_true", help="on ONNX Runtime, too")
    parser.add_argument("--quick", action="store_true", help="small graphs, a loose bound: sanity")
    parser.add_argument("--one", nargs=3, metavar=("FAMILY", "PATH", "JOB"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        family, path, size = arguments.make
        families.make(family, Path(path), int(size))
        return
    if arguments.one:
        family, path, job = arguments.one
        print(json.dumps(one(family, Path(path), job, compare=arguments.compare)))
        return
    if arguments.quick:
        arguments.nodes, arguments.bound, arguments.compare = [1_000, 4_000], 1.5, True
        arguments.jobs = _QUICK
    names = arguments.families or list(families.FAMILIES)
    text, worst = run(
        arguments.folder, names, arguments.nodes, arguments.jobs, compare=arguments.compare
    )
    print(text)
    print(f"worst growth: {worst:.2f} x that of the nodes")
    if arguments.bound is not None and worst > arguments.bound:
        raise SystemExit(f"more than {arguments.bound} x: something is not linear")


if __name__ == "__main__":
    main()
