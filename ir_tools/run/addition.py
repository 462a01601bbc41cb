"""What a staged model computes besides: nodes that measure, and the outputs that tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx

__all__ = ["NOTHING", "Addition"]

_OPSET = 17
"""What a model of other domains alone gets for nodes of the standard one."""
_PIECE = 256
"""Nodes that are built at a time."""


@dataclass(frozen=True)
class Addition:
    """Nodes of the standard domain for the graph of a protobuf, so that the model stays as it is.

    Attributes:
        behind: Returns, for the name of a value, the nodes that go behind that which makes it: what
            runs in the order of the file lets go of the value as soon as it would without them.
        initializers: Constants that they take.
        outputs: Names of float32 numbers that the graph gives out besides.
    """

    behind: Callable[[str], Iterable[onnx.NodeProto]]
    initializers: Sequence[onnx.TensorProto]
    outputs: Sequence[str]

    def woven_into(self, model: onnx.ModelProto) -> Iterator[bytes]:
        """Yield a model with all of it, in pieces of one protobuf; the model is used up.

        Where a piece says more of a message, a reader of protobufs merges it with what was said.
        """
        if not self.outputs:
            yield model.SerializeToString()
            return
        own = model.graph.node
        for start in range(0, len(own), _PIECE):
            piece = onnx.ModelProto()
            for node in own[start : start + _PIECE]:
                piece.graph.node.append(node)
                for name in node.output:
                    piece.graph.node.extend(self.behind(name))
            yield piece.SerializeToString()
        del own[:]
        if all(each.domain for each in model.opset_import):
            model.opset_import.add(domain="", version=_OPSET)
        model.graph.initializer.extend(self.initializers)
        for name in self.outputs:
            model.graph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        yield model.SerializeToString()


NOTHING = Addition(lambda _: (), (), ())
