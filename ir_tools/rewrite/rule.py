"""A rule: a pattern, one function that builds the replacement, and what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.errors import RuleError
from vlmpass.ir_tools.graph.effects import Effect
from vlmpass.ir_tools.graph.read_attributes import GivenByCall
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.rewrite.captures import NODE, REST, VALUE, Kind, kind_of
from vlmpass.ir_tools.rewrite.decomposition import Plan, Use, plan_of
from vlmpass.ir_tools.rewrite.pattern import Pattern
from vlmpass.ir_tools.system.rule_names import rule_name

__all__ = ["Declined", "Replacement", "Rule", "RuleSet", "refuse", "rule"]


@dataclass(frozen=True)
class Declined:
    """Why a rule does not apply here; the text is put together only when somebody reads it."""

    text: str
    details: tuple[object, ...] = ()

    def __str__(self) -> str:
        return self.text.format(*(_shown(detail) for detail in self.details))


def _shown(detail: object) -> object:
    if isinstance(detail, ir.Node):
        return f"'{detail.name or detail.outputs[0].name}'"
    if isinstance(detail, ir.Value):
        return f"'{detail.name}'"
    return detail.name if isinstance(detail, ir.DataType) else detail


def refuse(text: str, *details: object) -> Declined:
    """Say that a rule does not apply and why.

    Args:
        text: The reason, with ``{}`` for each detail; it is formatted only for a reader.
        details: What it speaks of: values, nodes, numbers.
    """
    return Declined(text, details)


Replacement: TypeAlias = ir.Value | Sequence[ir.Value | None] | Declined
Function: TypeAlias = Callable[..., Replacement]


@dataclass(frozen=True, eq=False, repr=False)
class Rule:
    """What equals what.

    Attributes:
        name: The function's name with dashes.
        formula: The first line of its docstring: ``before -> after[, when ...]``.
        function: Builds the replacement on a tape, or refuses.
        plan: Its pattern.
        kinds: What each capture must be.
        opset: The lowest and highest opset of the default domain it is for; None is no bound.
        emits: Domains beyond the standard one whose operators it emits.
        or_emits: Domains whose operators it emits where they are welcome, whatever the opset.
        dtypes: Element types that captured values must be of.
        fast_math: Whether it changes values beyond rounding, so that it is offered on request only.
        effects: What it does to numbers that a comparison must allow for; nothing if it is exact.
        file: The source file of the function.
        line: Its line there.
        doc: The whole docstring, the formula included.
    """

    name: str
    formula: str
    function: Function
    plan: Plan
    kinds: Mapping[str, Kind]
    opset: tuple[int | None, int | None]
    emits: frozenset[str]
    or_emits: frozenset[str]
    dtypes: Mapping[str, frozenset[ir.DataType]]
    fast_math: bool
    effects: frozenset[Effect]
    file: str
    line: int
    doc: str

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<rule {self.name}: {self.formula}>"

    def __add__(self, other: Rule | RuleSet) -> RuleSet:
        return RuleSet((self,)) + other

    @property
    def needs(self) -> tuple[str, ...]:
        """What it requires, one text each: opset, operators, element types, fast-math."""
        low, high = self.opset
        texts = []
        if low is not None or high is not None:
            upper = f" to {high}" if high is not None else " or later"
            instead = "".join(f", or emits {domain}" for domain in sorted(self.or_emits))
            texts.append(f"opset {low if low is not None else 1}{upper}{instead}")
        texts += [f"emits {domain}" for domain in sorted(self.emits)]
        for name, dtypes in self.dtypes.items():
            texts.append(f"{name} is {' or '.join(sorted(dtype.name for dtype in dtypes))}")
        if self.fast_math:
            texts.append("fast-math")
        return tuple(texts)

    def offered(self, opset: int | None, emits: Collection[str], fast_math: bool) -> bool:
        """Return whether a model of this opset, a target and a request allow the rule.

        Args:
            opset: Version of the default domain; None if the model does not import it.
            emits: Domains beyond the standard one that are welcome.
            fast_math: Whether rules are welcome that change values beyond rounding.
        """
        low, high = self.opset
        within = (low is None or (opset or 0) >= low) and (high is None or (opset or high) <= high)
        if not within and not any(domain in emits for domain in self.or_emits):
            return False
        return self.emits <= set(emits) and (fast_math or not self.fast_math)


@dataclass(frozen=True)
class RuleSet:
    """Rules in order of preference; sets add up: ``NORMS + ACTIVATIONS``."""

    rules: tuple[Rule, ...] = ()

    def __add__(self, other: Rule | RuleSet) -> RuleSet:
        more = (other,) if isinstance(other, Rule) else other.rules
        return RuleSet(tuple(dict.fromkeys(self.rules + more)))

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)


def _use_problem(name: str, use: Use, kind: Kind, certain: bool) -> str | None:
    """Return what is wrong between a capture's places in the pattern and its annotation."""
    if use.node != (kind.says == NODE.says):
        return f"'{name}' captures a node, so annotate it as ir.Node, and nothing else so"
    if use.rest != (kind.says == REST.says):
        return f"'{name}*' captures all inputs that are left: annotate it as tuple[ir.Value, ...]"
    if use.attribute and kind.says == VALUE.says:
        return f"'{name}' captures an attribute: annotate it with its Python type"
    if use.value and kind.of_array is None and kind.says not in (VALUE.says, "a constant tensor"):
        return f"'{name}' captures a value, which is never {kind.says}"
    if not certain and not kind.optional and not use.rest:
        return f"'{name}' may be missing: annotate it with `| None`"
    return None


def _kinds(function: Function) -> Mapping[str, Kind] | str:
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError as error:
        return f"annotation cannot be read: {error}"
    if not parameters:
        return "its first parameter must be the tape"
    kinds: dict[str, Kind] = {}
    for parameter in parameters[1:]:
        bare = parameter.annotation is inspect.Parameter.empty
        kind = VALUE if bare else kind_of(parameter.annotation)
        if kind is None:
            return f"'{parameter.name}' has an annotation no capture can have"
        kinds[parameter.name] = kind
    return kinds


def _problem(function: Function, plan: Plan, kinds: Mapping[str, Kind]) -> str | None:
    captured = ", ".join(plan.captures) or "none"
    for name in kinds:
        if name not in plan.captures:
            return f"parameter '{name}' is captured nowhere; captures are {captured}"
    for name, use in plan.captures.items():
        if name not in kinds:
            return f"capture '{name}' is no parameter of the function"
        problem = _use_problem(name, use, kinds[name], name in plan.certain)
        if problem:
            return problem
    if " -> " not in (inspect.getdoc(function) or "").split("\n")[0]:
        return "the first line of its docstring must be its formula, `before -> after`"
    return None


@dataclass(frozen=True)
class _Needs:
    """What a rule requires, as `Rule` has it."""

    opset: tuple[int | None, int | None]
    emits: frozenset[str]
    or_emits: frozenset[str]
    dtypes: Mapping[str, frozenset[ir.DataType]]
    fast_math: bool
    effects: frozenset[Effect]


def _domains(given: str | Collection[str]) -> frozenset[str]:
    return frozenset([given] if isinstance(given, str) else given)


def _define(function: Function, pattern: tuple[Pattern, ...], needs: _Needs) -> Rule:
    """Make the rule if function and pattern agree; raise with file and line if not."""
    code = function.__code__
    name = rule_name(function.__name__)
    where = f"rule {name} ({code.co_filename}:{code.co_firstlineno})"
    kinds = _kinds(function)
    if isinstance(kinds, str):
        raise RuleError(f"{where}: {kinds}")
    plan = plan_of(pattern, kinds)
    problem = plan if isinstance(plan, str) else _problem(function, plan, kinds)
    if isinstance(plan, str) or problem:
        raise RuleError(f"{where}: {problem}")
    doc = inspect.getdoc(function) or ""
    return Rule(
        name,
        doc.split("\n")[0],
        function,
        plan,
        kinds,
        needs.opset,
        needs.emits,
        needs.or_emits,
        needs.dtypes,
        needs.fast_math,
        needs.effects,
        code.co_filename,
        code.co_firstlineno,
        doc,
    )


def rule(
    *pattern: Pattern,
    opset: tuple[int | None, int | None] = (None, None),
    emits: str | Collection[str] = (),
    or_emits: str | Collection[str] = (),
    dtypes: Mapping[str, Collection[ir.DataType]] | None = None,
    fast_math: bool = False,
    effects: Collection[Effect] = (),
) -> Callable[[Function], Rule]:
    """Make a function a rule.

    Its first parameter is the tape, the others are captures, and their annotations constrain what
    is captured: none or `ir.Value` any value, `float`, `int`, `bool` a constant number,
    ``tuple[int, ...]`` a constant list, `np.ndarray` a small constant, `ir.TensorProtocol` a
    constant of any size, unread, `ir.DataType` and `str` an attribute, `FloatAttr` a number to be
    an attribute, known or, in a function, left to its caller, `ir.Node` the node; with
    ``| None`` it may be missing. It returns the value that stands for the root's output, a
    sequence of them for several outputs (all of the first root's, then the second's …; None for
    one that nothing may use), or `refuse`.

    Args:
        pattern: The root, or several that share values.
        opset: Lowest and highest opset of the default domain at which the rule is offered.
        emits: Domain or domains beyond the standard one whose operators it emits.
        or_emits: Domain or domains whose operators its function emits where the tape's `emits`
            says they are welcome; the rule is then offered at any opset.
        dtypes: Element types that captured values must be of, by capture.
        fast_math: Whether values change beyond rounding; then it is offered on request only.
        effects: What it does to numbers that a comparison with the model before must allow for.

    Raises:
        RuleError: Parameters and captures do not agree; the message has file and line.
    """
    needs = _Needs(
        opset,
        _domains(emits),
        _domains(or_emits),
        {name: frozenset(kinds) for name, kinds in (dtypes or {}).items()},
        fast_math,
        frozenset(effects),
    )
    return lambda function: _define(function, pattern, needs)


def build(
    rule: Rule, tape: Tape, captured: Mapping[str, object]
) -> Sequence[ir.Value | None] | Declined:
    """Run a rule's function and return what stands for the outputs, or why it declined.

    Raises:
        RuleError: The function returned something else.
    """
    try:
        result = rule.function(tape, **captured)
    except GivenByCall as decided:
        return refuse("calls give {} of {}", decided.name, decided.node)
    if isinstance(result, Declined):
        return result
    if isinstance(result, ir.Value):
        return (result,)
    if isinstance(result, Sequence) and all(isinstance(v, ir.Value | None) for v in result):
        return result
    raise RuleError(
        f"rule {rule.name} ({rule.file}:{rule.line}) returned {result!r}",
        remedy="return a value, a sequence of values or refuse(...)",
    )
