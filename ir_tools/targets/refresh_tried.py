"""What an installed runtime does that the profile of its target does not say, by onnx's tests."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import history, in_force
from vlmpass.ir_tools.system.runtime import Runtime
from vlmpass.ir_tools.targets.judge import Context, why_not
from vlmpass.ir_tools.targets.node_trials import Case, Trials, cases
from vlmpass.ir_tools.targets.support import Support, Verdict
from vlmpass.ir_tools.targets.toml_profile import Profile

__all__ = ["Tried", "differences", "heir_text", "tried"]


_LONGEST = 160
"""Characters of what a runtime says that are told."""


@dataclass(frozen=True)
class Tried:
    """One test: what a profile says of its node, and what came.

    Attributes:
        name: Of the test.
        operator: Of its node.
        since: The since-version of that.
        verdict: What the profile says.
        outcome: ``right``, ``wrong`` or ``refused``.
        said: By the runtime, or how far it is off.
    """

    name: str
    operator: str
    since: int
    verdict: Verdict
    outcome: str
    said: str

    @property
    def line(self) -> str:
        """The test, what the profile says, and what came."""
        said = " ".join(self.said.split())[:_LONGEST]
        told = f"{self.verdict.support.word}, as it {self.verdict.reason}"
        return f"{self.name}: said to be {told}; {self.outcome}{said and f': {said}'}"

    @property
    def agrees(self) -> bool:
        """Whether the profile is right about it; what it does not know agrees with nothing."""
        if self.verdict.support is Support.UNKNOWN:
            return False
        return self.verdict.runs == (self.outcome == "right")


def tried(target: Profile, runtime: Runtime, sample: int | None, seed: int) -> Iterator[Tried]:
    """Run onnx's tests of single nodes on a runtime, and yield what came beside what is said.

    Tests with values of types that not every interface has are left out, and so are those whose
    node has no schema.

    Args:
        target: What its profile says.
        runtime: What runs them.
        sample: Of how many tests; None for all.
        seed: Which ones.
    """
    known = [each for each in cases(target.opset) if each.is_plain]
    if sample is not None and sample < len(known):
        known = sorted(random.Random(seed).sample(known, sample), key=lambda each: each.name)
    trials = Trials(runtime)
    try:
        for case in known:
            yield from _one(case, target, trials)
    finally:
        trials.close()


def _one(case: Case, target: Profile, trials: Trials) -> Iterator[Tried]:
    proto = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(case.model))
    model = ir.serde.deserialize_model(proto)
    (node,) = model.graph
    schema = in_force(node.domain, node.op_type, model.opset_imports.get(node.domain, 1))
    outcome, said = trials.outcome(case)
    if schema is None or outcome == "unbound":
        return
    verdict = why_not(node, Context.of(model, target))
    operator = ".".join(filter(None, (node.domain, node.op_type)))
    yield Tried(case.name, operator, schema.version, verdict, outcome, said)


def differences(found: Sequence[Tried]) -> tuple[Mapping[str, list[int]], Mapping[str, list[int]]]:
    """Return the since-versions of operators that run against their profile, and that do not.

    An operator is told where every test of it that the profile is wrong about is wrong about the
    same thing, and none is right about the other.

    Args:
        found: What `tried` yields.
    """
    runs: dict[str, list[int]] = defaultdict(list)
    lost: dict[str, list[int]] = defaultdict(list)
    by_version: dict[tuple[str, int], list[Tried]] = defaultdict(list)
    for each in found:
        by_version[each.operator, each.since].append(each)
    for (operator, version), tests in sorted(by_version.items()):
        if all(each.agrees for each in tests):
            continue
        right = [each.outcome == "right" for each in tests]
        if all(right) and not any(each.verdict.runs for each in tests):
            runs[operator].append(version)
        elif not any(right) and all(each.verdict.runs for each in tests):
            lost[operator].append(version)
    return runs, lost


def heir_text(
    target: Profile, wheel: str, runs: Mapping[str, list[int]], lost: Mapping[str, list[int]]
) -> str:
    """Return a profile that says what of another has changed, and inherits the rest.

    Args:
        target: What it inherits from.
        wheel: The runtime that was asked, with its version.
        runs: Since-versions of operators that run now, of those of which nothing is said.
        lost: Those of operators that do not run any more.
    """
    lines = [
        f"# What onnx's tests of single nodes found on {wheel} beside {target.name}.",
        f'inherits = "{target.asked}"',
        f'about = "{target.about}"',
        f'source = "{target.source}"',
        f'probed = "{wheel}"',
    ]
    new = {name: at for name, at in runs.items() if _key(name) not in target.operators}
    lines += ["", "[operators]"] if new else []
    for name, versions in new.items():
        told = ", ".join(f'{version} = "native"' for version in versions)
        lines.append(f'"{name}" = {{ {told} }}')
    lines += ["", "[limits]"] if lost else []
    for name, versions in lost.items():
        limits = ", ".join(f'"{_at(name, each)}: {wheel} does not run it"' for each in versions)
        lines.append(f'"{name}" = [{limits}]')
    return "\n".join(lines) + "\n"


def _at(name: str, version: int) -> str:
    """Return the start of a line about a since-version: what it is added to may be about all."""
    domain, operator = _key(name)
    if domain:
        return "unsupported"
    later = [each for each in history(operator) if each > version]
    before = f" and opset < {later[0]}" if later else ""
    return f"unsupported if opset >= {version}{before}"


def _key(name: str) -> tuple[str, str]:
    domain, _, operator = name.rpartition(".")
    return domain, operator
