"""What targets make of a model: what their profiles say, and what the runtime here does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from vlmpass.intent import Intent
from vlmpass.ir_tools.errors import Refused, VlmpassError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.targets import Profile, Support
from vlmpass.ir_tools.targets.findings import NONE_KNOWN, Assessment, Files, assess
from vlmpass.ir_tools.targets.installed import newer
from vlmpass.loadable import why_not
from vlmpass.notes import warnings_kept
from vlmpass.passes import PassManager, parse
from vlmpass.passes.legalize.narrowing import narrowed_copy
from vlmpass.passes.legalize.planning import LegalPlanner
from vlmpass.passes.legalize.preparing import is_to_prepare, prepare
from vlmpass.presets import pipeline_text
from vlmpass.rewriter_rules.substitute.aten_operators import is_left_behind

__all__ = ["Suits", "suits"]


@dataclass(frozen=True)
class Suits:
    """What one target makes of a model.

    Attributes:
        assessment: What its profile says; what a session that loads refutes is left out.
        reason: Why it is none for the target, in one line; None if it is one.
        remedy: What helps about that; None where there is nothing to help.
        loaded: Whether the runtime of the target loaded it here.
        newer: That a newer runtime is installed than its profile is of; empty where none is.
    """

    assessment: Assessment
    reason: str | None
    remedy: str | None
    loaded: bool
    newer: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing keeps the model from the target, as far as is known."""
        return self.reason is None

    @property
    def data(self) -> dict[str, object]:
        """What is told as JSON."""
        found = self.assessment
        parts = found.parts
        return {
            "name": found.target,
            "ok": self.ok,
            "finding": self.reason,
            "remedy": self.remedy,
            "loaded": self.loaded,
            "newer": self.newer,
            "nodes": found.nodes,
            "unknown": found.unknown,
            "consequences": found.consequences,
            "findings": [
                {
                    "support": each.support.word,
                    "operator": each.operator,
                    "since": each.since,
                    "reason": each.reason,
                    "fact": each.fact,
                    "remedy": each.remedy,
                    "nodes": [{"name": name, "scope": scope} for name, scope in each.nodes],
                }
                for each in found.findings
            ],
            "operators": {
                name: {support.word: number for support, number in sorted(kinds.items())}
                for name, kinds in sorted(found.operators.items())
            },
            "partition": None
            if parts is None
            else {
                "taken": parts.taken,
                "fallen": parts.fallen,
                "fallen_nodes": parts.fallen_nodes,
                "fallen_share": parts.share,
                "most_weights": parts.weights,
            },
        }


def suits(
    model: ir.Model, targets: Sequence[Profile], allowance: Allowance, files: Files
) -> tuple[Suits, ...]:
    """Return what targets make of a valid model.

    Args:
        model: Types and shapes of its values are filled in where they are missing.
        targets: What for.
        allowance: What loading may take.
        files: The sizes in bytes of the files that it lies in.

    Raises:
        VerifyError: The runtime of a target is not installed.
    """
    loads = [why_not(model, target, allowance) for target in targets]
    PassManager(parse("infer"), ()).run(model, in_place=True)
    found = map(partial(_with_plan, model), targets, assess(model, targets, files))
    told = map(_suits, targets, found, loads)
    return tuple(replace(each, newer=newer(of)) for each, of in zip(told, targets, strict=True))


def _suits(target: Profile, found: Assessment, load: tuple[str, str] | None) -> Suits:
    loaded = load is None and target.runtime is not None
    if loaded:
        # Where a profile was asked of a runtime, that may have been another version than this one;
        # what a person wrote counts. A session is silent on values, and decides what is unknown.
        refuted = {Support.UNKNOWN}
        if target.probed is not None:
            refuted.add(Support.UNSUPPORTED)
        kept = tuple(each for each in found.findings if each.support not in refuted)
        found = replace(found, findings=kept)
    if load is not None:
        return Suits(found, *load, loaded)
    if found.ok:
        return Suits(found, None, None, loaded)
    first = found.findings[0]
    where = f"{first.nodes[0][0]}: " if first.nodes else ""
    remedy = _command(target, first.remedy)
    return Suits(found, f"{where}{first.reason}", remedy, loaded)


def _with_plan(model: ir.Model, target: Profile, found: Assessment) -> Assessment:
    """Say of what is still without a remedy whether a conversion for the target has one."""
    open_ = [each for each in found.findings if each.remedy == NONE_KNOWN and each.sample]
    if not open_:
        return found
    planner = LegalPlanner(model, target)
    left = _left(planner)
    nearly = _left(replace(planner, approximate=True)) if left else left
    convert = f"vlmpass convert --target {target.asked}"
    helped = {id(each.node) for each in planner.illegal if planner.refusal(each).node not in left}
    helped |= {id(each.sample) for each in open_ if each.sample and is_left_behind(each.sample)}
    helped_nearly = {
        id(each.node) for each in planner.illegal if planner.refusal(each).node not in nearly
    }
    samples = {id(each.sample) for each in open_}
    if samples - helped and _converts(model, target):
        helped |= samples
    remedies = dict.fromkeys(helped_nearly, f"{convert} --allow approximate")
    remedies |= dict.fromkeys(helped, convert)
    told = tuple(
        replace(each, remedy=remedies.get(id(each.sample), each.remedy)) if each in open_ else each
        for each in found.findings
    )
    return replace(found, findings=told)


def _converts(model: ir.Model, target: Profile) -> bool:
    """Whether all passes that a conversion for a target runs leave nothing that it does not run.

    They do more than to say a node otherwise: they fold, unpack weights and change the opset.
    """
    trial = clone(model)
    try:
        text = pipeline_text(Intent(target=target.asked), trial)
        with warnings_kept([]):
            PassManager(parse(text), ()).run(trial, in_place=True)
    except VlmpassError:
        return False
    return not LegalPlanner(trial, target).left


def _left(planner: LegalPlanner) -> set[str]:
    """Return how the nodes are called that a conversion for a target does not know how to say."""
    if is_to_prepare(planner):
        copy = clone(planner.model)
        if prepare(copy, planner):
            planner = replace(planner, model=copy)
    try:
        planner.plan()
    except Refused as error:
        narrowed = narrowed_copy(planner)
        if narrowed is not None:
            return _left(replace(planner, model=narrowed))
        return {each.node for each in error.refusals}
    return set()


def _command(target: Profile, remedy: str) -> str:
    """Return a remedy as a command, where it is options of one."""
    if not remedy.startswith("--"):
        return remedy
    # A pipeline of one's own takes the place of what a target asks for.
    asked = "" if remedy.startswith("--passes") else f"--target {target.asked} "
    return f"vlmpass convert {asked}{remedy}"
