"""What a rule would do at a node, worked out without touching the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from vlmpass.ir_tools.errors import RuleError
from vlmpass.ir_tools.graph.edit import may_be_given_out
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.graph.walk import needed_among
from vlmpass.ir_tools.operators.schema import may_lack
from vlmpass.ir_tools.rewrite.alignment import Layout, MatchContext
from vlmpass.ir_tools.rewrite.interior import leaving
from vlmpass.ir_tools.rewrite.match import Match
from vlmpass.ir_tools.rewrite.pattern import Op
from vlmpass.ir_tools.rewrite.rule import Declined, Rule, build

__all__ = ["Proposal", "propose"]

_NO_LAYOUTS: Final[Mapping[Op, Layout]] = {}


@dataclass(frozen=True)
class Proposal:
    """A rewrite that may be made.

    Attributes:
        match: What matched.
        gone: The nodes that go, operands before users.
        tape: The new nodes.
        pairs: Each old output with the value that stands for it from now on.
    """

    match: Match
    gone: Sequence[ir.Node]
    tape: Tape
    pairs: Sequence[tuple[ir.Value, ir.Value]]


def _unfit(old: ir.Value, new: ir.Value) -> Declined | None:
    """Return why a value cannot stand for another: its element type or shape differs."""
    if old is new:
        return Declined("it would replace {} by itself", (old,))
    if old.dtype is not None and new.dtype is not None and old.dtype != new.dtype:
        return Declined("the result would be {} instead of {}", (new.dtype, old.dtype))
    if old.shape is None or new.shape is None:
        return None
    differ = len(old.shape) != len(new.shape) or any(
        isinstance(one, int) and isinstance(two, int) and one != two
        for one, two in zip(old.shape, new.shape, strict=True)
    )
    return (
        Declined("the result's shape would be {} instead of {}", (new.shape, old.shape))
        if differ
        else None
    )


def _keeps_border(old: ir.Value, new: ir.Value) -> bool:
    """Return whether an Identity is what lets a value be a graph's output under its name."""
    node, producer = old.producer(), new.producer()
    if node is None or node.op_type != "Identity" or not old.is_graph_output():
        return False
    return producer is None or producer.graph is not node.graph or new.is_graph_output()


def _copies(tape: Tape, pairs: Sequence[tuple[ir.Value, ir.Value]]) -> list[ir.Node]:
    """Return the Identities that give out what cannot be a graph's output itself."""
    return [
        ir.Node("", "Identity", [new], outputs=[ir.Value(type=old.type, shape=old.shape)])
        for old, new in pairs
        if old.is_graph_output()
        and new.producer() not in tape.nodes
        and not may_be_given_out(new, old)
    ]


def _pairs(
    match: Match, new: Sequence[ir.Value | None]
) -> Sequence[tuple[ir.Value, ir.Value]] | Declined:
    """Pair the outputs of the roots with what stands for them."""
    rule, roots = match.rule, match.roots()
    old = [value for root in roots for value in root.outputs[: match.outputs_of(root)]]
    if len(old) != len(new):
        raise RuleError(
            f"rule {rule.name} ({rule.file}:{rule.line}) returned {len(new)} values for {len(old)}"
        )
    pairs = []
    for before, after in zip(old, new, strict=True):
        if after is not None:
            pairs.append((before, after))
        elif before.uses() or before.is_graph_output():
            return Declined("{} is used and has no replacement", (before,))
    return pairs


def _still_used(
    gone: Sequence[ir.Node], tape: Tape, pairs: Sequence[tuple[ir.Value, ir.Value]]
) -> Sequence[ir.Node]:
    """Return what goes when the replacement itself uses some of the matched values."""
    used = [value for node in tape.nodes for value in node.inputs]
    used += [new for _, new in pairs]
    kept = needed_among(used, gone)
    return [node for node in gone if node not in kept]


def _needed_but_left_out(left_out: Collection[ir.Value], tape: Tape) -> ir.Value | None:
    """Return an input of the function that a new node needs, and that some call leaves out."""
    for node in tape.nodes if left_out else ():
        for index, value in enumerate(node.inputs):
            if value in left_out and not may_lack(node, index, tape.opsets):
                return value
    return None


def _check_domains(rule: Rule, tape: Tape, gone: Sequence[ir.Node]) -> None:
    allowed = {"", *rule.emits, *rule.or_emits, *(node.domain for node in gone)}
    for node in tape.nodes:
        if node.domain not in allowed:
            raise RuleError(
                f"rule {rule.name} ({rule.file}:{rule.line}) builds {node.domain}::{node.op_type}",
                remedy=f'declare emits="{node.domain}"',
            )


def propose(
    rule: Rule,
    node: ir.Node,
    around: MatchContext,
    names: Names,
    hint: str,
    layouts: Mapping[Op, Layout] = _NO_LAYOUTS,
) -> Proposal | tuple[Match, Declined]:
    """Try a rule with its first root at a node.

    Args:
        rule: A rule on offer.
        node: The root; it has an output.
        around: Imports and constants where the node lies.
        names: Where fresh names come from.
        hint: What names of new nodes start with.
        layouts: How the root lies on this kind of node, where that is known.

    Returns:
        The proposal, which the caller must splice or discard, or the match as far as it got and
        why it ends there.

    Raises:
        RuleError: The rule's function broke its contract.
    """
    match = Match(rule, around, layouts)
    if not match.run(node):
        return match, match.failure[2]
    gone = leaving(match)
    if isinstance(gone, Declined):
        return match, gone
    tape = Tape(names, around.opsets, hint, around.emits, around.in_function, around.last_axes)
    new = build(rule, tape, match.captured)
    found = new if isinstance(new, Declined) else _checked(match, tape, gone, new, around)
    if isinstance(found, Proposal):
        return found
    tape.discard()
    return match, found


def _checked(
    match: Match,
    tape: Tape,
    gone: Sequence[ir.Node],
    new: Sequence[ir.Value | None],
    around: MatchContext,
) -> Proposal | Declined:
    """Return the proposal if what a rule built can stand for what it matched."""
    _check_domains(match.rule, tape, gone)
    pairs = _pairs(match, new)
    if isinstance(pairs, Declined):
        return pairs
    for old, value in pairs:
        unfit = _unfit(old, value)
        if unfit is not None:
            return unfit
        if _keeps_border(old, value):
            return Declined("it keeps the name of an output of the graph")
    needed = _needed_but_left_out(around.left_out, tape)
    if needed is not None:
        return Declined("its operand {} is left out by a call of the function", (needed,))
    leave = _still_used(gone, tape, pairs)
    if not set(match.roots()) <= set(leave):
        return Declined("the result is computed from what it replaces")
    copies = _copies(tape, pairs)
    unwanted = around.unwanted([*tape.nodes, *copies], leave)
    for copy in copies:
        copy.replace_input_with(0, None)
    if unwanted:
        return Declined("{}", (unwanted,))
    return Proposal(match, leave, tape, pairs)
