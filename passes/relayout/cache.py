"""The pass cache: a decoder's cache that grows, or one of a length that stays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import INFER_FIRST, Refusal, Refused
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.edit import remove_dead
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.relayout.cached import (
    CACHE_RANK,
    LENGTH,
    OPERATORS,
    Cached,
    caches,
    joined,
    register,
)
from vlmpass.passes.relayout.grouped_buffers import INSIDE, grow_inside, hold_inside
from vlmpass.rewriter_rules.fuse.attention.steps_back import made_by

__all__ = ["Cache"]

LONGEST = 1 << 24
MADE_UP = re.compile(r"s\d+|unk__\d+|.*_dynamic_axes_\d+")
"""Names that exporters give to sizes of which they know nothing."""
SCATTERED = 24
"""The first opset that writes to a buffer, TensorScatter."""
PLACED = ("Expand", "TensorScatter")
"""What is told where new tokens lie in a buffer: simplify takes an Expand away for one sequence."""
SLICED = 10
"""The first opset whose Slice takes bounds that are computed."""


@dataclass(frozen=True)
class Cache(Pass):
    """Give a decoder's cache another form: one that grows, or buffers of a length that stays.

    With form=static, each input that new keys or values are joined with is a buffer of `length`
    tokens, of which the first `past_length` (a new input, int64 of shape [1]) count; what was the
    longer cache comes out as a buffer with new tokens behind those, by TensorScatter from opset 24
    on. With form=gqa, ONNX Runtime's GroupQueryAttention is in the place of Attention, and writes
    to such buffers itself; behind others, it takes several tokens for one sequence alone. Names
    stay as they are. More tokens than a buffer holds end in an error. form=dynamic undoes either.
    No weight is touched.
    """

    name: ClassVar[str] = "cache"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    changes_interface: ClassVar[bool] = True
    edits_shapes: ClassVar[bool] = True
    nothing: ClassVar[str] = "the model has no cache of another form"

    form: Literal["static", "dynamic", "gqa"] = "static"
    """Whether buffers have one length, or grow from call to call; gqa: GroupQueryAttention's."""
    length: int = 0
    """How many tokens a buffer holds; for form=static and form=gqa."""

    def __post_init__(self) -> None:
        """Check that there is a length where one is needed."""
        super().__post_init__()
        stays = self.form != "dynamic"
        if not 0 < self.length <= LONGEST if stays else self.length:
            said = "must be the number of tokens that a buffer holds"
            raise OptionError("length", said if stays else "is for form=static and form=gqa")

    def run(self, model: ir.Model) -> bool:
        """Change all caches of the main graph, or none."""
        if self.form == "dynamic":
            return _grow(model, self.name) or grow_inside(model, self.name)
        inside = self.form == "gqa"
        found = [*caches(model.graph, INSIDE if inside else OPERATORS)]
        found = [each for each in found if not isinstance(each.size, int)]
        if not found or not may_apply(self.name, found[0].past.name or ""):
            return False
        _refuse_unknown(str(self), found)
        if model.graph.opset_imports.get("", 1) < SLICED:
            reason = "it takes no computed bounds below opset 10"
            raise Refused(str(self), [Refusal("Slice", reason)])
        names = Names.of(model)
        if names.value(LENGTH) != LENGTH:
            given = any(each.name == LENGTH for each in model.graph.inputs)
            reason = f"{'an input' if given else 'a value'} has that name already"
            raise Refused(str(self), [Refusal(LENGTH, reason)])
        length = ir.val(LENGTH, dtype=ir.DataType.INT64, shape=[1])
        if inside:
            hold_inside(model, str(self), found, length, self.length)
        for cache in [] if inside else found:
            _hold(model, cache, length, self.length, names)
        model.graph.inputs.append(length)
        return True


def _refuse_unknown(request: str, found: list[Cached]) -> None:
    refusals = [
        Refusal(each.past.name or "", "its shape is not known", INFER_FIRST)
        for each in found
        if each.past.shape is None or each.present.shape is None
    ]
    refusals += [
        Refusal(each.past.name or "", "it is an output too, of tokens that count alone")
        for each in found
        if each.past.is_graph_output()
    ]
    refusals += [_of_other_length(found[0], each) for each in found if _differs(found[0], each)]
    if refusals:
        raise Refused(request, refusals)


def _differs(one: Cached, other: Cached) -> bool:
    """Return whether two caches may be of other lengths, where one number is to tell both.

    Exporters name the same length differently for each input; people do not.
    """
    sizes = [each.size.value for each in (one, other) if isinstance(each.size, ir.SymbolicDim)]
    ranks = {len(each.past.shape or ()) for each in (one, other)}
    said = [size for size in sizes if size is not None and not MADE_UP.fullmatch(size)]
    return len({*sizes}) > 1 and (len(ranks) > 1 or len({*said}) > 1)


def _of_other_length(one: Cached, other: Cached) -> Refusal:
    told = " and ".join(f"{each.past.name} of {each.size}" for each in (one, other))
    return Refusal(other.past.name or "", f"caches are not of one length: {told}")


def _hold(model: ir.Model, cache: Cached, length: ir.Value, size: int, names: Names) -> None:
    """Let a cache be a buffer of a length that stays."""
    past, present, axis = cache.past, cache.present, cache.axis
    assert past.shape is not None
    graph, opsets = model.graph, model.graph.opset_imports
    grows, whole = ir.Shape([*past.shape]), [*past.shape]
    whole[axis] = size
    tape = Tape(names, opsets, f"{past.name}/buffer")
    zero, along = tape.const([0]), tape.const([axis])
    counts = tape.Slice(past, zero, length, along)
    counts.shape = grows
    past.replace_all_uses_with(counts)
    tape.nodes[-1].replace_input_with(0, past)
    past.shape = ir.Shape(whole)
    graph.insert_before(graph[0], tape.nodes)
    register(graph, tape)
    after = Tape(names, opsets, f"{present.name}/buffer")
    held = _held(after, cache, length, size)
    producer = present.producer()
    assert producer is not None
    graph.insert_after(producer, after.nodes)
    register(graph, after)
    _give_out(graph, present, held, names)
    held.shape = ir.Shape(whole)


def _held(tape: Tape, cache: Cached, length: ir.Value, size: int) -> ir.Value:
    """Record a buffer with new tokens behind those that count, written there or put together."""
    past, present, axis, new = cache.past, cache.present, cache.axis, cache.new
    apart = new is not None and new.shape is not None and len(new.shape) == CACHE_RANK
    if apart and tape.opsets.get("", 1) >= SCATTERED:
        batch = tape.Shape(past, start=0, end=1)
        return tape.TensorScatter(past, new, tape.Expand(length, batch), axis=axis)
    last, along = tape.const([size]), tape.const([axis])
    end = tape.Gather(tape.Shape(present), along)
    joined = tape.Concat(present, tape.Slice(past, end, last, along), axis=axis)
    return tape.Reshape(joined, tape.Shape(past))


def _give_out(graph: ir.Graph, old: ir.Value, new: ir.Value, names: Names) -> None:
    """Let another value be an output, under the old one's name."""
    graph.outputs[list(graph.outputs).index(old)] = new
    name = old.name
    old.name = names.value(f"{name}/grown")
    new.name, new.type = name, old.type


def _grow(model: ir.Model, name: str) -> bool:
    """Undo what form=static did, for all buffers or for none."""
    graph = model.graph
    length = next((each for each in graph.inputs if each.name == LENGTH), None)
    users = [] if length is None else [use.node for use in length.uses()]
    places = [each for each in users if each.op_type in PLACED]
    ends = [_written(each) or _buffer(each) for each in users if each not in places]
    whole = [each for each in ends if each is not None]
    if length is None or length.is_graph_output() or not whole or len(whole) < len(ends):
        return False
    writers = {held.producer() for _, _, held in whole}
    if any(each not in writers for place in places for each in _placed(place)):
        return False
    if not may_apply(name, LENGTH):
        return False
    for node, present, held in whole:
        past, counts = node.inputs[0], node.outputs[0]
        assert past is not None
        shape = counts.shape
        graph.outputs[list(graph.outputs).index(held)] = present
        held_name, held.name = held.name, None
        present.name = held_name
        makers = held.producer()
        counts.replace_all_uses_with(past)
        past.shape = shape
        remove_dead([each for each in (makers, node) if each is not None])
    graph.inputs.remove(length)
    return True


def _placed(node: ir.Node) -> list[ir.Node]:
    """Return what is told where to write, by itself or for each sequence."""
    spread = node.op_type == "Expand"
    return [use.node for use in node.outputs[0].uses()] if spread else [node]


def _written(node: ir.Node) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """Return what `_buffer` does, of a buffer that new tokens are written to."""
    past = node.inputs[0] if len(node.inputs) == 4 and _is_zero(node.inputs[1]) else None
    if past is None or not past.is_graph_input() or past.is_graph_output():
        return None
    users = {use.node for use in past.uses()} - {node}
    writers = [each for each in users if each.op_type == "TensorScatter"]
    if len(writers) != 1 or any(not _of_batch(each) for each in users - {*writers}):
        return None
    held, (_, new, places) = writers[0].outputs[0], writers[0].inputs
    spread = made_by(places, "Expand")
    told = (places if spread is None else spread.inputs[0]) is node.inputs[2]
    counts = node.outputs[0]
    grown = [x for use in counts.uses() for x in joined(counts, *use, held=True) if x.new is new]
    alone = told and held.is_graph_output() and not held.uses() and not counts.is_graph_output()
    return (node, grown[0].present, held) if alone and len(grown) == 1 else None


def _of_batch(node: ir.Node) -> bool:
    """Return whether no more than the number of sequences is asked of a buffer's sizes."""
    ends = [node.attributes.get_int(name, at) for name, at in (("start", 0), ("end", CACHE_RANK))]
    return node.op_type == "Shape" and ends == [0, 1]


def _buffer(node: ir.Node) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """Return what a buffer is cut by, the cache that grows, and the output that holds both."""
    past = node.inputs[0] if node.op_type == "Slice" and len(node.inputs) == 4 else None
    if past is None or not past.is_graph_input() or not _is_zero(node.inputs[1]):
        return None
    for use in past.uses():
        rest = use.node
        joins = [each.node for each in rest.outputs[0].uses() if each.node.op_type == "Concat"]
        present = joins[0].inputs[0] if len(joins) == 1 and rest.op_type == "Slice" else None
        if rest is node or present is None or not _measures(rest.inputs[1], present):
            continue
        helds = [each.node for each in joins[0].outputs[0].uses()]
        fits = len(helds) == 1 and helds[0].op_type == "Reshape"
        if fits and _measures(helds[0].inputs[1], past) and helds[0].outputs[0].is_graph_output():
            alone = _only_of([node, rest, joins[0]], helds[0])
            return (node, present, helds[0].outputs[0]) if alone else None
    return None


def _only_of(nodes: list[ir.Node], held: ir.Node) -> bool:
    """Return whether nothing else sees a buffer, of which another size is then seen."""
    cut, rest, _ = nodes
    past, shape = cut.inputs[0], held.inputs[1]
    assert past is not None
    measures = None if shape is None else shape.producer()
    known = {cut, rest} | ({measures} if measures is not None else set())
    inner = [node.outputs[0] for node in nodes] + ([shape] if shape is not None else [])
    private = shape is not None and {use.node for use in shape.uses()} == {held}
    private &= len(rest.outputs[0].uses()) == 1 and {use.node for use in past.uses()} <= known
    return private and not any(each.is_graph_output() for each in (past, *inner))


def _is_zero(value: ir.Value | None) -> bool:
    tensor = constant_of(value)
    return tensor is not None and tensor.size == 1 and not tensor.numpy().any()


def _measures(value: ir.Value | None, of: ir.Value) -> bool:
    """Return whether a value is the shape of another one, or a size in it."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Gather":
        return _measures(node.inputs[0], of)
    return node is not None and node.op_type == "Shape" and node.inputs[0] is of
