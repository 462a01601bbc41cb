"""What is proven about values: sizes of axes, and elements of the small integer tensors.

Only the graph's inputs and the operators' definitions are believed. Shapes that a model declares
between them are not: exporters write the traced sizes there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of, is_constant
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import Scope, holds_graphs, subgraphs
from vlmpass.ir_tools.operators.result_types import result_type
from vlmpass.ir_tools.operators.schema import is_legacy
from vlmpass.ir_tools.shapes.algebra import Algebra, Dim, product
from vlmpass.ir_tools.shapes.cache import Alike
from vlmpass.ir_tools.shapes.call import Call, Rule
from vlmpass.ir_tools.shapes.known import MOST_ELEMENTS, UNKNOWN, Known

__all__ = ["Facts", "visit_scope"]

_OTHERS: Sequence[None] = [None]
"""In the place of the inputs that a node had when it was visited, if it has others now."""
_TRACKED = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


class Facts:
    """Everything proven so far; nodes are visited in topological order.

    Args:
        ir_version: Of the model: before 4 an initializer that is an input is a constant too.
        rules: What an operator says about its outputs, by domain and operator.
        functions: Functions of the model, which are looked into at every call.
        outer: What is known around the call whose function's body this is about, if it is.

    Attributes:
        bodies: What is known in functions' bodies, one for all calls that are alike.
        parameters: The shapes of tensors that the call gives the function as attributes, by name.
    """

    def __init__(
        self,
        ir_version: int,
        rules: Mapping[tuple[str, str], Rule],
        functions: Mapping[ir.OperatorIdentifier, ir.Function],
        outer: Facts | None = None,
    ) -> None:
        self.algebra: Algebra = Algebra() if outer is None else outer.algebra
        self._functions = functions
        self._ir_version = ir_version
        self._rules = rules
        self._known: dict[ir.Value, Known] = {}
        self._dtypes: dict[ir.Value, ir.DataType | None] = {}
        self._declared: dict[tuple[ir.Value, int], Dim] = {}
        self._visited: dict[ir.Node, Sequence[ir.Value | None]] = {}
        self._moved: set[ir.Value | None] = set()
        self._alike = Alike()
        self.bodies: dict[Hashable, Facts] = {} if outer is None else outer.bodies
        self.parameters: dict[str, Known] = {}

    def __getitem__(self, value: ir.Value | None) -> Known:
        """Return what is known about a value."""
        if value is None:
            return UNKNOWN
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._alike.canonical(self._of_root(value))
        return known

    def __setitem__(self, value: ir.Value, known: Known) -> None:
        self._known[value] = known

    def _of_root(self, value: ir.Value) -> Known:
        tensor = constant_of(value, self._ir_version)
        if tensor is not None:
            return self.of_tensor(tensor)
        return UNKNOWN

    @staticmethod
    def of_tensor(tensor: ir.TensorProtocol) -> Known:
        """Return what a constant says; its bytes are read only if it is a small integer tensor."""
        shape = tuple(int(dim) for dim in tensor.shape.numpy())
        if tensor.dtype not in _TRACKED or tensor.size > MOST_ELEMENTS:
            return Known(shape)
        numbers = np.asarray(tensor.numpy()).ravel().tolist()
        return Known(shape, tuple(int(number) for number in numbers))

    @staticmethod
    def of_sizes(sizes: Sequence[Dim]) -> Known:
        """Return what is known about a vector of sizes."""
        return Known((len(sizes),), tuple(sizes))

    def declare(self, value: ir.Value, axis: int, dim: Dim) -> None:
        """Say what the size of an input's axis is; to be called before the graph is entered.

        Args:
            value: An input of the graph.
            axis: Which of its axes, counted from the front.
            dim: The size.
        """
        self._declared[value, axis] = dim

    def enter(self, graph: ir.Graph, owner: bool) -> None:
        """Take note of a graph's inputs: those of the main graph have the declared sizes.

        Args:
            graph: The graph about to be visited.
            owner: Whether it is the model's main graph, whose inputs the runtime checks.
        """
        for value in graph.inputs:
            if is_constant(value, self._ir_version):
                continue
            if not owner or value.shape is None:
                self._known[value] = UNKNOWN
                continue
            dims = [
                dim if isinstance(dim, int) else self._input_axis(value, axis)
                for axis, dim in enumerate(value.shape)
            ]
            self._known[value] = Known(tuple(dims))

    def _input_axis(self, value: ir.Value, axis: int) -> Dim:
        declared = self._declared.get((value, axis))
        return self.algebra.axis(value, axis) if declared is None else declared

    def forget(self, nodes: Container[ir.Node], values: Container[ir.Value]) -> None:
        """Forget all that is not about some nodes and values: those that are still in the model."""
        self._visited = {
            node: seen if seen is node.inputs else _OTHERS
            for node, seen in self._visited.items()
            if node in nodes
        }
        self._known = {value: held for value, held in self._known.items() if value in values}
        self._dtypes = {value: held for value, held in self._dtypes.items() if value in values}
        self._moved = {value for value in self._moved if value in values}

    def visit(self, node: ir.Node, opsets: Mapping[str, int], *, anew: bool = False) -> None:
        """Find out what holds for a node's outputs; its subgraphs must have been visited.

        A node visited before is visited again only if it has other inputs now, or an input of which
        something else is known since.

        Args:
            node: The node.
            opsets: Imported opset version by domain.
            anew: Whether to visit it in any case, as one with subgraphs must be.
        """
        inputs, seen = node.inputs, self._visited.get(node)
        if seen is None:
            self._visited[node] = inputs
            self._find(node, opsets)
            return
        if seen is inputs and not anew and self._moved.isdisjoint(inputs):
            return
        before = [self._known.get(value) for value in node.outputs]
        self._visited[node] = inputs
        self._find(node, opsets)
        for value, old in zip(node.outputs, before, strict=True):
            if self._known.get(value) != old:
                self._moved.add(value)

    def _find(self, node: ir.Node, opsets: Mapping[str, int]) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if self._functions:
            function = self._functions.get(node.op_identifier())
            if function is not None:
                self._call(node, function)
                return
        rule = self._rules.get((domain, node.op_type))
        if rule is None:
            self._ask_library(node, opsets)
            return
        opset = opsets.get(domain, 1)
        if not domain and is_legacy(node.op_type, opset):
            return  # the rules are written for later versions
        known = self._known
        inputs = [None if x is None else known.get(x) or self[x] for x in node.inputs]
        key = self._alike.key(node, opset, inputs)
        answer = None if key is None else self._alike.find(key)
        if answer is None:
            self._alike.own = False
            answer = self._answer(rule, Call(self, node, opset))
            if key is not None and not self._alike.own and self._speaks_for_all(answer, node):
                self._alike.remember(key, inputs, answer)
        known.update(zip(node.outputs, answer, strict=False))

    def _answer(self, rule: Rule, call: Call) -> tuple[Known, ...]:
        try:
            found = rule(call)
        except (ArithmeticError, IndexError, ValueError, KeyError, TypeError):
            return ()  # an attribute that the caller gives, or a misfit for the checker to report
        knowns = (found,) if isinstance(found, Known) else found
        checked = map(self._checked, call.node.outputs, knowns)
        return tuple(self._alike.canonical(known) for known in checked)

    def _speaks_for_all(self, answer: Sequence[Known], node: ir.Node) -> bool:
        """Whether an answer names no size or element of the node's own outputs."""
        own = {atom for value in node.outputs for atom in self.algebra.atoms_of(value)}
        if not own:
            return True
        dims = {dim for known in answer for part in known if part for dim in part}
        return all(own.isdisjoint(self.algebra.atoms_in(dim)) for dim in dims)

    def _call(self, node: ir.Node, function: ir.Function) -> None:
        """Follow a call through the function's body; what only the body knows stays in it."""
        inner = self.body(node, function)
        for value, result in zip(node.outputs, function.outputs, strict=False):
            known = inner[result]
            if known.shape is None:
                continue
            shape = tuple(
                self.algebra.axis(value, axis) if inner.made(dim) else dim
                for axis, dim in enumerate(known.shape)
            )
            items = known.elements
            self._known[value] = Known(shape, None if any(map(inner.made, items or ())) else items)

    def body(self, node: ir.Node, function: ir.Function) -> Facts:
        """Return what holds in a function's body for a call, its nodes visited.

        Calls with arguments of which the same is known share it, so that no body is visited more
        often than there are differences.
        """
        given = tuple(self[actual] for actual in node.inputs)
        tensors = tuple(self._tensors(node, function)) if function.attributes else ()
        key = (function, given, tensors)
        inner = self.bodies.get(key)
        if inner is None:
            inner = Facts(self._ir_version, self._rules, self._functions, self)
            self.bodies[key] = inner
            inner.parameters.update(tensors)
            inner._known.update(zip(function.inputs, given, strict=False))
        if any(result not in inner._known for result in function.outputs):
            visit_scope(inner, Scope(function, function, 0), lambda node, scope: None)
        return inner

    def _tensors(self, node: ir.Node, function: ir.Function) -> Iterator[tuple[str, Known]]:
        """Yield the shapes of the tensors among the attributes of a call."""
        for name, default in function.attributes.items():
            given = node.attributes.get(name, default)
            if given.ref_attr_name in self.parameters:
                yield name, self.parameters[given.ref_attr_name]
            elif given.type == ir.AttributeType.TENSOR and given.value is not None:
                yield name, Known(tuple(int(dim) for dim in given.as_tensor().shape.numpy()))

    def made(self, dim: Dim) -> bool:
        """Whether an expression depends on a value that a node visited here has made."""
        values = (self.algebra.atoms[serial].value for serial in self.algebra.atoms_in(dim))
        return any(value in self._known and value.producer() for value in values if value)

    def _ask_library(self, node: ir.Node, opsets: Mapping[str, int]) -> None:
        """Take over static output shapes that follow from static input shapes.

        The library guesses where sizes are symbolic ("assume compatible"), so it is asked only
        where nothing is.
        """
        if node.domain not in ("", "com.microsoft") or holds_graphs(node):
            return
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return
        copies: list[ir.Value | None] = []
        for value in node.inputs:
            static = self[value].static
            if value is not None and static is None:
                return
            tensor = None if value is None else constant_of(value, self._ir_version)
            copies.append(
                None
                if value is None
                else ir.Value(type=value.type, shape=ir.Shape(static or ()), const_value=tensor)
            )
        attributes = list(node.attributes.values())
        count = len(node.outputs)
        copy = ir.Node(node.domain, node.op_type, copies, attributes, num_outputs=count)
        infer_node(copy, opsets)
        for value, found in zip(node.outputs, copy.outputs, strict=True):
            if found.shape is not None and found.shape.is_static():
                self._known[value] = Known(tuple(found.shape.numpy()))

    def _checked(self, value: ir.Value, known: Known) -> Known:
        """Drop elements that are too many, too long, or do not fit int64, and what is no size."""
        if known.shape is not None and not all(map(self._is_size, known.shape)):
            shape = [
                dim if self._is_size(dim) else self.algebra.axis(value, axis)
                for axis, dim in enumerate(known.shape)
            ]
            known = Known(tuple(shape), known.elements)
        items = known.elements
        if items is None:
            return known
        static = known.static
        whole = static is not None and math.prod(static) == len(items) <= MOST_ELEMENTS
        fits = whole and all(
            self._fits(item, value) if isinstance(item, int) else self.algebra.countable(item)
            for item in items
        )
        return known if fits else Known(known.shape)

    def _is_size(self, dim: Dim) -> bool:
        return 0 <= dim < 2**63 if isinstance(dim, int) else self.algebra.small(dim)

    def _fits(self, item: int, value: ir.Value) -> bool:
        if -(2**31) <= item < 2**31:
            return True
        return -(2**63) <= item < 2**63 and self.dtype(value) != ir.DataType.INT32

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the element type of a value, read off its producer where it is not declared."""
        self._alike.own = True
        if value.dtype is not None:
            return value.dtype
        if value not in self._dtypes:
            node = value.producer()
            plain = node is not None and node.domain in ("", "ai.onnx")
            self._dtypes[value] = (
                self._made_type(node, value) if node is not None and plain else None
            )
        return self._dtypes[value]

    def _made_type(self, node: ir.Node, value: ir.Value) -> ir.DataType | None:
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return None
        if node.op_type == "Cast":
            return ir.DataType(node.attributes.get_int("to", 0))
        if node.op_type == "ConstantOfShape":
            fill = node.attributes.get_tensor("value")
            return ir.DataType.FLOAT if fill is None else fill.dtype
        made = result_type(node.op_type, value.index() or 0)
        if made.operand is None or made.operand >= len(node.inputs):
            return made.fixed
        source = node.inputs[made.operand]
        return None if source is None else self.dtype(source)

    def elements(self, value: ir.Value | None) -> tuple[Dim, ...] | None:
        """Return the elements of a small int64 tensor, unknown ones as atoms of their own."""
        known = self[value]
        if known.elements is not None or value is None or self.dtype(value) != ir.DataType.INT64:
            return known.elements
        static = known.static
        if static is None or len(static) > 1 or (count := product(static)) == 0:
            return None
        if not isinstance(count, int) or count > 8:
            return None
        items = tuple(self.algebra.element(value, index) for index in range(count))
        self._known[value] = Known(known.shape, items)
        return items


def visit_scope(
    facts: Facts,
    scope: Scope,
    each: Callable[[ir.Node, Scope], None],
    enter: Callable[[Scope], None] | None = None,
    prepare: Callable[[ir.Node, Scope], None] | None = None,
) -> None:
    """Visit a graph and its subgraphs, every node after its producers and its own subgraphs.

    Args:
        facts: Filled in on the way.
        scope: The graph or function to visit.
        each: Called after the facts of a node are known; it may change nodes already visited and
            the node itself, as long as the facts of the visited values stay right.
        enter: Called for a graph or function before its nodes.
        prepare: Called before the facts of a node are found; it may change the node's inputs and
            put visited nodes before it.
    """
    if isinstance(scope.graph, ir.Graph):
        facts.enter(scope.graph, owner=scope.depth == 0 and not scope.in_function)
    if enter is not None:
        enter(scope)
    opsets = scope.opsets
    for node in scope.graph:
        nested = holds_graphs(node)
        if nested:
            for graph in subgraphs(node):
                visit_scope(facts, Scope(graph, scope.owner, scope.depth + 1), each, enter, prepare)
        if prepare is not None:
            prepare(node, scope)
        facts.visit(node, opsets, anew=nested)
        each(node, scope)
