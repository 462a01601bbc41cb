"""What stands for a node that a target does not run, built off the graph and judged again.

In the manner of a dialect conversion: of the remedies for a node, cheapest first, the first stands
whose nodes the target runs, or that have remedies themselves. Casts to a type that has a kernel
come first, then the operator itself in the meaning of another of its versions, then the rules that
say an operator in others, then the spellings of opset conversion for opsets that lack it, and last
the function body that ONNX gives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.ir_tools.operators.dtypes import wider
from vlmpass.ir_tools.operators.formal import Formal, Schema
from vlmpass.ir_tools.operators.schema import (
    function_body,
    history,
    in_force,
    since,
)
from vlmpass.ir_tools.operators.type_texts import tensor as tensor_text
from vlmpass.ir_tools.rewrite import Rule
from vlmpass.ir_tools.rewrite.alignment import MatchContext
from vlmpass.ir_tools.rewrite.propose import Proposal, propose
from vlmpass.ir_tools.targets import Context, Profile, Support, Verdict, why_not
from vlmpass.rewriter_rules.opset.conversion import Built, Conversion
from vlmpass.rewriter_rules.opset.element_types.absent import is_absent
from vlmpass.rewriter_rules.opset.element_types.bridge import bridge, misfits
from vlmpass.rewriter_rules.opset.element_types.widen import Widening
from vlmpass.rewriter_rules.opset.expand import inline
from vlmpass.rewriter_rules.opset.table import (
    UNCHANGED,
    CannotConvert,
    Step,
    entry,
    is_same,
    steps_between,
    why_unspelled,
)
from vlmpass.rewriter_rules.opset.view import SeenNode
from vlmpass.rewriter_rules.substitute import SUBSTITUTE
from vlmpass.rewriter_rules.unfuse import CONTRIB, STANDARD

__all__ = ["CAST_RULE", "NARROW_RULE", "Remedies", "is_decided"]

CAST_RULE = "cast-to-kernel"
"""What Casts are marked with that stand around a node which runs in another type."""
NARROW_RULE = "cast-to-narrower"
"""The same where that type does not hold every value."""

_DEEPEST = 8
"""How many remedies may stand within each other."""

_RULES = [each for each in (*CONTRIB, *STANDARD, *SUBSTITUTE) if len(each.plan.ops) == 1]


def is_decided(verdict: Verdict, target: Profile) -> bool:
    """Whether a profile keeps a node from running.

    What it does not know keeps none where a runtime shows that by loading it, where nothing is said
    of operators, and where the target runs it unless something without elements is fed.
    """
    if verdict.support is not Support.UNKNOWN:
        return True
    return target.runtime is None and target.says_operators and not verdict.open


def _rules_for(node: ir.Node) -> Iterator[Rule]:
    key = (node.domain, node.op_type)
    return (each for each in _RULES if any(key in root.ops for root in each.plan.root_ops))


class Remedies(Conversion):
    """Builds what stands for nodes of one graph or function at a target, at the opset it has.

    Args:
        names: Where fresh names come from.
        scope: The graph or function.
        own: Identities of the graphs that belong to the model.
        main: The model's graph.
        context: What judges the nodes of the scope.
        around: What rules know beside a node.
    """

    def __init__(
        self,
        names: Names,
        scope: Scope,
        own: Collection[int],
        main: ir.Graph,
        context: Context,
        around: MatchContext,
    ) -> None:
        opset = scope.opsets.get("", 1)
        super().__init__(names, scope, opset, opset, own, main, Widening())
        self._context = context
        self._matching = around
        self._sinking: dict[str, bool] = {}  # whether older operators may stand for one in turn
        self._depth = 0
        self._tapes: list[Tape] = []
        self._nearly = False

    def stand_in(self, node: SeenNode, *, nearly: bool = False) -> Built:
        """Build what stands for a node of the model that the target does not run.

        Args:
            node: The node.
            nearly: Whether what stands for it may compute it nearly.

        Raises:
            CannotConvert: Nothing is known that would; says what is in the way.
        """
        self._tapes.clear()
        self._nearly = nearly
        built = self._remedied(node, why_not(node, self._context))
        try:
            self._finish(node, built)
            for new in _with_inner(built.tape.nodes):
                verdict = why_not(new, self._context)
                if not verdict.runs and is_decided(verdict, self._context.target):
                    raise CannotConvert(f"what stands for it needs {new.op_type}: {verdict.reason}")
        except CannotConvert:
            self._take_back(0)
            raise
        return built

    def _tape(self, node: ir.Node, opset: int) -> Tape:
        tape = super()._tape(node, opset)
        self._tapes.append(tape)
        return tape

    def _take_back(self, kept: int) -> None:
        """Let go what came to nothing: it must not count among the users of the model's values."""
        for tape in self._tapes[kept:]:
            for node in tape.nodes:
                for index in range(len(node.inputs)):
                    node.replace_input_with(index, None)
        del self._tapes[kept:]

    def _lead(self, node: ir.Node, at: int) -> Built | None:
        if node.domain == "" and node.op_type in self._sinking:
            return self._as_itself(node, at)
        built = None if at == self.target else super()._lead(node, at)
        if built is not None:
            return built
        verdict = why_not(node, self._context)
        if verdict.runs or verdict.open:
            return None
        try:
            return self._remedied(node, verdict)
        except CannotConvert:
            if is_decided(verdict, self._context.target):
                raise
            return None

    def _as_itself(self, node: ir.Node, at: int) -> Built | None:
        """Lead the operator itself, as it is said at another opset, to the model's.

        Where the target does not run what that gives, it is said in older operators in turn.
        """
        before, outer = len(self._tapes), self._sinking
        self._sinking = {**outer, node.op_type: False}
        try:
            built = super()._lead(node, at)
            if built is None:
                self._hold(node)
        except CannotConvert:
            if not outer[node.op_type]:
                raise
            self._take_back(before)
        else:
            return built
        finally:
            self._sinking = outer
        return self._spelled_older(node, at)

    def _hold(self, node: ir.Node) -> None:
        """Hold a node to what the target runs."""
        verdict = why_not(node, self._context)
        if not verdict.runs and is_decided(verdict, self._context.target):
            raise CannotConvert(verdict.reason)

    def _remedied(self, node: ir.Node, verdict: Verdict) -> Built:
        if self._depth == _DEEPEST:
            raise CannotConvert(f"what stands for it needs {verdict.operator}: {verdict.reason}")
        reasons = []
        self._depth += 1
        try:
            for remedy in self._known(node, verdict):
                before = len(self._tapes)
                try:
                    return remedy()
                except CannotConvert as error:
                    reasons.append(error.reason)
                    self._take_back(before)
        finally:
            self._depth -= 1
        told = "; ".join(dict.fromkeys(reasons)) or "none known"
        raise CannotConvert(verdict.reason, f"no remedy stands: {told}")

    def _known(self, node: ir.Node, verdict: Verdict) -> Iterator[Callable[[], Built]]:
        """Yield what may be tried for a node, cheapest first; Casts alone where it may well run."""
        if (node.domain, node.op_type) == ("", "Constant"):
            return
        found = in_force(node.domain, node.op_type, self._version_of(node.domain))
        if node.domain == "" and found is not None and node.op_type != "Cast":
            yield from (partial(self._cast, node, each) for each in _narrowed(node, found))
        if not is_decided(verdict, self._context.target):
            return
        standard = node.domain == "" and since(node.op_type, self.target) is not None
        if standard:
            yield partial(self._in_another_version, node)
        yield from (partial(self._by_rule, node, rule) for rule in _rules_for(node))
        if standard:
            yield partial(self._spelled_older, node, self.target)
            if found is not None and found.bodies:
                yield partial(self._by_body, node, found)
        if self._nearly and node.domain == "" and found is not None and node.op_type != "Cast":
            narrowed = _in_another_type(node, found, ir.DataType.DOUBLE, [ir.DataType.FLOAT])
            yield from (partial(self._cast, node, each, NARROW_RULE) for each in narrowed)

    def _version_of(self, domain: str) -> int:
        return self._context.opsets.get(domain, 1)

    def _cast(self, node: ir.Node, narrowed: Schema, rule: str = CAST_RULE) -> Built:
        """Build Cast(Op(Cast(x))), if the target has a kernel for the type in between."""
        tape = self._tape(node, self.target)
        outputs = bridge(tape, node, narrowed, nearly=rule == NARROW_RULE)
        core = next(each for each in tape.nodes if each.op_type == node.op_type)
        verdict = why_not(core, self._context)
        if not verdict.runs and not verdict.open:
            raise CannotConvert(f"in another type, {verdict.reason}")
        return self._settle(node, tape, outputs, rule)

    def _by_rule(self, node: ir.Node, rule: Rule) -> Built:
        if rule.fast_math and not self._nearly:
            raise CannotConvert(f"{rule.name} is not exact")
        if not rule.offered(self.target, (), self._nearly):
            raise CannotConvert(f"{rule.name} needs {rule.needs[0]}")
        found = propose(rule, node, self._matching, self._names, node.name or node.op_type)
        if not isinstance(found, Proposal):
            raise CannotConvert(str(found[1]))
        self._tapes.append(found.tape)
        stands = dict(found.pairs)
        outputs = [stands.get(output) for output in node.outputs]
        return self._settle(node, found.tape, outputs, rule.name)

    def _in_another_version(self, node: ir.Node) -> Built:
        """Build the operator itself in the meaning of an older or newer version, at this opset."""
        reasons = []
        for steps in (_older(node, self.target), _newer(node, self.target)):
            before = len(self._tapes)
            try:
                built = self._stepped(node, steps)
                if any(new.op_type == node.op_type for new in built.tape.nodes):
                    return built
            except CannotConvert as error:
                reasons.append(error.reason)
            self._take_back(before)
        raise CannotConvert(reasons[0] if reasons else "another version has it in others alone")

    def _spelled_older(self, node: ir.Node, at: int) -> Built:
        """Build what opset conversion has for an older opset, in other operators at this one."""
        if since(node.op_type, at) is None or self._depth == _DEEPEST:
            raise CannotConvert("older operators lead back to it")
        return self._stepped(node, _older(node, at))

    def _stepped(self, node: ir.Node, steps: Iterable[Step]) -> Built:
        """Build what the first of some steps that changes a node makes of it, at this opset."""
        outer, self._sinking = self._sinking, {**self._sinking, node.op_type: True}
        self._depth += 1
        try:
            for step in steps:
                found = entry(step)
                if found is None and not is_same(step):
                    raise CannotConvert(why_unspelled(step) or "it has no spelling in others")
                if found is None:
                    continue
                if any(_is_newer(value, found.opset) for value in (*node.inputs, *node.outputs)):
                    raise CannotConvert("its spelling is older than a type it works on")
                tape = self._tape(node, found.opset)
                outputs = found.run(tape, node)
                if outputs is not UNCHANGED:
                    listed = [outputs] if isinstance(outputs, ir.Value) else outputs
                    return self._settle(node, tape, listed, found.name)
        finally:
            self._sinking = outer
            self._depth -= 1
        raise CannotConvert("it has no spelling in others")

    def _by_body(self, node: ir.Node, found: Schema) -> Built:
        opset = max((each for each in found.bodies if each <= self.target), default=0)
        body = function_body(node, found.version, opset) if opset else None
        if body is None:
            raise CannotConvert("ONNX gives no function body for this use")
        tape = self._tape(node, opset)
        built = self._settle(node, tape, inline(tape, body, node), "function-body")
        if any(map(self._mistyped, built.tape.nodes)):
            raise CannotConvert("the function body that ONNX gives mixes element types here")
        return built

    def _mistyped(self, node: ir.Node) -> bool:
        found = in_force(node.domain, node.op_type, self._version_of(node.domain))
        return found is not None and bool(misfits(node, found))


def _older(node: ir.Node, opset: int) -> list[Step]:
    """Return the steps from a node's version at an opset down to before its first."""
    version = since(node.op_type, opset)
    assert version is not None
    return steps_between(node.op_type, version, history(node.op_type)[0] - 1)


def _newer(node: ir.Node, opset: int) -> list[Step]:
    """Return the steps from a node's version at an opset up to its last."""
    version = since(node.op_type, opset)
    assert version is not None
    return steps_between(node.op_type, version, history(node.op_type)[-1])


def _is_newer(value: ir.Value | None, opset: int) -> bool:
    return value is not None and is_absent(value.dtype, opset)


def _with_inner(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Yield nodes, and those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _with_inner(graph)


def _fits_empty(node: ir.Node, kind: ir.DataType) -> bool:
    """Whether nothing tells the least or the greatest of a type, which an empty operand gives."""
    x = node.inputs[0] if node.inputs else None
    if node.op_type not in ("ReduceMax", "ReduceMin") or kind.is_floating_point():
        return True
    return x is not None and x.shape is not None and all(map(_is_positive, x.shape))


def _is_positive(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _narrowed(node: ir.Node, found: Schema) -> Iterator[Schema]:
    """Yield an operator's schema with another type, which holds it, in the place of a node's."""
    for kind in _kinds(node, found):
        if _fits_empty(node, kind):
            yield from _in_another_type(node, found, kind, wider(kind))


def _in_another_type(
    node: ir.Node, found: Schema, kind: ir.DataType, others: Iterable[ir.DataType]
) -> Iterator[Schema]:
    """Yield an operator's schema with each of some types that it admits in the place of one."""
    parameters = _kinds(node, found).get(kind, set())
    for other in others if parameters else ():
        if all(tensor_text(other) in found.allowed[each] for each in parameters):
            yield _with(found, parameters, frozenset({tensor_text(other)}))


def _kinds(node: ir.Node, found: Schema) -> dict[ir.DataType, set[str]]:
    """Return the type parameters that a node binds to each type."""
    places = [(value, found.input(index)) for index, value in enumerate(node.inputs)]
    places += [(value, found.output(index)) for index, value in enumerate(node.outputs)]
    bound: dict[ir.DataType, set[str]] = {}
    for value, formal in places:
        if value is not None and value.dtype is not None:
            bound.setdefault(value.dtype, set()).add(formal.parameter)
    return bound


def _with(found: Schema, parameters: Collection[str], types: frozenset[str]) -> Schema:
    def changed(formals: Sequence[Formal]) -> tuple[Formal, ...]:
        meant = (replace(each, types=types) for each in formals)
        pairs = zip(formals, meant, strict=True)
        return tuple(new if old.parameter in parameters else old for old, new in pairs)

    return replace(found, inputs=changed(found.inputs), outputs=changed(found.outputs))
