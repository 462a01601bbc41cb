"""Whole models for every target: converted, and run where its runtime is installed.

    python -m tests.legalize.target_models [--page docs/target-models.md] [--targets A,B]
        [MODEL | FOLDER ...]

Without arguments it goes through the exports of tests/fixtures. A folder with an ``inputs.py``
says itself what its models are fed, and what PyTorch computed. With `--kept FILE` verdicts are
written there as they come, and those that are there already are not made again. A result for a
target of `RUNS` runs there on the same inputs as its source, which runs on ONNX Runtime with half
precision computed in float32; for other targets the result is judged by their facts alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir

from tests.opset.opset_models import EXPORTS
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.inputs import generate_inputs
from vlmpass.ir_tools.run.participants import computed_in
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.system.runtime import Runtime
from vlmpass.ir_tools.targets import names, profile
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.infer import Infer

RUNS: dict[str, Runtime] = {
    "ort-cpu": "onnxruntime",
    "openvino": "openvino",
    "ort-web-wasm": "ort-web-wasm",
    "iree": "iree",
}
"""The targets whose runtime may be installed here, and what runs their results."""

_ASKED = (*RUNS, "tensorrt-10.15", "onnx-standard", "coreml", "qnn")
TARGETS = tuple(each for each in _ASKED if each in names())
BOUNDS = {ir.DataType.BFLOAT16: 8e-2, ir.DataType.FLOAT16: 2e-2}
"""Largest error that counts as equal, in parts of an output's largest element: by the narrowest
type that a model computes in, else 1e-4."""

SECONDS = 300
"""How long a runtime may take for one model."""

Feeds = Mapping[str, np.ndarray]
NARROW = frozenset({ir.DataType.BFLOAT16, ir.DataType.FLOAT16})


@dataclass(frozen=True)
class Source:
    """A model, the inputs to try it on, and what PyTorch gives for them, where that is known."""

    name: str
    path: Path
    feeds: Sequence[Feeds] = field(repr=False)
    outputs: Sequence[Sequence[np.ndarray]] = field(repr=False)


@dataclass(frozen=True)
class Verdict:
    """What became of one model for one target.

    Attributes:
        kind: ``equal``, ``wrong``, ``clean`` where nothing here runs it, ``refused``, ``fails``.
        error: Largest error, in parts of an output's largest element.
        reason: Why not.
        widened: Whether inputs and outputs had to take a wider type, with ``--widen-io``.
    """

    model: str
    target: str
    kind: str
    error: float = 0.0
    reason: str = ""
    widened: bool = False

    @property
    def cell(self) -> str:
        """What stands in the table."""
        found = f"{self.error:.0e}" if self.kind == "equal" else self.kind
        return f"{found} w" if self.widened else found


def described(folder: Path) -> Iterator[Source]:
    """Yield the models of a folder that says how each is fed."""
    spec = importlib.util.spec_from_file_location("inputs", folder / "inputs.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for each in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        refs = [] if each.get("torch_mismatch") else each["refs"]
        loaded = [np.load(folder / ref, allow_pickle=False) for ref in refs]
        feeds = [
            made.make_inputs(each["inputs"], dims, seed) for seed, dims in enumerate(each["dims"])
        ]
        yield Source(
            each["name"], folder / each["path"], feeds, [[z[k] for k in z.files] for z in loaded]
        )


def sources(given: Sequence[str]) -> Iterator[Source]:
    """Yield the models that are given, folders being searched."""
    for each in map(Path, given):
        if (each / "inputs.py").exists():
            yield from described(each)
            continue
        for path in sorted(each.rglob("*.onnx")) if each.is_dir() else [each]:
            model = load(path)
            feeds = [generate_inputs(model, seed) for seed in (0, 1)]
            yield Source(path.stem, path, feeds, [])


def expected(source: Source) -> list[list[np.ndarray]]:
    """Return what a model computes with half precision in float32; else what PyTorch gave."""
    model = load(source.path)
    Infer().run(model)
    RepairTypes().run(model)
    widen(model, NARROW)
    kinds = {each.name: each.dtype.numpy() for each in model.graph.inputs if each.dtype is not None}
    fed = [
        {k: v.astype(kinds[k]) for k, v in feeds.items() if k in kinds} for feeds in source.feeds
    ]
    try:
        with Runner(model) as runner:
            return [list(runner.run(feeds).values()) for feeds in fed]
    except VlmpassError:
        if not source.outputs:
            raise
        return [list(each) for each in source.outputs]


def run(target: str, path: Path, feeds: Sequence[Feeds]) -> list[list[np.ndarray]]:
    """Return what a target's runtime computes."""
    kinds = {each.name: each.dtype.numpy() for each in load(path).graph.inputs if each.dtype}
    feeds = [{n: v.astype(kinds[n]) for n, v in each.items() if n in kinds} for each in feeds]
    allowance = Allowance(until=time.monotonic() + SECONDS)
    with Runner(path, backend=RUNS[target], optimization="all", allowance=allowance) as runner:
        return [list(map(_wide, runner.run(each).values())) for each in feeds]


def _wide(value: object) -> np.ndarray:
    array = np.array(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def judge(source: Source, target: str) -> Verdict:
    """Convert one model for a target, with a wider interface where it needs one, and judge it."""
    found = _judged(source, target)
    if found.kind != "refused" or profile(target).interface is None:
        return found
    wider = _judged(source, target, widen_io=True)
    return found if wider.kind == "refused" else replace(wider, widened=True)


def _judged(source: Source, target: str, **options: Any) -> Verdict:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            Pipeline(target=target, **options).convert(source.path, path, verify=False)
        except Refused as refused:
            reasons = [str(each) for each in refused.refusals]
            return Verdict(source.name, target, "refused", reason="; ".join(reasons))
        except VlmpassError as error:
            return Verdict(source.name, target, "refused", reason=str(error).split("\n")[0])
        if target not in RUNS:
            return Verdict(source.name, target, "clean")
        try:
            found = run(target, path, source.feeds)
        except VlmpassError as error:
            return Verdict(source.name, target, "fails", reason=str(error).split("\n")[0])
    error = _apart(expected(source), found)
    narrow = computed_in(load(source.path))
    limit = next((bound for kind, bound in BOUNDS.items() if kind in narrow), 1e-4)
    return Verdict(source.name, target, "equal" if error <= limit else "wrong", error)


def _apart(wanted: Sequence[Sequence[np.ndarray]], found: Sequence[Sequence[np.ndarray]]) -> float:
    worst = 0.0
    for one, other in zip(wanted, found, strict=True):
        for a, b in zip(one, other, strict=True):
            if a.shape != b.shape:
                return float("inf")
            wide = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if a.size:
                scale = max(float(np.abs(wide[0]).max()), 1e-6)
                worst = max(worst, float(np.abs(wide[0] - wide[1]).max()) / scale)
    return worst if np.isfinite(worst) else float("inf")


def page(found: Sequence[Verdict]) -> str:
    """Return the table and the reasons as a page."""
    targets = list(dict.fromkeys(each.target for each in found))
    cells = {(each.model, each.target): each for each in found}
    lines = [
        "# Whole models for every target",
        "",
        "Written by `python -m tests.legalize.target_models --page docs/target-models.md MODELS`, a"
        " target or two at a time (`--targets NAME --kept verdicts.json`) on onnxruntime 1.32.0,"
        " openvino 2026.4.1, onnxruntime-web 1.30.0 and iree-base-compiler 3.13.0:"
        " each model after `convert --target`. A number is the largest error of a result that runs"
        " on its runtime, in parts of an output's largest element; `clean` is a result that nothing"
        " here runs, every node of which the target is known to run; `w` marks results whose inputs"
        " and outputs take a wider type, with `--widen-io`: the target binds none of theirs."
        f" A runtime has {SECONDS} seconds for a model.",
        "",
        f"| model | {' | '.join(targets)} |",
        "|---|" + "---|" * len(targets),
    ]
    for model in dict.fromkeys(each.model for each in found):
        row = [cells[model, target].cell for target in targets]
        lines.append(f"| {model} | {' | '.join(row)} |")
    refused = [each for each in found if each.reason]
    lines += ["", "| model | target | what is left |", "|---|---|---|"] if refused else []
    lines += [f"| {e.model} | {e.target} | {e.reason[:300].replace('|', '/')} |" for e in refused]
    return "\n".join(lines) + "\n"


def _kept(path: Path | None) -> dict[tuple[str, str], Verdict]:
    """Return the verdicts of a file, by model and target."""
    if path is None or not path.exists():
        return {}
    found = [Verdict(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    return {(each.model, each.target): each for each in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=[str(EXPORTS)])
    parser.add_argument("--page", type=Path)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--kept", type=Path, help="verdicts, as JSON; what is there is kept")
    asked = parser.parse_args()
    known = _kept(asked.kept)
    for source in sources(asked.models):
        for target in asked.targets.split(","):
            if (source.name, target) in known:
                continue
            told = known[source.name, target] = judge(source, target)
            print(
                told.model,
                told.target,
                told.kind,
                f"{told.error:.1e}",
                told.reason[:200],
                flush=True,
            )
            if asked.kept is not None:
                asked.kept.write_text(json.dumps([asdict(e) for e in known.values()], indent=1))
    found = sorted(known.values(), key=lambda each: TARGETS.index(each.target))
    if asked.page is not None:
        asked.page.write_text(page(found), encoding="utf-8")
    return int(any(each.kind in ("wrong", "fails") for each in found))


if __name__ == "__main__":
    sys.exit(main())
