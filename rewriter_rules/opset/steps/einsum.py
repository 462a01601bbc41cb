"""Einsum, spelled by transposes, sums and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import along, arange, blank, cast, part, size_at, sizes_of
from vlmpass.rewriter_rules.opset.queries import dtype, operand, rank, text
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs, expansion

__all__: list[str] = []

_D = ir.DataType
_CARRIED = {_D.INT8: _D.INT32, _D.INT16: _D.INT32, _D.UINT8: _D.UINT32, _D.UINT16: _D.UINT32}
"""Types that MatMul and ReduceSum do not take, and one whose sums have the same low bits."""


@dataclass
class _Term:
    """A value and the label of each of its axes."""

    value: ir.Value
    labels: list[str]


def _parsed(node: ir.Node) -> tuple[list[list[str]], list[str]]:
    """Return the labels of every operand and of the output; an ellipsis becomes numbered ones."""
    equation = text(node, "equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(node.inputs):
        raise CannotConvert(
            f"its equation {equation} is not for {len(node.inputs)} operands", "correct it"
        )
    terms: list[list[str]] = []
    widest = 0
    for index, own in enumerate(parts):
        count = rank(operand(node, index)) - len(own.replace("...", ""))
        widest = max(widest, count if "..." in own else 0)
        terms.append(_labels(own, count))
    if arrow:
        return terms, _labels(right, widest)
    named = sorted({label for term in terms for label in term if label.isalpha()})
    once = [label for label in named if sum(term.count(label) for term in terms) == 1]
    return terms, [str(place) for place in range(widest - 1, -1, -1)] + once


def _labels(part: str, count: int) -> list[str]:
    before, dots, after = part.partition("...")
    numbered = [str(place) for place in range(count - 1, -1, -1)] if dots else []
    return [*before, *numbered, *after]


def _moved(op: Tape, term: _Term, labels: Sequence[str]) -> ir.Value:
    """Record a term with its axes in the order of some labels, of size 1 where it lacks one."""
    own = [label for label in labels if label in term.labels]
    perm = [term.labels.index(label) for label in own]
    value = term.value if perm == list(range(len(perm))) else op.Transpose(term.value, perm=perm)
    missing = [place for place, label in enumerate(labels) if label not in own]
    return op.Unsqueeze(value, axes=missing) if missing else value


def _summed(op: Tape, term: _Term, labels: Sequence[str]) -> _Term:
    """Record a term without some of its labels."""
    if not labels:
        return term
    axes = [term.labels.index(label) for label in labels]
    value = op.ReduceSum(term.value, axes=axes, keepdims=0)
    return _Term(value, [label for label in term.labels if label not in labels])


def _diagonal(op: Tape, term: _Term) -> _Term:
    """Record a term with every repeated label only once."""
    for label in dict.fromkeys(term.labels):
        while term.labels.count(label) > 1:
            first = term.labels.index(label)
            second = term.labels.index(label, first + 1)
            lines = [_line(op, term, axis) for axis in (first, second)]
            kind = dtype(term.value)
            zero = blank(op, kind)
            kept = op.Where(op.Equal(*lines), term.value, zero)
            labels = [each for axis, each in enumerate(term.labels) if axis != second]
            term = _Term(op.ReduceSum(kept, axes=[second], keepdims=0), labels)
    return term


def _line(op: Tape, term: _Term, axis: int) -> ir.Value:
    """Record the index along one axis, to be broadcast against the term."""
    size = op.Squeeze(size_at(op, term.value, axis), axes=[0])
    return along(op, arange(op, size), axis, len(term.labels))


def _product(op: Tape, a: _Term, b: _Term, needed: set[str]) -> _Term:
    """Record two terms multiplied, summed over the shared labels that nothing else needs."""
    inner = [label for label in a.labels if label in b.labels and label not in needed]
    both = [label for label in a.labels if label in b.labels and label in needed]
    left = [label for label in a.labels if label not in b.labels]
    right = [label for label in b.labels if label not in a.labels]
    if not inner:
        labels = [*both, *left, *right]
        return _Term(op.Mul(_moved(op, a, labels), _moved(op, b, labels)), labels)
    first = _matrix(op, _moved(op, a, [*both, *left, *inner]), *map(len, (both, left, inner)))
    second = _matrix(op, _moved(op, b, [*both, *inner, *right]), *map(len, (both, inner, right)))
    result = op.MatMul(first, second)
    labels = [*both, *left, *right]
    if len(left) == len(right) == 1:
        return _Term(result, labels)
    lead = sizes_of(op, result, 0, len(both))
    sizes = [size_at(op, a.value, a.labels.index(label)) for label in left]
    sizes += [size_at(op, b.value, b.labels.index(label)) for label in right]
    return _Term(op.Reshape(result, op.Concat(lead, *sizes, axis=0)), labels)


def _matrix(op: Tape, value: ir.Value, batch: int, rows: int, columns: int) -> ir.Value:
    """Record a value as matrices: the axes after the batch in two groups, each made one."""
    total = batch + rows + columns
    if rows == columns == 1:
        return value
    shape = op.Shape(value)
    groups = [
        op.ReduceProd(part(op, shape, start, stop), axes=[0], keepdims=1)
        for start, stop in ((batch, batch + rows), (batch + rows, total))
    ]
    return op.Reshape(value, op.Concat(part(op, shape, 0, batch), *groups, axis=0))


def _joined(op: Tape, total: _Term | None, term: _Term, needed: set[str]) -> _Term:
    """Record the product of all terms so far, summed over the labels that nothing else needs."""
    before = set() if total is None else set(total.labels)
    term = _summed(op, term, [each for each in term.labels if each not in needed | before])
    total = term if total is None else _product(op, total, term, needed)
    if total.value.shape is None:
        total.value.shape = ir.Shape([None] * len(total.labels))
    return total


@expansion("Einsum", 12)
def einsum(op: Tape, node: ir.Node) -> Outputs:
    """Einsum(x, y) -> MatMul(Transpose(x), Transpose(y)), one pair of operands after the other."""
    inputs, output = _parsed(node)
    given = dtype(operand(node, 0))
    kind = _CARRIED.get(given, given)
    operands = [cast(op, operand(node, index), kind) for index in range(len(inputs))]
    pairs = zip(operands, inputs, strict=True)
    terms = [_diagonal(op, _Term(each, [*labels])) for each, labels in pairs]
    total: _Term | None = None
    for index, term in enumerate(terms):
        later = {label for each in terms[index + 1 :] for label in each.labels}
        total = _joined(op, total, term, {*later, *output})
    assert total is not None
    return cast(op, _moved(op, total, output), given)
