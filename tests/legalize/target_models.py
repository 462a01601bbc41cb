"""Whole models for every target: converted, and run where its runtime is installed.

    python -m tests.legalize.target_models [--page docs/target-models.md] [--targets A,B]
        [MODEL | FOLDER ...]

Without arguments it goes through the exports of tests/fixtures. A folder with an ``inputs.py``
says itself what its models are fed, and what PyTorch computed. A result for `ort-cpu` or `openvino`
runs there on the same inputs as its source, which runs on ONNX Runtime with half precision computed
in float32; for other targets the result is judged by their facts alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import queue
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import onnx_ir as ir

from tests.opset.opset_models import EXPORTS
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner
from vlmpass.ir_tools.run.inputs import generate_inputs
from vlmpass.ir_tools.run.participants import computed_in
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.targets import names
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.infer import Infer

RUNS = ("ort-cpu", "openvino")
"""The targets whose runtime may be installed here."""

TARGETS = (*RUNS, "tensorrt-10.15", "tensorrt-11", "onnx-standard")
BOUNDS = {ir.DataType.BFLOAT16: 8e-2, ir.DataType.FLOAT16: 2e-2}
"""Largest error that counts as equal, in parts of an output's largest element: by the narrowest
type that a model computes in, else 1e-4."""

SECONDS = 120
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
    """

    model: str
    target: str
    kind: str
    error: float = 0.0
    reason: str = ""

    @property
    def cell(self) -> str:
        """What stands in the table."""
        return f"{self.error:.0e}" if self.kind == "equal" else self.kind


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


def _tensor(array: np.ndarray) -> object:
    """Return an array as OpenVINO takes it, whose Python has no bfloat16."""
    import openvino

    if array.dtype.name != "bfloat16":
        return array
    return openvino.Tensor(array.view(np.float16), array.shape, openvino.Type.bf16)


def _read(array: np.ndarray, brain: bool) -> np.ndarray:
    """Return what OpenVINO gives; its bfloat16 comes as float16 of the same bits."""
    return array.view(ml_dtypes.bfloat16).astype(np.float32) if brain else array


def _served(path: str, feeds: Sequence[Feeds], answers: multiprocessing.Queue[object]) -> None:
    """Run a model on OpenVINO, in a process of its own: it may take it down."""
    import openvino

    try:
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
        brain = [each.element_type == openvino.Type.bf16 for each in compiled.outputs]
        found = [compiled({k: _tensor(v) for k, v in each.items()}).to_tuple() for each in feeds]
        answers.put([[*map(_read, each, brain)] for each in found])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        answers.put(f"{type(error).__name__}: {error}".replace("\n", " ")[-300:])


def on_openvino(path: Path, feeds: Sequence[Feeds]) -> list[list[np.ndarray]]:
    """Return what OpenVINO computes.

    Raises:
        VlmpassError: It does not run the model.
    """
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=_served, args=(str(path), feeds, answers))
    process.start()
    try:
        found = answers.get(timeout=SECONDS)
    except queue.Empty:
        found = "it gives no answer"
    process.kill()
    process.join()
    if isinstance(found, str):
        raise VlmpassError(found)
    return found


def run(target: str, path: Path, feeds: Sequence[Feeds]) -> list[list[np.ndarray]]:
    """Return what a target's runtime computes."""
    taken = {value.name for value in load(path).graph.inputs}
    feeds = [{name: each[name] for name in each if name in taken} for each in feeds]
    if target == "openvino":
        return on_openvino(path, feeds)
    with Runner(path, optimization="all") as runner:
        return [list(runner.run(each).values()) for each in feeds]


def judge(source: Source, target: str) -> Verdict:
    """Convert one model for a target and say what became of it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            Pipeline(target=target).convert(source.path, path, verify=False)
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
        "Written by `python -m tests.legalize.target_models --page docs/target-models.md MODELS`:"
        " each model after `convert --target`. A number is the largest error of a result that runs"
        " on its runtime, in parts of an output's largest element; `clean` is a result that nothing"
        " here runs, every node of which the target is known to run.",
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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=[str(EXPORTS)])
    parser.add_argument("--page", type=Path)
    parser.add_argument("--targets", default=",".join(each for each in TARGETS if each in names()))
    asked = parser.parse_args()
    found: list[Verdict] = []
    for source in sources(asked.models):
        for target in asked.targets.split(","):
            found.append(judge(source, target))
            told = found[-1]
            print(
                told.model,
                told.target,
                told.kind,
                f"{told.error:.1e}",
                told.reason[:200],
                flush=True,
            )
    if asked.page is not None:
        asked.page.write_text(page(found), encoding="utf-8")
    return int(any(each.kind in ("wrong", "fails") for each in found))


if __name__ == "__main__":
    sys.exit(main())
