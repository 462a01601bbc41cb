"""Rules of simplify.sequences: what they do to graphs, why they leave some alone, hints."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rules.drawing import copies
from rules.instances import Draw, Hints


def parted(draw: Draw) -> np.ndarray:
    """Sizes of the parts of 4 indices, or one for all of them."""
    return np.array(draw.choose([1, 2, 3, (1, 3), (2, 2)]))


def element_type(draw: Draw) -> dict[str, object]:
    """The type that a sequence is of, as an attribute."""
    return {"dtype": ir.DataType.from_numpy(draw.dtype).value}


# rule: inputs and outputs, nodes before, nodes after; empty where numbers say enough
FIRES: dict[str, list[tuple[str, str, str]]] = {
    "insert-into-empty": [
        (
            "(float[a] x) => (float[b] y)",
            """e = SequenceEmpty<dtype=1>() s = SequenceInsert(e, x)
               y = ConcatFromSequence<axis=0>(s)""",
            "s = SequenceConstruct(x) y = ConcatFromSequence<axis=0>(s)",
        ),
    ],
    "insert-at-the-end": [
        (
            "(float[a] x, float[b] z) => (float[c] y)",
            """e = SequenceConstruct(x) s = SequenceInsert(e, z)
               y = ConcatFromSequence<axis=0>(s)""",
            "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=0>(s)",
        ),
    ],
    "at-of-construct": [
        (
            "(float[a] x, float[b] z) => (float[b] y)",
            """i = Constant<value_int=-1>() e = SequenceConstruct(x, z) s = SequenceAt(e, i)
               y = Neg(s)""",
            "y = Neg(z)",
        ),
    ],
    "concat-of-construct": [
        (
            "(float[a] x, float[b] z) => (float[c] y)",
            "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1>(s)",
            "y = Concat<axis=-1>(x, z)",
        ),
        (
            "(float[a] x, float[a] z) => (float[a,2] y)",
            "s = SequenceConstruct(x, z) y = ConcatFromSequence<axis=-1,new_axis=1>(s)",
            "",
        ),
    ],
    "at-of-indices": [
        (
            "(float[a,b] x) => (float[a] y)",
            """i = Constant<value_int=-1>() s = SplitToSequence<axis=1,keepdims=0>(x)
               y = SequenceAt(s, i)""",
            "i = Constant<value_int=-1>() y = Gather<axis=1>(x, i)",
        ),
        (
            "(float[a,b] x) => (float[a,1] y)",
            "i = Constant<value_int=0>() s = SplitToSequence<axis=1>(x) y = SequenceAt(s, i)",
            "",
        ),
    ],
    "at-of-parts": [
        (
            "(float[5] x) => (float[c] y)",
            """k = Constant<value_int=2>() i = Constant<value_int=2>()
               s = SplitToSequence(x, k) y = SequenceAt(s, i)""",
            "",
        ),
        (
            "(float[a,5] x) => (float[a,2] y)",
            """k = Constant<value_ints=[1,2,2]>() i = Constant<value_int=-2>()
               s = SplitToSequence<axis=-1,keepdims=0>(x, k) y = SequenceAt(s, i)""",
            "",
        ),
    ],
}

# rule: inputs and outputs, nodes, part of the reason
REFUSES: dict[str, list[tuple[str, str, str]]] = {
    "insert-into-empty": [
        (
            "(float[a] x, seq(float[a]) e) => (float[b] y)",
            "s = SequenceInsert(e, x) y = ConcatFromSequence<axis=0>(s)",
            "expected SequenceEmpty",
        ),
    ],
    "insert-at-the-end": [
        (
            "(float[a] x, float[b] z) => (float[c] y)",
            """i = Constant<value_int=0>() e = SequenceConstruct(x) s = SequenceInsert(e, z, i)
               y = ConcatFromSequence<axis=0>(s)""",
            "input",
        ),
    ],
    "concat-of-construct": [
        (
            "(seq(float[a]) s) => (float[c] y)",
            "y = ConcatFromSequence<axis=-1>(s)",
            "expected SequenceConstruct",
        ),
    ],
    "at-of-indices": [
        (
            "(float[a,b] x, int64 i) => (float[a] y)",
            "s = SplitToSequence<axis=1,keepdims=0>(x) y = SequenceAt(s, i)",
            "not a constant int",
        ),
    ],
    "at-of-construct": [
        (
            "(float[a] x) => (float[a] y)",
            "i = Constant<value_int=1>() e = SequenceConstruct(x) y = SequenceAt(e, i)",
            "there is no element 1",
        ),
    ],
    "at-of-parts": [
        (
            "(float[a] x) => (float[b] y)",
            """k = Constant<value_int=2>() i = Constant<value_int=-1>()
               s = SplitToSequence(x, k) y = SequenceAt(s, i)""",
            "where part -1 lies is not known",
        ),
        (
            "(float[a] x) => (float[b] y)",
            """k = Constant<value_ints=[2,3]>() i = Constant<value_int=2>()
               s = SplitToSequence(x, k) y = SequenceAt(s, i)""",
            "where part 2 lies is not known",
        ),
    ],
}

# what random graphs for a rule need to know beyond its pattern
HINTS: dict[str, Hints] = {
    "insert-into-empty": {"x": "T[a,b]", "SequenceEmpty()": element_type},
    "insert-at-the-end": {"xs": copies("T[a,b]"), "x": "T[a,b]"},
    "at-of-construct": {"xs": copies("T[a,b]"), "at": [0, 1, -1]},
    "concat-of-construct": {"xs": copies("T[a,b]"), "axis": [0, 1, -1], "new": [0, 1]},
    "at-of-indices": {"x": "T[4,3]", "axis": [0, -1], "at": [0, 2, -1], "keep": [0, 1]},
    "at-of-parts": {"x": "T[4,4]", "axis": [0, -1], "at": [0, 1, -1], "parts": parted},
}
