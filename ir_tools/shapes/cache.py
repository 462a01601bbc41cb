"""What is known about a node's outputs, found once for all nodes that are alike.

A model repeats its layers: the same operator with the same attributes, on inputs of which the very
same is known. Where a rule looked at nothing else, its answer holds for all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.shapes.known import Known

__all__ = ["Alike"]

_PLAIN = frozenset(
    {
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.STRING,
    }
)
_MOST = 10_000
"""Of how many nodes answers are remembered; a model of more has fewer kinds of nodes."""


class Alike:
    """Answers of rules by what they looked at.

    Attributes:
        own: Set by whoever looks at something else than what is known of the inputs.
    """

    def __init__(self) -> None:
        self.own = False
        self._answers: dict[Hashable, tuple[Sequence[Known | None], tuple[Known, ...]]] = {}
        self._canonical: dict[Known, Known] = {}

    def canonical(self, known: Known) -> Known:
        """Return the one object that stands for all equal ones."""
        return self._canonical.setdefault(known, known)

    @staticmethod
    def key(node: ir.Node, opset: int, inputs: Sequence[Known | None]) -> Hashable | None:
        """Return what nodes that are alike have in common; None if this one has no like.

        What is known about the inputs goes in by identity: `canonical` makes equal ones the same.

        Args:
            node: The node.
            opset: Version of its domain.
            inputs: What is known about each input; None for an absent one.
        """
        attributes: Hashable = ()
        data = node.attributes.data
        if data:
            for each in data.values():
                if each.type not in _PLAIN or each.is_ref():
                    return None
            attributes = tuple((each.name, each.type, each.value) for each in data.values())
        outputs = len(node.outputs)
        return (node.op_type, node.domain, opset, outputs, attributes, *map(id, inputs))

    def find(self, key: Hashable) -> tuple[Known, ...] | None:
        """Return the answer for a key, None if there is none yet."""
        entry = self._answers.get(key)
        return None if entry is None else entry[1]

    def remember(
        self, key: Hashable, inputs: Sequence[Known | None], answer: tuple[Known, ...]
    ) -> None:
        """Keep an answer, and the inputs along with it so that no other takes their identity.

        Args:
            key: What `key` returned.
            inputs: What it was given.
            answer: What holds for the outputs.
        """
        if len(self._answers) < _MOST:
            self._answers[key] = (inputs, answer)
