"""Shifts of packed words that an exporter did not keep: divisions that round the wrong way.

PyTorch's older exporter writes ``words >> n`` of int32 as ``Div(words, 2**n)``, which truncates
where a shift rounds down, so that negative words unpack to other numbers. The newer one divides
int64 through float32, which has 24 bits. Both graphs differ from the PyTorch model that they were
exported from; what they compute is kept unless a mend is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators import keeping_order
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.ir_tools.weights.weight import LazyWeight
from vlmpass.rewriter_rules.quant.calls import Calls
from vlmpass.rewriter_rules.quant.constant import Constants

__all__ = ["Shift", "find_shifts", "rounds_down"]

_SIGNED = frozenset(ir.DataType[f"INT{bits}"] for bits in (8, 16, 32, 64))
_MOVES = keeping_order() | {"Cast", "CastLike"}
_FLOAT_WHOLE = 1 << np.finfo(np.float32).nmant + 1


@dataclass(frozen=True)
class Shift:
    """A division that stands for a shift to the right of constant words.

    Attributes:
        scope: Where it is.
        nodes: The division and what belongs to it, in order; the last one gives the result.
        words: What is shifted, a signed integer.
        divisor: Powers of two of the words' type.
        kind: What its words lose: ``truncated`` towards zero, or through ``float32``.
        whole: The words as a lazy tensor.
    """

    scope: Scope
    nodes: tuple[ir.Node, ...]
    words: ir.Value
    divisor: ir.Value
    kind: Literal["truncated", "float32"]
    whole: Expression

    def differs(self) -> bool:
        """Whether the words have any that come out otherwise; they are read up to the first one."""
        for chunk in LazyWeight(self.whole).chunks():
            part = np.frombuffer(chunk, self.whole.dtype.numpy())
            low, high = part.min(initial=0), part.max(initial=0)
            whole = (0, high) if self.kind == "truncated" else (-_FLOAT_WHOLE, _FLOAT_WHOLE)
            if not (whole[0] <= low and high <= whole[1]):
                return True
        return False


def rounds_down(tape: Tape, shift: Shift) -> ir.Value:
    """Return Div(words - Mod(words, divisor), divisor): no remainder is left to truncate."""
    rest = tape.Mod(shift.words, shift.divisor)
    return tape.Div(tape.Sub(shift.words, rest), shift.divisor)


def find_shifts(model: ir.Model) -> Iterator[Shift]:
    """Yield the divisions of a model that stand for shifts and give other numbers.

    Args:
        model: It must not change before the last one is found.
    """
    calls = Calls(model)
    for scope in scopes(model):
        constants = calls.constants(scope)
        for node in scope.graph:
            if (node.domain, node.op_type) == ("", "Div"):
                found = _truncated(node, scope, constants) or _through_float(node, scope, constants)
                if found is not None and found.differs():
                    yield found


def _truncated(node: ir.Node, scope: Scope, constants: Constants) -> Shift | None:
    words, divisor = node.inputs
    if words is None or divisor is None or not (_is_power(divisor) or _is_masked(node)):
        return None
    return _shift(scope, (node,), (words, divisor), "truncated", constants)


def _through_float(node: ir.Node, scope: Scope, constants: Constants) -> Shift | None:
    """Return Cast(Floor(Cast(words, float32) / Cast(divisor, float32)), words' type) as a shift."""
    floor = _only_user(node, "Floor")
    back = _only_user(floor, "Cast", "CastLike") if floor is not None else None
    casts = [value.producer() if value is not None else None for value in node.inputs]
    if floor is None or back is None:
        return None
    wide = [cast.inputs[0] for cast in casts if cast is not None and _is(cast, "Cast")]
    words, divisor = (wide[0], wide[1]) if len(wide) == 2 else (None, None)
    if words is None or divisor is None:
        return None
    found = _shift(scope, (node, floor, back), (words, divisor), "float32", constants)
    result = constants.express(back.outputs[0])
    same = found is not None and result is not None and result.dtype == found.whole.dtype
    return found if same else None


def _shift(
    scope: Scope,
    nodes: tuple[ir.Node, ...],
    operands: tuple[ir.Value, ir.Value],
    kind: Literal["truncated", "float32"],
    constants: Constants,
) -> Shift | None:
    words, divisor = operands
    whole, powers = constants.express(words), constants.small(divisor)
    if whole is None or powers is None or whole.dtype not in _SIGNED:
        return None
    wanted = whole.dtype.numpy()
    if powers.dtype != wanted or not powers.size or (powers <= 0).any() or (powers == 1).all():
        return None
    exact = ((powers & (powers - 1)) == 0).all() and not _leaves_none(words, divisor)
    return Shift(scope, nodes, words, divisor, kind, whole) if exact else None


def _leaves_none(words: ir.Value, divisor: ir.Value) -> bool:
    """Whether words have no remainder, since it was taken from them."""
    node = words.producer()
    taken = node.inputs[1] if node is not None and _is(node, "Sub") else None
    rest = taken.producer() if taken is not None else None
    return rest is not None and _is(rest, "Mod") and rest.inputs[1] is divisor


def _is(node: ir.Node, *op_types: str) -> bool:
    return not node.domain and node.op_type in op_types


def _is_power(value: ir.Value | None) -> bool:
    """Whether the graph raises two to something to get a value."""
    while value is not None and (node := value.producer()) is not None:
        if _is(node, "Pow"):
            return True
        if not _is(node, *_MOVES, "Mul"):
            return False
        value = node.inputs[-1] if node.op_type == "Mul" else node.inputs[0]
    return False


def _is_masked(node: ir.Node) -> bool:
    """Whether all that takes a result takes its lowest bits."""
    users = [use.node for use in node.outputs[0].uses()]
    return bool(users) and all(
        _is(user, "BitwiseAnd") or (_is(user, *_MOVES) and _is_masked(user)) for user in users
    )


def _only_user(node: ir.Node, *op_types: str) -> ir.Node | None:
    value = node.outputs[0]
    users = [use.node for use in value.uses()]
    alone = len(users) == 1 and not value.is_graph_output() and users[0].graph is node.graph
    return users[0] if alone and _is(users[0], *op_types) else None
