"""Arguments for operators of sequences, optionals and graphs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper

from .recipes import Attributes, Dice, Spec, i64, recipe


@recipe("Optional", "OptionalHasElement")
def optional(d: Dice, v: int, name: str) -> Spec:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    kind = kind.optional_type.elem_type
    return Spec(name, v, [d(2)], {"type": kind} if name == "Optional" else {})


@recipe("SequenceErase", "SequenceInsert")
def sequence(d: Dice, v: int, name: str) -> Spec:
    inputs = [d(2), np.array(d.one(0, -1), np.int64)]
    if name == "SequenceInsert":
        inputs.insert(1, d(2))
    return Spec(name, v, inputs, sequences=(0,))


@recipe("SplitToSequence")
def split_to_sequence(d: Dice, v: int, name: str) -> Spec:
    sizes = d.one(i64(1, 2), np.array(2, np.int64))
    return Spec(name, v, [d(3, 4), sizes], d.some(keepdims=0))


@recipe("Loop")
def loop(d: Dice, v: int, name: str) -> Spec:
    text = (
        "b (int64 i, bool c, float[2,3] s) => (bool d, float[2,3] t, float[2,3] u)"
        " { f = Cast<to = 1>(i) k = Constant<value = float {1.5}>() d = Less(f, k)"
        " t = Add(s, s) u = Mul(s, t) }"
    )
    inputs = [np.array(3, np.int64), np.array(True), d(2, 3)]
    return Spec(name, v, inputs, {"body": onnx.parser.parse_graph(text)}, 2)


@recipe("Scan")
def scan(d: Dice, v: int, name: str) -> Spec:
    text = "b (float[3] s, float[3] x) => (float[3] t, float[3] u) { t = Add(s, x) u = Mul(s, x) }"
    attributes: Attributes = {"body": onnx.parser.parse_graph(text), "num_scan_inputs": 1}
    if v == 8:
        inputs = [i64(4, 2), d(2, 3), d(2, 4, 3)]
        return Spec(name, v, inputs, attributes, 2)
    return Spec(name, v, [d(3), d(4, 3)], attributes, 2)


@recipe("SequenceMap")
def sequence_map(d: Dice, v: int, name: str) -> Spec:
    text = "b (float[2] s, float[2] x) => (float[2] t, float[2] u) { t = Add(s, x) u = Mul(s, x) }"
    return Spec(name, v, [d(2), d(2)], {"body": onnx.parser.parse_graph(text)}, 2, sequences=(0,))


@recipe("If")
def if_(d: Dice, v: int, name: str) -> Spec:
    text = "b () => (float[2] p, float[1] q) { p = Constant<value_floats = [1.0, 2.0]>()"
    text += " q = Constant<value_floats = [3.0]>() }"
    other = text.replace("p", "r").replace("q", "s").replace("1.0", "7.0")
    if v < 12:
        return _old_if(d, v, name)
    branches = {"then_branch": onnx.parser.parse_graph(text)}
    branches["else_branch"] = onnx.parser.parse_graph(other)
    return Spec(name, v, [np.array(d.maybe())], dict(branches), 2)


def _old_if(d: Dice, v: int, name: str) -> Spec:
    def branch(first: str, second: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Constant", [], [out], value=helper.make_tensor("", 1, [n], [1.0] * n))
            for out, n in ((first, 2), (second, 1))
        ]
        sizes = ((first, 2), (second, 1))
        outputs = [helper.make_tensor_value_info(out, 1, [n]) for out, n in sizes]
        return helper.make_graph(nodes, "b", [], outputs)

    attributes: Attributes = {"then_branch": branch("p", "q"), "else_branch": branch("r", "s")}
    return Spec(name, v, [np.array(d.maybe())], attributes, 2)
