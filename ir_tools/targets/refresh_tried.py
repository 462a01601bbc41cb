"""What an installed runtime does that the profile of its target does not say, by onnx's tests."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import history, in_force
from vlmpass.ir_tools.system.runtime import Runtime
from vlmpass.ir_tools.targets.judge import Context, why_not
from vlmpass.ir_tools.targets.node_trials import Case, Trials, cases
from vlmpass.ir_tools.targets.support import Support, Verdict
from vlmpass.ir_tools.targets.toml_profile import Profile
from vlmpass.ir_tools.targets.type_trials import TypeCase, type_cases

__all__ = ["Tried", "differences", "heir_text", "tried", "types_apart"]


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
        case: The test.
    """

    name: str
    operator: str
    since: int
    verdict: Verdict
    outcome: str
    said: str
    case: Case | None = None

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

    They are run in the types that onnx has them in, and in every other that their operators admit.
    Tests with values of types that not every interface has are left out, and so are those whose
    node has no schema.

    Args:
        target: What its profile says.
        runtime: What runs them.
        sample: Of how many tests; None for all.
        seed: Which ones.
    """
    plain = [each for each in cases(target.opset) if each.is_plain]
    known: list[Case] = [*plain, *type_cases(plain)]
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
    yield Tried(case.name, operator, schema.version, verdict, outcome, said, case)


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
        if isinstance(each.case, TypeCase):
            continue
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


def types_apart(found: Sequence[Tried]) -> Mapping[tuple[str, int], list[str]]:
    """Return limits of operators, by since-version, in types in which they are said to run.

    Each names the types of all parameters that it was found with: what one does not run in may be
    right where another has the same.

    Args:
        found: What `tried` yields.
    """
    kinds: dict[tuple[str, int, str, str, tuple[tuple[str, str], ...]], list[str]]
    kinds = defaultdict(list)
    for each in found:
        case = each.case
        if isinstance(case, TypeCase) and each.verdict.runs and each.outcome != "right":
            worse = Support.WRONG if each.outcome == "wrong" else Support.UNSUPPORTED
            key = each.operator, each.since, worse.word, case.parameter, case.others
            kinds[key].append(case.kind)
    lines: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (operator, since, word, parameter, others), types in sorted(kinds.items()):
        of = [(parameter, " ".join(sorted(types))), *others]
        line = " and ".join(f"type({name}) = {kind}" for name, kind in of)
        lines[operator, since].append(f"{word} if {line}")
    return lines


def heir_text(
    target: Profile,
    wheel: str,
    runs: Mapping[str, list[int]],
    lost: Mapping[str, list[int]],
    types: Mapping[tuple[str, int], list[str]] = MappingProxyType({}),
) -> str:
    """Return a profile that says what of another has changed, and inherits the rest.

    Args:
        target: What it inherits from.
        wheel: The runtime that was asked, with its version.
        runs: Since-versions of operators that run now, of those of which nothing is said.
        lost: Those of operators that do not run any more.
        types: What `types_apart` gives.
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
    limits: dict[str, list[str]] = defaultdict(list)
    for name, versions in lost.items():
        limits[name] += [_at("unsupported", name, each) for each in versions]
    for (name, version), known in sorted(types.items()):
        if version not in lost.get(name, ()):
            limits[name] += [_at(each, name, version) for each in known]
    lines += ["", "[limits]"] if limits else []
    for name, known in limits.items():
        lines += [f'"{name}" = [', *(f'  "{each}: as {wheel} has it",' for each in known), "]"]
    return "\n".join(lines) + "\n"


def _at(line: str, name: str, version: int) -> str:
    """Return a line about a since-version: what it is added to may be about all of them."""
    domain, operator = _key(name)
    if domain:
        return line
    later = [each for each in history(operator) if each > version]
    word, _, conditions = line.partition(" if ")
    parts = [conditions, f"opset >= {version}", f"opset < {later[0]}" if later else ""]
    return f"{word} if {' and '.join(filter(None, parts))}"


def _key(name: str) -> tuple[str, str]:
    domain, _, operator = name.rpartition(".")
    return domain, operator
