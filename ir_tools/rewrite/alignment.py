"""How a node pattern lies on nodes of one kind: worked out once, for all nodes of that kind.

What the pattern expects of which input, in which orders of operands, depends on the operator, its
version and the producers of its inputs alone; a model has few different such surroundings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import NO_AXES, Axes
from vlmpass.ir_tools.operators import commutes
from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.rewrite.constant_values import Constants
from vlmpass.ir_tools.rewrite.decomposition import ABSENT_TOKEN, Token
from vlmpass.ir_tools.rewrite.pattern import Anything, Capture, Number, Op, Pattern
from vlmpass.ir_tools.rewrite.rule import Rule

__all__ = ["Given", "Layout", "MatchContext", "Signature", "tokens_in"]

Signature: TypeAlias = "tuple[str | Token, ...]"


def _commutes(signature: Signature) -> bool:
    domain, op_type, *_ = signature
    return isinstance(domain, str) and isinstance(op_type, str) and commutes(domain, op_type)


def tokens_in(signature: Signature) -> Sequence[Token]:
    """Return the part of a signature that is about the inputs."""
    return [token for token in signature[2:] if not isinstance(token, str)]


@dataclass(frozen=True)
class Given:
    """An attribute that a pattern expects.

    Attributes:
        name: The attribute's name.
        expected: What the pattern says: a capture's name, a number, numbers, a text.
        default: Its value where the node does not say.
        index: The input it is in this version of the operator, if it is one.
    """

    name: str
    expected: object
    default: object
    index: int | None


@dataclass(frozen=True)
class Layout:
    """A node pattern on nodes of one kind.

    Attributes:
        schema: Their schema, if onnx knows the operator.
        given: The attributes to look at.
        orders: Ways to lay patterns on inputs, as pairs of a pattern and the input's index.
        rest: The capture of all remaining inputs, if there is one.
        rest_at: The indices of these inputs.
        among: Operators of which one must produce one of them; any, if there are none.
        further: The index of an input that the pattern knows nothing of, if there is one.
    """

    schema: Schema | None
    given: tuple[Given, ...]
    orders: tuple[tuple[tuple[Pattern, int], ...], ...]
    rest: str | None
    rest_at: tuple[int, ...]
    among: tuple[str, ...]
    further: int | None

    def rest_fits(self, tokens: Sequence[Token]) -> bool:
        """Return whether the remaining inputs are what their capture wants."""
        return not self.among or any(tokens[at][0] in self.among for at in self.rest_at)


class MatchContext:
    """What matching needs to know beside the nodes: imports, constants, and all layouts so far.

    Args:
        opsets: Imported opset version by domain.
        constants: Reads constants.
        emits: Domains beyond the standard one whose operators are welcome.
        in_function: Whether the nodes stand in a function.
        left_out: Inputs of functions that some call leaves out.
        last_axes: What is known of values of functions whose rank is not.
        unwanted: Says why new nodes must not stand for others there; nothing if they may.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        constants: Constants,
        emits: Collection[str] = (),
        in_function: bool = False,
        left_out: Collection[ir.Value] = (),
        last_axes: Mapping[ir.Value, Axes] = NO_AXES,
        unwanted: Callable[[Sequence[ir.Node], Sequence[ir.Node]], str] = lambda *_: "",
    ) -> None:
        self.unwanted = unwanted
        self.left_out = left_out
        self.last_axes = last_axes
        self.opsets = opsets
        self.emits = emits
        self.in_function = in_function
        self.constants = constants
        self._layouts: dict[tuple[Op, Signature], Layout] = {}
        self._signatures: dict[ir.Node, Signature] = {}
        self._shared: dict[Signature, Signature] = {}

    def token(self, value: ir.Value | None) -> Token:
        """Return what is told of a value."""
        if value is None:
            return ABSENT_TOKEN
        producer, shape = value.producer(), value.shape
        op_type = "Constant" if producer is None else producer.op_type
        told = self.constants.constant_key(value) if op_type == "Constant" else op_type
        return (told, -1 if shape is None else shape.rank())

    def signature(self, node: ir.Node) -> Signature:
        """Return domain and operator of a node and the tokens of its inputs."""
        found = self._signatures.get(node)
        if found is None:
            found = self._sign(node)
            found = self._signatures[node] = self._shared.setdefault(found, found)
        return found

    def graph_changed(self) -> None:
        """Forget what was noted about nodes."""
        self._signatures.clear()

    def _sign(self, node: ir.Node) -> Signature:
        # Written out, as this runs for every node of a sweep.
        constant_key = self.constants.constant_key
        parts: list[str | Token] = [node.domain, node.op_type]
        for value in node.inputs:
            if value is None:
                parts.append(ABSENT_TOKEN)
                continue
            producer, shape = value.producer(), value.shape
            kind: str | float = "Constant" if producer is None else producer.op_type
            if kind == "Constant":
                kind = constant_key(value)
            parts.append((kind, -1 if shape is None else shape.rank()))
        return tuple(parts)

    def _schema(self, signature: Signature) -> Schema | None:
        """Return the schema in force for nodes with a signature, if onnx knows the operator."""
        domain, op_type = signature[:2]
        assert isinstance(domain, str)
        assert isinstance(op_type, str)
        version = self.opsets.get(domain)
        return None if version is None else in_force(domain, op_type, version)

    def layout(self, rule: Rule, op: Op, node: ir.Node) -> Layout:
        """Return how a node pattern of a rule lies on a node.

        Args:
            rule: The rule.
            op: One of its node patterns.
            node: A node of the pattern's operator.
        """
        return self.work_out(rule, op, self.signature(node))

    def work_out(self, rule: Rule, op: Op, signature: Signature) -> Layout:
        """Return how a node pattern lies on nodes with a signature.

        Args:
            rule: The rule.
            op: One of its node patterns.
            signature: What `signature` returns for these nodes.
        """
        key = (op, signature)
        found = self._layouts.get(key)
        if found is None:
            found = self._layouts[key] = self._work_out(rule, op, signature)
        return found

    def _work_out(self, rule: Rule, op: Op, signature: Signature) -> Layout:
        tokens, schema = tokens_in(signature), self._schema(signature)
        given, fixed, taken = _attributes(op, tokens, schema)
        free = [index for index in range(len(tokens)) if index not in taken]
        patterns, rest = op.inputs, None
        last = patterns[-1] if patterns else None
        if isinstance(last, Capture) and last.rest:
            patterns, rest = patterns[:-1], last
        beyond = free[len(patterns) :]
        unknown = (index for index in beyond if tokens[index] != ABSENT_TOKEN)
        places = [*free, *range(len(tokens), len(tokens) + len(patterns))][: len(patterns)]
        orders = [tuple(zip(patterns, places, strict=True))]
        pair = len(patterns) == 2 and len(tokens) == 2 and not taken
        if pair and _commutes(signature) and patterns[0] is not patterns[1]:
            orders.append(tuple(zip(patterns, reversed(places), strict=True)))
        return Layout(
            schema,
            given,
            _best(rule, [fixed + order for order in orders], tokens),
            None if rest is None else rest.name,
            () if rest is None else tuple(beyond),
            () if rest is None else rest.among,
            None if rest is not None or op.open else next(unknown, None),
        )


def _attributes(
    op: Op, tokens: Sequence[Token], schema: Schema | None
) -> tuple[tuple[Given, ...], tuple[tuple[Pattern, int], ...], set[int]]:
    """Return attributes to look at, attribute captures that are inputs, and all such inputs."""
    given: list[Given] = []
    fixed: list[tuple[Pattern, int]] = []
    taken: set[int] = set()
    for name, expected in op.attributes.items():
        index = None if schema is None else schema.input_named(name)
        default = None if schema is None else schema.default(name)
        if index is not None:
            taken.add(index)
            there = index < len(tokens) and tokens[index] != ABSENT_TOKEN
            if there and isinstance(expected, str):
                fixed.append((Capture(expected), index))
                continue
            index = index if there else None
        if not isinstance(expected, Anything):
            given.append(Given(name, expected, default, index))
    return tuple(given), tuple(fixed), taken


def _is_constant(rule: Rule, pattern: Pattern) -> bool:
    if isinstance(pattern, Capture):
        return rule.kinds[pattern.name].constant
    return isinstance(pattern, Number)


def _best(
    rule: Rule, orders: Sequence[tuple[tuple[Pattern, int], ...]], tokens: Sequence[Token]
) -> tuple[tuple[tuple[Pattern, int], ...], ...]:
    """Return the orders that may match, or the most promising if none does.

    Constants come last in each, so that a failed match says how far the structure fits.
    """
    padded = [*tokens, *[ABSENT_TOKEN] * len(orders[0])]

    def chance(part: Pattern, token: Token) -> float:
        if rule.plan.may_match(part, token, rule.kinds):
            return 1.0
        return 0.5 if isinstance(part, Number) and isinstance(token[0], float) else 0.0

    def chances(order: tuple[tuple[Pattern, int], ...]) -> float:
        return sum(chance(part, padded[index]) for part, index in order)

    scored = [(chances(order), order) for order in orders]
    best = max(score for score, _ in scored)
    chosen = [order for score, order in scored if score == best]
    if best < len(orders[0]):
        chosen = chosen[:1]
    return tuple(
        tuple(sorted(order, key=lambda pair: _is_constant(rule, pair[0]))) for order in chosen
    )
