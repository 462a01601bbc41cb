"""Caches that GroupQueryAttention writes to in their place: form=gqa of the pass cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import remove_dead
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.rewrite import Declined
from vlmpass.passes.relayout.cached import LENGTH, OPERATORS, Cached, caches, register
from vlmpass.rewriter_rules.fuse.attention.grouped_caches import grouped_cache
from vlmpass.rewriter_rules.fuse.attention.steps_back import integers, made_by
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["INSIDE", "grow_inside", "hold_inside"]

GROUPED = ("com.microsoft", "GroupQueryAttention")
INSIDE = {**OPERATORS, GROUPED: {3: 1, 4: 2}}
"""Operators that take a cache in, with what they make of which input, GroupQueryAttention too."""
TAKEN = {("", "Attention"), GROUPED}
"""Those that are it, or become it."""
TOKENS = 2
"""The axis of tokens in a cache, [batch, heads, tokens, size]."""
QUERY, TOTAL = 0, 6
"""The operator's inputs for queries, as many as new keys, and for how many keys there are then."""
FUSE_FIRST = "run infer,simplify,convert-opset{to=23},fuse before it"


def hold_inside(
    model: ir.Model, request: str, found: Sequence[Cached], length: ir.Value, size: int
) -> None:
    """Let caches be buffers that GroupQueryAttention writes to.

    Args:
        model: Changed in place.
        request: What was asked for, for refusals.
        found: Its caches that grow.
        length: How many tokens of the buffers count: a new input.
        size: How many they hold.

    Raises:
        Refused: Something else takes a cache, or attention says more than the operator can.
    """
    pasts = {each.past for each in found}
    refusals = [refusal for each in found for refusal in _kept(each, pasts)]
    if refusals:
        raise Refused(request, refusals)
    names = Names.of(model)
    _group(model, request, found, names)
    inside = [each for each in caches(model.graph, INSIDE) if each.past in pasts]
    for cache in inside:
        _buffer(model, cache, length, size, names)
    _guard(model, inside[0], size, names)


def _kept(cache: Cached, pasts: Collection[ir.Value]) -> Iterator[Refusal]:
    """Yield why a cache cannot be what the operator writes to, as far as its users tell."""
    node = cache.joins
    both = [node.inputs[at] for at in INSIDE.get((node.domain, node.op_type), ())]
    apart = next((each for each in both if each is not None and each not in pasts), None)
    if apart is not None:
        reason = f"keys and values are buffers together, and '{apart.name}' is no such input"
        yield Refusal(cache.past.name or "", reason)
    users = [(use.node.domain, use.node.op_type) for use in cache.past.uses()]
    if sum(user in TAKEN for user in users) != 1:
        other = next((name for domain, name in users if (domain, name) not in TAKEN), "nothing")
        yield Refusal(cache.past.name or "", f"{other} takes it, no attention", FUSE_FIRST)


def _group(model: ir.Model, request: str, found: Sequence[Cached], names: Names) -> None:
    """Let GroupQueryAttention be in the place of the standard's operator."""
    tapes, refusals = [], []
    nodes = [use.node for each in found for use in each.past.uses() if not use.node.domain]
    for node in dict.fromkeys(each for each in nodes if each.op_type == "Attention"):
        tape = Tape(names, model.graph.opset_imports, node.name or "", emits=[GROUPED[0]])
        made = grouped_cache(tape, node)
        if isinstance(made, Declined):
            refusals.append(Refusal(node.name or node.op_type, str(made)))
            tape.discard()
        else:
            tapes.append((tape, node, made))
    for tape, node, made in tapes:
        if refusals:
            tape.discard()
        else:
            pairs = zip(node.outputs, made, strict=False)
            splice(tape, [node], [*pairs], in_function=False)
            model.graph.opset_imports.setdefault(GROUPED[0], 1)
    if refusals:
        raise Refused(request, refusals)


def _buffer(model: ir.Model, cache: Cached, length: ir.Value, size: int, names: Names) -> None:
    """Let a cache have a length that stays; who asks for its sizes is told those that count."""
    past = cache.past
    assert past.shape is not None
    for value in (past, cache.present):
        _tell_all(model, value, past, length, names)
    for value in (past, cache.present):
        sizes = [*(value.shape or past.shape)]
        value.shape = ir.Shape([*sizes[:TOKENS], size, *sizes[TOKENS + 1 :]])


def _tell_all(
    model: ir.Model, value: ir.Value, past: ir.Value, length: ir.Value, names: Names
) -> None:
    """Tell who asks for the sizes of a buffer those that count, and give others what counts."""
    graph, opsets, operator = model.graph, model.graph.opset_imports, _operator(past)
    users = [use.node for use in value.uses() if use.node is not operator]
    for node in users if all(node.op_type == "Shape" for node in users) else []:
        tape = Tape(names, opsets, node.name or f"{value.name}/Shape")
        _tell(tape, node, length if value is past else _all(tape, past, length))
    if all(node.op_type == "Shape" for node in users):
        return
    tape = Tape(names, opsets, f"{value.name}/counted")
    end = length if value is past else _all(tape, past, length)
    counted = tape.Slice(value, tape.const([0]), end, tape.const([TOKENS]))
    counted.shape = value.shape
    for use in list(value.uses()):
        if use.node is not operator and use.node is not counted.producer():
            use.node.replace_input_with(use.idx, counted)
    place = graph[0] if operator is None or value is past else operator
    insert = graph.insert_before if value is past else graph.insert_after
    insert(place, tape.nodes)
    register(graph, tape)


def _all(tape: Tape, past: ir.Value, length: ir.Value) -> ir.Value:
    """Record how many tokens count with the new ones, which have not been parted by heads."""
    node = _operator(past)
    assert node is not None
    return tape.Add(length, tape.Gather(tape.Shape(node.inputs[QUERY]), tape.const([1])))


def _tell(tape: Tape, node: ir.Node, counted: ir.Value) -> None:
    """Let what counts of a buffer be in its sizes."""
    (buffer,), (shape,), graph = node.inputs, node.outputs, node.graph
    assert buffer is not None
    assert isinstance(graph, ir.Graph)
    if _picked(shape):
        graph.insert_before(node, tape.nodes)
        register(graph, tape)
        for use in list(shape.uses()):
            use.node.outputs[0].replace_all_uses_with(counted)
            remove_dead([use.node])
        return
    bounds = [node.attributes.get_int(name, at) for name, at in (("start", 0), ("end", 4))]
    whole = tape.Shape(buffer)
    parts = [tape.Gather(whole, tape.const([0, 1])), counted, tape.Gather(whole, tape.const([3]))]
    sizes = tape.Concat(*parts, axis=0)
    if bounds != [0, 4]:
        sizes = tape.Slice(sizes, *(tape.const([each]) for each in bounds))
    splice(tape, [node], [(shape, sizes)], in_function=False)


def _picked(shape: ir.Value) -> bool:
    """Return whether only the number of tokens is taken of the whole shape of a cache."""
    users = [use.node for use in shape.uses()]
    whole = shape.producer()
    given = None if whole is None else {*whole.attributes}
    return not given and bool(users) and all(_takes_tokens(node) for node in users)


def _takes_tokens(node: ir.Node) -> bool:
    at = node.inputs[1] if node.op_type == "Gather" else None
    one = integers(at) in ([TOKENS], [TOKENS - 4]) and at is not None and rank(at) == 1
    return one and not node.outputs[0].is_graph_output()


def _guard(model: ir.Model, cache: Cached, size: int, names: Names) -> None:
    """Let more tokens than a buffer holds be an error, a place in a table that it does not have."""
    node = _operator(cache.past)
    total = None if node is None else node.inputs[TOTAL]
    assert node is not None
    assert total is not None
    tape = Tape(names, model.graph.opset_imports, f"{cache.past.name}/buffer")
    most = tape.const(size, ir.DataType.INT32)
    beyond = tape.Cast(tape.Greater(total, most), to=ir.DataType.INT64)
    none = tape.Gather(tape.const([0], ir.DataType.INT32), beyond)
    node.replace_input_with(TOTAL, tape.Add(total, none))
    model.graph.insert_before(node, tape.nodes)
    register(model.graph, tape)


def _operator(past: ir.Value) -> ir.Node | None:
    """Return the operator that takes a cache in."""
    found = {use.node for use in past.uses() if (use.node.domain, use.node.op_type) == GROUPED}
    return found.pop() if len(found) == 1 else None


def grow_inside(model: ir.Model, name: str) -> bool:
    """Undo what `hold_inside` did.

    Args:
        model: Changed in place.
        name: Of the pass.

    Returns:
        Whether there was anything to undo.
    """
    graph = model.graph
    length = next((each for each in graph.inputs if each.name == LENGTH), None)
    inside = caches(graph, {GROUPED: INSIDE[GROUPED]})
    held = [each for each in inside if isinstance(each.size, int)]
    guards = {each: found for each in held if (found := _guarded(each)) is not None}
    if length is None or length.is_graph_output() or not guards or not may_apply(name, LENGTH):
        return False
    for node, total in guards.values():
        guard = made_by(node.inputs[TOTAL], "Add")
        node.replace_input_with(TOTAL, total)
        remove_dead([guard] if guard is not None else [])
    tape = Tape(Names.of(model), graph.opset_imports, f"{LENGTH}/grown")
    own = next(iter(guards))  # others may be buffers of their own, of another length
    counted = tape.Gather(tape.Shape(own.past), tape.const([TOKENS]))
    length.replace_all_uses_with(counted)
    graph.insert_before(graph[0], tape.nodes)
    register(graph, tape)
    graph.inputs.remove(length)
    for cache in [each for each in held if each.size == own.size]:
        _grown(graph, cache)
    return True


def _grown(graph: ir.Graph, cache: Cached) -> None:
    """Let a cache be of as many tokens as there are."""
    shapes = [each.shape for each in graph.inputs if each.shape is not None]
    taken = {str(size) for shape in shapes for size in shape}
    for value, name in ((cache.past, LENGTH), (cache.present, "all_length")):
        assert value.shape is not None
        size = ir.SymbolicDim(None if name in taken else name)
        value.shape = ir.Shape([*value.shape[:TOKENS], size, *value.shape[TOKENS + 1 :]])


def _guarded(cache: Cached) -> tuple[ir.Node, ir.Value] | None:
    """Return the operator of a cache and how many keys it is told, if there is an error beyond."""
    node = _operator(cache.past)
    adds = None if node is None else made_by(node.inputs[TOTAL], "Add")
    total, none = (None, None) if adds is None else adds.inputs
    beyond = _source(_source(none, "Gather", 1), "Cast", 0)
    greater = made_by(beyond, "Greater")
    same = greater is not None and greater.inputs[0] is total
    held = same and greater is not None and integers(greater.inputs[1]) == [cache.size]
    return (node, total) if held and node is not None and total is not None else None


def _source(value: ir.Value | None, op_type: str, at: int) -> ir.Value | None:
    node = made_by(value, op_type)
    return None if node is None else node.inputs[at]
