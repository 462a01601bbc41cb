"""The pass logits: a decoder gives those of the last token alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import INFER_FIRST, Refusal, Refused
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.traits import Kind, traits_of
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.needs import Need

__all__ = ["Logits"]

COMPUTED_BOUNDS = 10
"""The first opset whose Slice has its bounds as inputs."""
TOKENS = 1
"""The axis of tokens, of [batch, tokens, vocabulary]."""


@dataclass(frozen=True)
class Logits(Pass):
    """Give the logits of the last token alone, [batch, 1, vocabulary].

    What each token goes through by itself before them, such as the last norm and the head, is done
    for the last one only. A batch is to be padded on the left. Other outputs stay as they are.
    """

    name: ClassVar[str] = "logits"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "the logits are of one token, or of all as asked for"

    last: bool = True
    """Whether only the last token's are given; where not, nothing is done."""
    output: str = "logits"
    """The name of the output."""

    def mending(self) -> Pass:
        """Return what takes the last token of all logits, which knows nothing of the cut."""
        return _OfFinished(self.last, self.output)

    def run(self, model: ir.Model) -> bool:
        """Cut the last token out, as far up as each token is by itself."""
        found = [each for each in model.graph.outputs if each.name == self.output]
        if not self.last:
            return False
        if not found:
            names = ", ".join(each.name or "" for each in model.graph.outputs)
            reason = f"no output has that name, but {names}"
            raise Refused(str(self), [Refusal(self.output, reason, "name one with output=")])
        shape = found[0].shape
        if shape is None or len(shape) != 3 or found[0].producer() is None:
            said = "an input" if found[0].producer() is None else f"of shape {shape}"
            reason = f"it is {said}, not [batch, tokens, vocabulary]"
            raise Refused(str(self), [Refusal(self.output, reason, INFER_FIRST)])
        if shape[TOKENS] == 1 or not may_apply(self.name, self.output):
            return False
        _cut(model, found[0], self._chain(found[0]), self._last)
        return True

    def _chain(self, logits: ir.Value) -> list[tuple[ir.Node, int]]:
        return _each_by_itself(logits)

    def _last(self, tape: Tape, value: ir.Value) -> ir.Value:
        return tape.Gather(value, tape.const([-1]), axis=TOKENS)


@dataclass(frozen=True)
class _OfFinished(Logits):
    """Give the last token of logits that were computed for all, whatever comes before them.

    Another operator takes it, so that a fault of either shows.
    """

    def _chain(self, logits: ir.Value) -> list[tuple[ir.Node, int]]:
        return []

    def _last(self, tape: Tape, value: ir.Value) -> ir.Value:
        start, end, axis = [-1], [int(np.iinfo(np.int64).max)], [TOKENS]
        if tape.opsets.get("", 1) < COMPUTED_BOUNDS:
            return tape.Slice(value, starts=start, ends=end, axes=axis)
        return tape.Slice(value, tape.const(start), tape.const(end), tape.const(axis))


def _cut(
    model: ir.Model,
    logits: ir.Value,
    chain: list[tuple[ir.Node, int]],
    last_of: Callable[[Tape, ir.Value], ir.Value],
) -> None:
    """Let the nodes of a chain before logits work on the last token."""
    top, at = chain[-1] if chain else (None, 0)
    value = logits if top is None else top.inputs[at]
    assert value is not None
    names = Names.of(model)
    tape = Tape(names, model.graph.opset_imports, f"{value.name}/last")
    last = last_of(tape, value)
    last.shape = _of_one(value.shape)
    producer = value.producer()
    for constant in tape.constants:
        model.graph.register_initializer(constant)
    if top is None:
        _give_out(model, logits, last, tape, names)
        return
    if producer is None:
        model.graph.insert_before(model.graph[0], tape.nodes)
    else:
        model.graph.insert_after(producer, tape.nodes)
    top.replace_input_with(at, last)
    for node, _ in chain:
        node.outputs[0].shape = _of_one(node.outputs[0].shape)


def _give_out(model: ir.Model, logits: ir.Value, last: ir.Value, tape: Tape, names: Names) -> None:
    """Give the last token of logits out under their name."""
    producer, name = logits.producer(), logits.name
    assert producer is not None
    at = model.graph.outputs.index(logits)
    logits.name = names.value(f"{name}/all")
    last.name, last.type = name, logits.type
    model.graph.insert_after(producer, tape.nodes)
    model.graph.outputs[at] = last


def _of_one(shape: ir.Shape | None) -> ir.Shape | None:
    sizes = None if shape is None else [*shape]
    return None if sizes is None else ir.Shape([*sizes[:TOKENS], 1, *sizes[TOKENS + 1 :]])


def _each_by_itself(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return the nodes up from logits that work on each token alone, and which input has tokens.

    Only the first value may be an output, and no other node may use what is between them.
    """
    chain: list[tuple[ir.Node, int]] = []
    while len(value.uses()) == (1 if chain else 0):
        if chain and value.is_graph_output():
            break
        node = value.producer()
        at = None if node is None or len(node.outputs) > 1 else _tokens_of(node)
        if node is None or at is None:
            break
        chain.append((node, at))
        above = node.inputs[at]
        assert above is not None
        value = above
    return chain


def _tokens_of(node: ir.Node) -> int | None:
    """Return which input holds tokens, if a node works on each of them by itself."""
    traits = traits_of(node.domain, node.op_type)
    kind = None if traits is None else traits.kind
    if kind in (Kind.ELEMENTWISE, Kind.CAST):
        varying = [at for at, each in enumerate(node.inputs) if not _same_for_all(each)]
        return varying[0] if len(varying) == 1 and _has_tokens(node.inputs[varying[0]]) else None
    rest = [each for each in node.inputs[1:] if each is not None]
    if not node.inputs or not _has_tokens(node.inputs[0]):
        return None
    if kind is Kind.NORMALIZATION:
        last = node.op_type.endswith("LayerNormalization") or node.op_type == "RMSNormalization"
        last = last and node.attributes.get_int("axis", -1) in (-1, 2)
        return 0 if last and all(map(_same_for_all, rest)) else None
    matrix = (node.domain, node.op_type) in (("", "MatMul"), ("com.microsoft", "MatMulNBits"))
    return 0 if matrix and not any(map(_may_vary, rest)) else None


def _has_tokens(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 3


def _same_for_all(value: ir.Value | None) -> bool:
    """Return whether a value broadcasts over tokens, each of which gets the same."""
    if value is None:
        return True
    return value.shape is not None and (len(value.shape) < 2 or value.shape[-2] == 1)


def _may_vary(value: ir.Value) -> bool:
    """Return whether an operand beside the tokens may be more than a vector or a matrix."""
    return constant_of(value) is None and (value.shape is None or len(value.shape) > 2)
