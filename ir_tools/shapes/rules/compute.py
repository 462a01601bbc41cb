"""Shapes of the operators that compute: products, convolutions, reductions, generators."""

from __future__ import annotations

from collections.abc import Sequence

from vlmpass.ir_tools.graph.constants import node_tensor
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, add, mul, product, sub
from vlmpass.ir_tools.shapes.call import Call
from vlmpass.ir_tools.shapes.known import MOST_ELEMENTS, UNKNOWN, Known
from vlmpass.ir_tools.shapes.rules.elementwise import broadcast
from vlmpass.ir_tools.shapes.shape_rules import shape_rule

__all__ = []


@shape_rule("MatMul MatMulInteger")
def _matmul(call: Call) -> Known:
    a, b = call.shape(0), call.shape(1)
    if not a or not b:
        return UNKNOWN
    batch = broadcast(call.algebra, [a[:-2], b[:-2]])
    assert batch is not None
    return Known((*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))


@shape_rule("Gemm")
def _gemm(call: Call) -> Known:
    a, b = call.shape(0), call.shape(1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return call.of_rank(2)
    return Known(
        (a[1 if call.get_int("transA", 0) else 0], b[0 if call.get_int("transB", 0) else 1])
    )


def _window(
    call: Call, size: Dim, kernel: int, stride: int, dilation: int, pads: tuple[int, int] | None
) -> Dim:
    """Return how often a window fits; `pads` None means padding to ceil(size / stride)."""
    algebra = call.algebra
    if pads is None:
        return algebra.floordiv(add(size, stride - 1), stride)
    room = add(size, sum(pads) - dilation * (kernel - 1) - 1)
    if call.get_int("ceil_mode", 0):
        return add(algebra.floordiv(add(room, stride - 1), stride), 1)
    return add(algebra.floordiv(room, stride), 1)


def _windows(call: Call, data: tuple[Dim, ...], kernel: Sequence[int]) -> list[Dim] | None:
    """Return the spatial output sizes of a convolution or pooling."""
    count = len(kernel)
    strides = call.get_ints("strides") or (1,) * count
    dilations = call.get_ints("dilations") or (1,) * count
    padding = call.get_string("auto_pad", "NOTSET")
    pads = (0,) * (2 * count) if padding == "VALID" else call.get_ints("pads") or (0,) * (2 * count)
    if call.get_int("ceil_mode", 0) and any(not isinstance(dim, int) for dim in data[2:]):
        return None  # the last window may start in the padding, and then it is dropped
    sizes: list[Dim] = []
    fresh = call.fresh(len(data))
    for axis in range(count):
        both = None if padding.startswith("SAME") else (pads[axis], pads[axis + count])
        args = kernel[axis], strides[axis], dilations[axis], both
        size = _window(call, data[2 + axis], *args)
        # Where nothing fits, some runtimes divide towards zero.
        fits = not isinstance(size, int) or size > 0 or data[2 + axis] == 0
        sizes.append(size if fits else fresh[2 + axis])
    return sizes


@shape_rule("Conv ConvInteger")
def _conv(call: Call) -> Known:
    data, weight = call.shape(0), call.shape(1)
    if data is None or weight is None:
        return UNKNOWN
    sizes = call.get_ints("kernel_shape") or weight[2:]
    kernel = [size for size in sizes if isinstance(size, int)]
    if len(kernel) != len(data) - 2:
        return call.of_rank(len(data))
    spatial = _windows(call, data, kernel)
    assert spatial is not None
    return Known((data[0], weight[0], *spatial))


@shape_rule("MaxPool AveragePool LpPool")
def _pool(call: Call) -> Sequence[Known]:
    data, kernel = call.shape(0), call.get_ints("kernel_shape")
    if data is None or kernel is None:
        return [UNKNOWN] * 2
    spatial = _windows(call, data, kernel)
    if spatial is None or call.get_int("ceil_mode", 0):
        return [Known((*data[:2], *call.fresh(len(data), index)[2:])) for index in _outputs(call)]
    return [Known((*data[:2], *spatial))] * len(call.node.outputs)


def _outputs(call: Call) -> range:
    return range(len(call.node.outputs))


@shape_rule("GlobalAveragePool GlobalMaxPool")
def _global_pool(call: Call) -> Known:
    data = call.shape(0)
    return UNKNOWN if data is None else Known((*data[:2], *(1,) * (len(data) - 2)))


@shape_rule("ReduceProd ReduceSum ReduceMax ReduceMin")
def _reduce(call: Call) -> Known:
    known = call.known(0)
    if known.shape is None:
        return UNKNOWN
    rank = len(known.shape)
    axes = call.axes(1)
    keep = call.get_int("keepdims", 1) == 1  # all else is 0 to onnx and to runtimes
    if axes is None and call.has(1):
        length = call.shape(1)
        gone = length[0] if length and isinstance(length[0], int) else None
        kept = rank if keep else None if gone is None else rank - gone
        return call.of_rank(kept)
    noop = call.get_int("noop_with_empty_axes", 0) if not axes else 0
    if noop:  # runtimes take other numbers than 1 for either
        return known if noop == 1 else UNKNOWN
    where = {axis % rank for axis in axes} if axes else set(range(rank))
    dims = [1 if axis in where else dim for axis, dim in enumerate(known.shape)]
    shape = tuple(dim for axis, dim in enumerate(dims) if keep or axis not in where)
    return Known(shape, _reduced(call) if rank == 1 and where else None)


def _reduced(call: Call) -> tuple[Dim, ...] | None:
    """Return the one element that a vector of known elements is reduced to."""
    items, algebra = call.elements(0), call.algebra
    if not items:
        return None
    total: Dim = items[0]
    for item in items[1:]:
        if call.node.op_type == "ReduceProd":
            total = mul(total, item)
        elif call.node.op_type == "ReduceSum":
            total = add(total, item)
        elif call.node.op_type == "ReduceMax":
            total = algebra.maximum(total, item)
        else:
            total = algebra.minimum(total, item)
    return (total,)


@shape_rule("ReduceMean ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare")
def _reduce_shape_only(call: Call) -> Known:
    return Known(_reduce(call).shape)


@shape_rule("ArgMax ArgMin")
def _arg(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None:
        return UNKNOWN
    axis = call.get_int("axis", 0) % max(len(shape), 1)
    kept = (1,) if call.get_int("keepdims", 1) == 1 else ()
    return Known((*shape[:axis], *kept, *shape[axis + 1 :]))


@shape_rule("TopK")
def _top_k(call: Call) -> Sequence[Known]:
    shape = call.shape(0)
    if shape is None:
        return [UNKNOWN] * 2
    axis = call.get_int("axis", -1) % len(shape)
    count = call.elements(1) if call.has(1) else (call.get_int("k", 0),)
    knowns = []
    for output in range(2):
        size = call.fresh(len(shape), output)[axis] if count is None else count[0]
        knowns.append(Known((*shape[:axis], size, *shape[axis + 1 :])))
    return knowns


@shape_rule("Range")
def _range(call: Call) -> Known:
    start, limit, delta = call.elements(0), call.elements(1), call.elements(2)
    if start is None or limit is None or delta is None or not isinstance(delta[0], int):
        return call.of_rank(1)
    step = delta[0]
    if step == 0:
        return call.of_rank(1)
    algebra = call.algebra
    span = sub(limit[0], start[0]) if step > 0 else sub(start[0], limit[0])
    length = algebra.maximum(0, algebra.floordiv(add(span, abs(step) - 1), abs(step)))
    items = None
    if isinstance(length, int) and length <= MOST_ELEMENTS:
        items = tuple(add(start[0], index * step) for index in range(length))
    return Known((length,), items)


@shape_rule("ConstantOfShape")
def _constant_of_shape(call: Call) -> Known:
    dims = call.elements(0)
    if dims is None:
        length = call.shape(0)
        return call.of_rank(length[0] if length and isinstance(length[0], int) else None)
    if not all(call.algebra.nonnegative(dim) for dim in dims):
        return call.of_rank(len(dims))
    attribute = call.attribute("value")
    static = Known(dims).static
    count = product(static) if static is not None else None
    if attribute is None or not isinstance(count, int) or count > MOST_ELEMENTS:
        return Known(dims)
    item = call.facts.of_tensor(attribute.as_tensor()).elements
    return Known(dims, None if item is None else item * count)


@shape_rule("Constant")
def _constant(call: Call) -> Known:
    tensor = node_tensor(call.node)
    if tensor is not None:
        return call.facts.of_tensor(tensor)
    given = call.node.attributes.get("value")
    if given is not None and given.ref_attr_name is not None:
        return call.facts.parameters.get(given.ref_attr_name, UNKNOWN)
    scalar = {"value_float", "value_int", "value_string"}.intersection(call.node.attributes)
    return Known(()) if scalar else UNKNOWN


@shape_rule("NonZero")
def _non_zero(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None:
        return call.of_rank(2)
    return Known((len(shape), call.fresh(2)[1]))


@shape_rule("OneHot")
def _one_hot(call: Call) -> Known:
    shape, depth = call.shape(0), call.elements(1)
    if shape is None:
        return UNKNOWN
    axis = call.get_int("axis", -1) % (len(shape) + 1)
    size = call.fresh(len(shape) + 1)[axis] if depth is None else depth[0]
    return Known((*shape[:axis], size, *shape[axis:]))


@shape_rule("Resize")
def _resize(call: Call) -> Known:
    shape = call.shape(0)
    if shape is None:
        return UNKNOWN
    sizes = call.elements(3)
    plain = call.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    if call.opset < 11 or not call.has(3) or sizes is None or not plain:
        return call.of_rank(len(shape))
    axes = call.get_ints("axes") or tuple(range(len(shape)))
    dims = list(shape)
    for axis, size in zip(axes, sizes, strict=True):
        dims[axis % len(shape)] = size
    return Known(tuple(dims))


@shape_rule("Einsum")
def _einsum(call: Call) -> Known:
    left, arrow, right = call.get_string("equation", "").replace(" ", "").partition("->")
    if not arrow or "." in left:
        return UNKNOWN
    sizes: dict[str, Dim] = {}
    for index, letters in enumerate(left.split(",")):
        shape = call.shape(index)
        if shape is None or len(shape) != len(letters):
            return UNKNOWN
        for letter, dim in zip(letters, shape, strict=True):
            sizes[letter] = _common(call.algebra, sizes.get(letter, 1), dim)
    return Known(tuple(sizes[letter] for letter in right))


def _common(algebra: Algebra, a: Dim, b: Dim) -> Dim:
    return algebra.broadcast((a, b))


@shape_rule("If")
def _if(call: Call) -> Sequence[Known]:
    yes = call.node.attributes["then_branch"].as_graph().outputs
    no = call.node.attributes["else_branch"].as_graph().outputs
    knowns = []
    for output, (a, b) in enumerate(zip(yes, no, strict=True)):
        left, right = call.facts[a], call.facts[b]
        if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
            knowns.append(UNKNOWN)
            continue
        fresh = call.fresh(len(left.shape), output)
        pairs = zip(left.shape, right.shape, fresh, strict=True)
        shape = tuple(one if one == other else new for one, other, new in pairs)
        knowns.append(Known(shape, left.elements if left.elements == right.elements else None))
    return knowns


@shape_rule("Attention")
def _attention(call: Call) -> Sequence[Known]:
    """Say the shape of the first output of Attention-23 and of the caches it returns."""
    query, value = call.shape(0), call.shape(2)
    knowns = [UNKNOWN] * len(call.node.outputs)
    if query is None or value is None or len(query) != len(value):
        return knowns
    if len(query) == 4:
        knowns[0] = Known((*query[:3], value[3]))
        return knowns
    heads, kv_heads = call.get_int("q_num_heads", 0), call.get_int("kv_num_heads", 0)
    if heads and kv_heads:
        width = mul(call.algebra.floordiv(value[2], kv_heads), heads)
        knowns[0] = Known((query[0], query[1], width))
    return knowns


@shape_rule("MatMulBnb4", "com.microsoft")
@shape_rule("MatMulNBits", "com.microsoft")
def _quantised_matmul(call: Call) -> Known:
    """Products of com.microsoft whose weight is packed, its width an attribute."""
    shape = call.shape(0)
    return UNKNOWN if not shape else Known((*shape[:-1], call.get_int("N", 0)))
