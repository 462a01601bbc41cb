"""What keeps a model from its targets: every finding with its nodes, a root cause once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import Scope, scopes, tensor_slots
from vlmpass.ir_tools.targets.judge import Context, signature
from vlmpass.ir_tools.targets.partition import Partition, partition
from vlmpass.ir_tools.targets.remedies import SET_DIMS, deciding, remedy
from vlmpass.ir_tools.targets.support import Support, Verdict
from vlmpass.ir_tools.targets.toml_profile import Profile

__all__ = ["NONE_KNOWN", "Assessment", "Files", "Finding", "assess", "limits_of"]

Files = Mapping[str, int]
"""The sizes in bytes of files, by name."""

NONE_KNOWN = "none known"
"""What a finding says for a remedy where there is none."""


@dataclass(frozen=True)
class Finding:
    """One cause that keeps a model from a target.

    Attributes:
        support: What the target does with the nodes.
        operator: Of the nodes, with its domain; empty where it is about the whole model.
        since: The since-version of the operator.
        reason: What is missing, in one line.
        fact: The line of the profile that decided.
        nodes: Every node of it, as it is named, with its scope; in graph order.
        remedy: What `convert` would take for it, or `NONE_KNOWN`.
        sample: The first of the nodes; None where it is about the whole model.
    """

    support: Support
    operator: str
    since: int | None
    reason: str
    fact: str
    nodes: tuple[tuple[str, str], ...]
    remedy: str
    sample: ir.Node | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Assessment:
    """What a target makes of a model.

    Attributes:
        target: The target's name.
        findings: Worst first, then in graph order.
        nodes: How many nodes there are, those of subgraphs and functions included.
        operators: How many nodes are run how well, by operator with its since-version.
        consequences: Nodes of which nothing is known for what a finding says of others before them.
        parts: What falls back, for a target that does; None for one that takes all or nothing.
    """

    target: str
    findings: tuple[Finding, ...]
    nodes: int
    operators: Mapping[str, Mapping[Support, int]]
    consequences: int
    parts: Partition | None

    @property
    def unknown(self) -> int:
        """How many nodes nothing is known of."""
        return sum(len(f.nodes) for f in self.findings if f.support is Support.UNKNOWN)

    @property
    def ok(self) -> bool:
        """Whether nothing is known that the target refuses or computes wrongly."""
        return all(each.support is Support.UNKNOWN for each in self.findings)


def assess(
    model: ir.Model, targets: Sequence[Profile], files: Files | None = None
) -> tuple[Assessment, ...]:
    """Return what targets make of a model; no weight is read.

    Args:
        model: One whose values have types and shapes; it is not changed.
        targets: What for.
        files: The sizes in bytes of the files that it lies in; None where it lies in none yet.
    """
    walked = [
        (scope, _named(scope), [(node, signature(node)) for node in scope.graph])
        for scope in scopes(model)
    ]
    return tuple(_assessed(model, target, walked, files or {}) for target in targets)


_Walked = list[tuple[Scope, str, list[tuple[ir.Node, tuple["str | None", ...]]]]]


def _assessed(model: ir.Model, target: Profile, walked: _Walked, files: Files) -> Assessment:
    base = Context.of(model, target)
    causes: dict[tuple[object, ...], list[tuple[ir.Node, Verdict, str, Context]]]
    causes = defaultdict(list)
    operators: dict[str, dict[Support, int]] = defaultdict(lambda: defaultdict(int))
    taken: dict[ir.Node, bool] = {}
    tainted: set[ir.Value] = set()
    contexts: dict[int, Context] = {}
    count = consequences = 0
    for scope, place, nodes in walked:
        context = contexts.setdefault(id(scope.owner), base.at(scope.opsets))
        for node, types in nodes:
            count += 1
            verdict = context.verdict(node, types)
            taken[node] = verdict.runs
            operators[_versioned(verdict)][verdict.support] += 1
            behind = any(value in tainted for value in node.inputs if value is not None)
            if verdict.runs:
                tainted.update(v for v in node.outputs if behind and v.type is None)
                continue
            follows = verdict.missing and behind
            tainted.update(node.outputs)
            if follows:
                consequences += 1
            else:
                cause = verdict.operator, verdict.since, verdict.reason, verdict.support
                causes[cause].append((node, verdict, place, context))
    parts = partition(model, taken) if target.fallback is not None else None
    about_all = [*limits_of(model, target, files), *_too_heavy(parts, target)]
    found = [*about_all, *map(_finding, causes.values())]
    found.sort(key=lambda each: -each.support)
    return Assessment(target.name, tuple(found), count, operators, consequences, parts)


def _finding(cause: Sequence[tuple[ir.Node, Verdict, str, Context]]) -> Finding:
    node, verdict, _, context = cause[0]
    nodes = tuple((name_node(each), place) for each, _, place, _ in cause)
    return Finding(
        verdict.support,
        verdict.operator,
        verdict.since,
        verdict.reason,
        verdict.fact,
        nodes,
        SET_DIMS if verdict.open else remedy(node, context) or deciding(node) or NONE_KNOWN,
        node,
    )


def _versioned(verdict: Verdict) -> str:
    return verdict.operator if verdict.since is None else f"{verdict.operator}-{verdict.since}"


def _named(scope: Scope) -> str:
    """Return how a scope is called: nothing for the main graph."""
    owner = scope.owner
    name = f"function {owner.domain}.{owner.name}" if isinstance(owner, ir.Function) else ""
    inner = f"subgraph {scope.graph.name}" if scope.depth else ""
    return ", ".join(filter(None, (name, inner)))


def limits_of(model: ir.Model, target: Profile, files: Files) -> Iterator[Finding]:
    """Yield what of a model as a whole is beyond what a target reads.

    Args:
        model: It is not changed.
        target: What for.
        files: The sizes in bytes of the files that it lies in.
    """
    helps = f"vlmpass convert --target {target.asked}"
    opsets = {scope.opsets.get("", scope.opsets.get("ai.onnx")) for scope in scopes(model)}
    for opset in sorted(each for each in opsets if each is not None):
        if target.nearest(opset) != opset:
            reads = f"it reads {target.lowest_opset} to {target.opset}"
            yield _about(f"the model imports opset {opset}, and {reads}", "reads.opset", helps)
    if model.ir_version > target.ir_version:
        reason = f"the ir_version is {model.ir_version}, and it reads {target.ir_version} at most"
        yield _about(reason, "reads.ir-version", f"{helps} lowers it if it can")
    if target.file_size is not None:
        yield from _too_large(model, target.file_size, files, helps)
    yield from _unbound(model, target, helps)
    if target.static:
        inputs = model.graph.inputs
        open_ = [v.name for v in inputs if v.shape is None or not v.shape.is_static()]
        if open_:
            names = ", ".join(map(str, open_))
            reason = f"every shape must be known, and the inputs {names} are open"
            yield _about(reason, "reads.static", SET_DIMS)


def _too_large(model: ir.Model, most: int, files: Files, helps: str) -> Iterator[Finding]:
    tensors = ((slot.where, slot.tensor) for slot in tensor_slots(model))
    sizes = {where: each.nbytes for where, each in tensors if each.dtype != ir.DataType.STRING}
    for what, nbytes in {**sizes, **files}.items():
        if nbytes > most:
            reason = f"{what} has {nbytes} bytes, and a file has {most} at most"
            yield _about(reason, "reads.file-size", f"{helps} splits it")


def _too_heavy(parts: Partition | None, target: Profile) -> Iterator[Finding]:
    """Yield that a part has more weights than a target hands over at once."""
    most = target.part_size
    if parts is not None and most is not None and parts.weights > most:
        reason = f"a part that it takes has {parts.weights} bytes of weights, and {most} go at once"
        yield _about(reason, "reads.part-size", target.part_helps or NONE_KNOWN)


def _unbound(model: ir.Model, target: Profile, helps: str) -> Iterator[Finding]:
    """Yield one finding for each type of inputs and outputs that a target does not bind."""
    found: dict[str, list[str]] = defaultdict(list)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if not target.binds(value):
            dtype = value.dtype if isinstance(value.type, ir.TensorType) else None
            kind = "such" if dtype is None else dtype.name.lower()
            found[kind].append(str(value.name))
    for kind, named in found.items():
        reason = f"it binds no {kind} values to inputs and outputs: {', '.join(named)}"
        yield _about(
            reason, "reads.interface", f"{helps} --widen-io, which gives them a wider type"
        )


def _about(reason: str, fact: str, helps: str) -> Finding:
    return Finding(Support.UNSUPPORTED, "", None, reason, fact, (), helps)
