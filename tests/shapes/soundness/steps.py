"""What a drawn graph is made of: moves, arithmetic on sizes, and the shapes made of these."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from tests.shapes.soundness.draw import Drawing, Name

__all__ = ["draw"]

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
_FEW = (1, 2, 3)


def size(d: Drawing) -> Name:
    """Return a vector of one size or number, computed or not."""
    roll = d.random.random()
    if roll < 0.25:
        return d.const([d.random.choice((-1, 0, 1, 2, 3, 4))])
    found = d.values(INT, (1,))
    ones = [name for name in found if all(arrays[name].size == 1 for arrays in d.sets)]
    if roll < 0.6 and ones:
        return d.random.choice(ones)
    x = d.pick(FLOAT, 1, 2, 3, 4)
    axis = d.random.randrange(d.rank(x))
    (found_size,) = d.node("Shape", [x], start=axis, end=axis + 1) or [d.const([1])]
    return found_size


def vector(d: Drawing, length: int) -> Name:
    """Return a vector of sizes."""
    return (d.node("Concat", [size(d) for _ in range(length)], axis=0) or [d.const([1] * length)])[
        0
    ]


def axis_of(d: Drawing, x: Name, over: int = 0) -> int:
    rank = d.rank(x) + over
    return d.random.randrange(-rank, rank)


def unary(d: Drawing) -> None:
    kind = d.random.choice(("Relu", "Softmax", "Identity", "Neg", "Cast"))
    x = d.pick(FLOAT, 1, 2, 3, 4)
    d.node(kind, [x], **({"to": FLOAT} if kind == "Cast" else {}))


def binary(d: Drawing) -> None:
    d.node(d.random.choice(("Add", "Mul", "Sub", "Max")), [d.pick(FLOAT), d.pick(FLOAT)])


def matmul(d: Drawing) -> None:
    a, b = d.pick(FLOAT, *_FEW), d.pick(FLOAT, *_FEW)
    if d.random.random() < 0.6 and d.rank(a) > 1:
        perm = [*range(d.rank(a) - 2), d.rank(a) - 1, d.rank(a) - 2]
        b = (d.node("Transpose", [a], perm=perm) or [b])[0]
    d.node("MatMul", [a, b])


def transpose(d: Drawing) -> None:
    x = d.pick(FLOAT, 2, 3, 4)
    d.node("Transpose", [x], perm=d.random.sample(range(d.rank(x)), d.rank(x)))


def reshape(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW, 4)
    roll = d.random.random()
    if roll < 0.3:
        target = d.const(d.random.choice(([-1], [0, -1], [0, 0, -1], [-1, 1], [-1, 2], [0, -1, 2])))
    elif roll < 0.6:
        target = (d.node("Shape", [d.pick(FLOAT, *_FEW)]) or [d.const([-1])])[0]
    else:
        part = d.node("Shape", [x], start=0, end=d.random.randint(0, d.rank(x)))
        ends = [d.const([-1])] if d.random.random() < 0.6 else [size(d), size(d)]
        target = (d.node("Concat", [*(part or []), *ends], axis=0) or [d.const([-1])])[0]
    d.node("Reshape", [x, target], **d.random.choice(({}, {}, {"allowzero": 1})))


def flatten(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW, 4)
    d.node("Flatten", [x], axis=axis_of(d, x))


def concat(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW, 4)
    same = d.values(FLOAT, (d.rank(x),))
    d.node("Concat", [x, d.random.choice([x, *same])], axis=axis_of(d, x))


def split(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW)
    axis = axis_of(d, x)
    if d.random.random() < 0.5:
        d.node("Split", [x], 2, axis=axis, num_outputs=2)
    else:
        d.node("Split", [x, d.const(d.random.choice(([1, 1], [1, 2], [0, 3])))], 2, axis=axis)


def slice_(d: Drawing) -> None:
    x = d.pick(d.random.choice((FLOAT, FLOAT, INT)), *_FEW, 4)
    axis = axis_of(d, x)
    ends = (1, 2, -1, 2**63 - 1, -(2**63), 2**31 - 1, 0, -2)
    start = d.const([d.random.choice((0, 1, -1, 2, -3))]) if d.random.random() < 0.7 else size(d)
    end = d.const([d.random.choice(ends)]) if d.random.random() < 0.6 else size(d)
    step = d.const([d.random.choice((1, 1, 1, 2, 3, -1, -2))])
    d.node("Slice", [x, start, end, d.const([axis]), step])


def gather(d: Drawing) -> None:
    x = d.pick(d.random.choice((FLOAT, INT)), *_FEW)
    places = d.random.choice((0, [0], [-1, 0], [[0, 0], [-1, 0]], [0, 1], 1, -1))
    d.node("Gather", [x, d.const(places)], axis=axis_of(d, x))


def squeeze(d: Drawing) -> None:
    x = d.pick(d.random.choice((FLOAT, INT)), *_FEW, 4)
    given = [d.const([axis_of(d, x)])] if d.random.random() < 0.8 else []
    d.node("Squeeze", [x, *given])


def unsqueeze(d: Drawing) -> None:
    x = d.pick(d.random.choice((FLOAT, INT)), 0, *_FEW)
    d.node("Unsqueeze", [x, d.const([axis_of(d, x, 1)])])


def expand(d: Drawing) -> None:
    x = d.pick(FLOAT, 0, *_FEW)
    if d.random.random() < 0.5:
        target = (d.node("Shape", [d.pick(FLOAT, *_FEW)]) or [d.const([1])])[0]
    else:
        target = vector(d, d.random.randint(1, 3))
    d.node("Expand", [x, target])


def tile(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW)
    d.node("Tile", [x, vector(d, d.rank(x))])


def pad(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW)
    d.node("Pad", [x, d.const([d.random.choice((0, 0, 1, 2, -1)) for _ in range(2 * d.rank(x))])])


def reduce_(d: Drawing) -> None:
    x = d.pick(d.random.choice((FLOAT, FLOAT, INT)), *_FEW, 4)
    kind = d.random.choice(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd", "ReduceMin"))
    axes = [d.const([axis_of(d, x)])] if d.random.random() < 0.8 else []
    extra = {"noop_with_empty_axes": 1} if d.random.random() < 0.15 else {}
    d.node(kind, [x, *axes], keepdims=d.random.randint(0, 1), **extra)


def chosen(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW)
    axis = axis_of(d, x)
    kind = d.random.choice(("ArgMax", "TopK", "NonZero", "OneHot", "GatherElements", "CumSum"))
    if kind == "ArgMax":
        d.node(kind, [x], axis=axis, keepdims=d.random.randint(0, 1))
    elif kind == "TopK":
        d.node(kind, [x, size(d)], 2, axis=axis)
    elif kind == "NonZero":
        d.node(kind, [x])
    elif kind == "OneHot":
        depth = d.node("Squeeze", [size(d)]) or [d.const(2)]
        d.node(kind, [d.pick(INT, 0, 1), depth[0], d.const([0.0, 1.0], np.float32)], axis=-1)
    elif kind == "CumSum":
        d.node(kind, [x, d.const(axis)])
    else:
        places = d.node("ArgMax", [x], axis=axis, keepdims=1)
        if places:
            d.node(kind, [x, places[0]], axis=axis)


def made(d: Drawing) -> None:
    if d.random.random() < 0.5:
        value = helper.make_tensor("", d.random.choice((FLOAT, INT)), [1], [d.random.randint(0, 3)])
        d.node("ConstantOfShape", [vector(d, d.random.randint(1, 3))], value=value)
    else:
        limit = d.node("Squeeze", [size(d)]) or [d.const(3)]
        start = d.const(d.random.choice((0, 0, 1, -2)))
        d.node("Range", [start, limit[0], d.const(d.random.choice((1, 1, 2, 3, -1)))])


def shape(d: Drawing) -> None:
    x = d.pick(FLOAT, *_FEW, 4)
    if d.random.random() < 0.2:
        d.node("Size", [x])
    else:
        bounds = d.random.choice(({}, {"start": 1}, {"end": -1}, {"start": -2}, {"end": 1}))
        d.node("Shape", [x], **bounds)


def arithmetic(d: Drawing) -> None:
    kind = d.random.choice(("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Mul", "Div"))
    a = d.pick(INT, 0, 1)
    b = (
        d.const(d.random.choice((1, 2, 3, -1, 4, -2)))
        if d.random.random() < 0.5
        else d.pick(INT, 0, 1)
    )
    fmod = {"fmod": 1} if kind == "Mod" and d.random.random() < 0.3 else {}
    d.node(kind, [a, b], **fmod)


def single(d: Drawing) -> None:
    kind = d.random.choice(("Neg", "Abs", "Cast", "Clip", "Identity", "Pow", "CumSum"))
    x = d.pick(INT, 0, 1)
    if kind == "Cast":
        narrow = d.node("Cast", [x], to=d.random.choice((BOOL, TensorProto.INT32, FLOAT)))
        d.node("Cast", narrow or [x], to=INT)
    elif kind == "Clip":
        d.node(kind, [x, d.const(d.random.randint(-2, 2)), d.const(d.random.randint(0, 5))])
    elif kind == "Pow":
        d.node(kind, [x, d.const(2)])
    elif kind == "CumSum":
        d.node(kind, [x, d.const(0)])
    else:
        d.node(kind, [x])


def decided(d: Drawing) -> None:
    kind = d.random.choice(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"))
    a, b = d.pick(INT, 0, 1), d.pick(INT, 0, 1)
    if d.random.random() < 0.4:
        b = d.const(d.random.choice((-1, 0, 1, 2)))
    truth = d.node(kind, [a, b])
    if not truth:
        return
    if d.random.random() < 0.3:
        truth = d.node("Not", truth) or truth
    d.node("Where", [truth[0], d.pick(INT, 0, 1), d.pick(INT, 0, 1)])


def branch(d: Drawing) -> None:
    x, y = d.pick(FLOAT, *_FEW), d.pick(FLOAT, *_FEW)
    truth = d.node("Less", [size(d), d.const([2])])
    scalar = d.node("Squeeze", truth) if truth else None
    if not scalar:
        return
    graphs = [
        helper.make_graph(
            [helper.make_node("Neg", [each], [f"{label}{d.count}"])],
            label,
            [],
            [helper.make_tensor_value_info(f"{label}{d.count}", FLOAT, None)],
        )
        for label, each in (("yes", x), ("no", d.random.choice((x, y))))
    ]
    d.node("If", scalar, captured=[x, y], then_branch=graphs[0], else_branch=graphs[1])


def window(d: Drawing) -> None:
    x = d.pick(FLOAT, 4)
    strides = {
        "strides": [d.random.randint(1, 2)] * 2,
        "kernel_shape": [d.random.randint(1, 2)] * 2,
    }
    pads = d.random.choice(({}, {"pads": [0, 1, 0, 1]}, {"auto_pad": "SAME_UPPER"}))
    kind = d.random.choice(("MaxPool", "AveragePool", "GlobalAveragePool"))
    d.node(kind, [x], **({} if kind.startswith("Global") else {**strides, **pads}))


STEPS: tuple[Callable[[Drawing], None], ...] = (
    unary, binary, binary, matmul, transpose, reshape, reshape, reshape, flatten, concat, split,
    slice_, slice_, gather, squeeze, unsqueeze, expand, tile, pad, reduce_, chosen, made, shape,
    shape, arithmetic, arithmetic, arithmetic, single, decided, branch, window,
)  # fmt: skip


def draw(d: Drawing, steps: int) -> None:
    """Grow a drawing by about so many steps."""
    d.add_inputs()
    for _ in range(steps):
        try:
            d.random.choice(STEPS)(d)
        except IndexError:
            continue  # nothing of the kind that the step takes
