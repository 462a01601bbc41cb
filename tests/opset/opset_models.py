"""Whole models at every opset: converted, checked, run, compared with what their sources compute.

    python -m tests.opset.opset_models [--page docs/opset-models.md] [--jobs N] [MODEL | FOLDER ...]

Without arguments it goes through the exports of tests/fixtures. ONNX Runtime runs both sides on the
same inputs, at two sizes of every dynamic dimension. What it has no kernel for (bfloat16) is
computed in float32 on both sides, which hides no difference between the two graphs; so is float16
where its kernels round the two spellings more than the bound apart.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, Refused, VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.operators.schema import default_opset
from vlmpass.ir_tools.run import verify
from vlmpass.ir_tools.run.participants import computed_in
from vlmpass.ir_tools.run.widen import widen
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.infer import Infer
from vlmpass.passes.substitute import Substitute
from vlmpass.rewriter_rules.substitute.aten import kernel_of

TARGETS = (11, 13, 14, 17, 18, 20, 21, 23)
EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
BOUNDS = {ir.DataType.FLOAT16: 2e-3, ir.DataType.BFLOAT16: 2e-3, ir.DataType.FLOAT: 1e-5}
"""Largest relative error that counts as equal, by the narrowest type that a model computes in."""


@dataclass(frozen=True)
class Verdict:
    """What became of one model at one opset: equal, refused, invalid, differs or not run.

    Attributes:
        before: Number of its nodes.
        after: Number of its nodes at the target; 0 if it was not converted.
        error: Largest relative error of an output.
        how: How both sides were run.
        reason: Why it was refused, or what differs.
        fault: What is wrong with the model, which repair-types or substitute made right before.
    """

    model: str
    source: int
    target: int
    kind: str
    before: int
    after: int = 0
    error: float = 0.0
    how: str = ""
    reason: str = ""
    fault: str = ""


def count(model: ir.Model) -> int:
    """Return the number of nodes, those of subgraphs and functions included, Constants not."""
    return sum(node.op_type != "Constant" for node in all_nodes(model))


def bound(model: ir.Model) -> float:
    """Return the relative error that counts as equal for a model."""
    kinds = computed_in(model)
    return next((limit for kind, limit in BOUNDS.items() if kind in kinds), 1e-5)


def _source(path: Path) -> tuple[ir.Model, str]:
    """Return a model, made well typed and runnable if it is not, and what was wrong with it."""
    model = load(path)
    if any(kernel_of(node) is not None for node in all_nodes(model)):
        Infer().run(model)
        Substitute().run(model)
        return model, "it holds aten operators, which no runtime has"
    try:
        check(model)
    except CheckError as error:
        RepairTypes().run(model)
        return model, error.problem
    return model, ""


def _widened(model: ir.Model) -> ir.Model:
    """Return a copy that computes in float32, where only the graphs differ and not kernels."""
    twin = clone(model)
    widen(twin, frozenset({ir.DataType.FLOAT16}))
    return twin


def judge(path: Path, target: int, name: str = "") -> Verdict:
    """Convert one model and say what became of it."""
    original, fault = _source(path)
    model = clone(original)
    source, before = default_opset(model.opset_imports) or 0, count(model)

    def verdict(kind: str, **more: object) -> Verdict:
        known = {"model": name or path.name, "source": source, "target": target, "kind": kind}
        return Verdict(before=before, fault=fault, **known, **more)  # type: ignore[arg-type]

    try:
        ConvertOpset(to=target).run(model)
    except Refused as refused:
        return verdict("refused", reason=refused.refusals[0].reason)
    after = count(model)
    try:
        check(model)
    except CheckError as error:
        return verdict("invalid", after=after, reason=error.problem)
    try:
        found = verify(original, model, tolerance=bound(original))
    except VerifyError as error:
        return verdict("not run", after=after, reason=error.problem)
    rounding = False
    if not found.ok and ir.DataType.FLOAT16 in computed_in(original):
        rounding = True
        found = verify(_widened(original), _widened(model), tolerance=1e-5)
    how = found.expected_ran
    if found.actual_ran != how:
        how += f", then {found.actual_ran}"
    reasons = [*found.findings, *(f"{o.name}: {o.reason}" for o in found.outputs if not o.ok)]
    kind = "equal" if found.ok else "differs"
    if rounding:
        how += ", float16 computed in float32"
    return verdict(kind, after=after, error=found.max_rel, how=how, reason="; ".join(reasons))


def models(given: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield the models that are given, folders being searched, each with a name."""
    for each in map(Path, given):
        if each.is_dir():
            for path in sorted(each.rglob("*.onnx")):
                yield path, path.relative_to(each).as_posix().removesuffix(".onnx")
        else:
            yield each, each.stem


def run(given: Sequence[str], jobs: int, targets: Sequence[int] = TARGETS) -> list[Verdict]:
    """Judge every model at every opset but its own."""
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        parts = [
            pool.submit(judge, path, target, name)
            for path, name in models(given)
            for target in targets
            if target != default_opset(load(path).opset_imports)
        ]
        return [part.result() for part in parts]


def _cell(found: Verdict | None) -> str:
    if found is None:
        return "="
    growth = f"{(found.after - found.before) / max(found.before, 1):+.0%}"
    return growth if found.kind == "equal" else found.kind


def page(verdicts: Sequence[Verdict]) -> str:
    """Return the figures as a page of the documentation."""
    rows: dict[str, list[Verdict]] = {}
    for each in verdicts:
        rows.setdefault(each.model, []).append(each)
    lines = [
        "# Whole models at every opset",
        "",
        "Written by `python -m tests.opset.opset_models --page docs/opset-models.md`: the exports"
        " of `tests/fixtures`, each converted by convert-opset alone. A cell says how much the"
        " number of nodes grew (Constants not counted) where the result passes the type check and"
        " its outputs equal the source's, within a relative error of 1e-5, or 2e-3 where a half"
        " precision is computed in; `=` is the source's own opset.",
        "",
        "| model | nodes | " + " | ".join(map(str, TARGETS)) + " | largest error | run by |",
        "|---" * (len(TARGETS) + 4) + "|",
    ]
    for name, found in rows.items():
        by_target = {each.target: each for each in found}
        cells = [_cell(by_target.get(target)) for target in TARGETS]
        converted = [each.error for each in found if each.kind == "equal"]
        error = f"{max(converted):.1e}" if converted else "-"
        how = "; ".join(dict.fromkeys(each.how for each in found if each.how)) or "-"
        label = f"{name} *" if found[0].fault else name
        lines.append(f"| {label} | {found[0].before} | {' | '.join(cells)} | {error} | {how} |")
    faults = dict.fromkeys(each.fault for each in verdicts if each.fault)
    if faults:
        said = "; ".join(faults)
        lines += ["", f"\\* repair-types or substitute ran first; as exported: {said}."]
    reasons = dict.fromkeys((v.kind, v.reason) for v in verdicts if v.kind != "equal")
    if reasons:
        lines += ["", *(f"- {kind}: {reason}" for kind, reason in reasons)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the figures; 1 if anything is invalid or differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=[str(EXPORTS)])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--page", default="", help="write the figures as Markdown")
    arguments = parser.parse_args()
    verdicts = run(arguments.models, arguments.jobs)
    text = page(verdicts)
    print(text)
    for kind in dict.fromkeys(each.kind for each in verdicts):
        print(kind, sum(each.kind == kind for each in verdicts))
    if arguments.page:
        Path(arguments.page).write_text(text, encoding="utf-8")
    return 1 if any(each.kind in ("invalid", "differs") for each in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
