"""Wrong rules, planted into the pass simplify one at a time, that bisect has to name; and engines
that fail on a node, for which reduce has to leave little more than that.

python tests/door/bisect_faults.py 60 0
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import onnx_ir as ir

sys.path[:0] = [str(Path(__file__).parents[1] / "run"), str(Path(__file__).parent)]

from layer_faults import EXPORTS, MODELS, Planted, shows  # noqa: E402

import vlmpass  # noqa: E402
from vlmpass.ir_tools.graph.clone import clone  # noqa: E402
from vlmpass.ir_tools.graph.tape import Tape  # noqa: E402
from vlmpass.ir_tools.rewrite import P, Rule, refuse, rule  # noqa: E402
from vlmpass.passes import PassManager, parse, simplify  # noqa: E402

PIPELINE = "infer,simplify,fuse"
NAME = "planted-rule"
Make = Callable[..., ir.Value]
Wrong = Callable[[Tape, Make, list[ir.Value]], ir.Value]

_HALF, _FLOAT, _BRAIN = ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.BFLOAT16
_ANY = ("MatMul", "Add", "Mul", "Softmax", "Transpose", "Reshape", "LayerNormalization", "Gemm")


def _through(op: Tape, value: ir.Value, narrow: ir.DataType) -> ir.Value:
    return op.Cast(op.Cast(value, to=narrow), to=_FLOAT)


def _overflow(op: Tape, make: Make, given: list[ir.Value]) -> ir.Value:
    large = op.Mul(make(*given), op.const(1e6, _FLOAT))
    return op.Mul(_through(op, large, _HALF), op.const(1e-6, _FLOAT))


def _first_row(op: Tape, make: Make, given: list[ir.Value]) -> ir.Value:
    value = make(*given)
    row = op.Slice(value, op.const([0]), op.const([1]), op.const([0]))
    return op.Expand(row, op.Shape(value))


def _nan(op: Tape, make: Make, given: list[ir.Value]) -> ir.Value:
    zero = op.const(0.0, _FLOAT)
    return op.Mul(op.Log(op.Mul(make(*given), zero)), zero)


def _scaled(factor: float) -> Wrong:
    return lambda op, make, given: op.Mul(make(*given), op.const(factor, _FLOAT))


KINDS: dict[str, tuple[tuple[str, ...], Wrong]] = {
    "wrong constant": (
        ("Mul", "Add", "Div"),
        lambda op, make, given: make(given[0], op.Mul(given[1], op.const(1.5, _FLOAT))),
    ),
    "swapped inputs": (("Sub", "Div"), lambda op, make, given: make(*given[::-1])),
    "lost Cast": (_ANY, lambda op, make, given: _through(op, make(*given), _BRAIN)),
    "half overflow": (_ANY, _overflow),
    "transposed weight": (
        ("MatMul",),
        lambda op, make, given: make(given[0], op.Transpose(given[1], perm=[1, 0])),
    ),
    "axis off by one": (
        ("Softmax",),
        lambda op, make, given: op.Softmax(given[0], axis=len(given[0].shape or ()) - 2),
    ),
    "stale attribute": (("LayerNormalization",), lambda op, make, given: make(*given, epsilon=0.5)),
    "NaN mask": (_ANY, _nan),
    "zeroed output": (_ANY, _scaled(0.0)),
    "baked batch": (_ANY, _first_row),
    "dropped bias": (
        ("Add",),
        lambda op, make, given: make(given[0], op.Mul(given[1], op.const(0.0, _FLOAT))),
    ),
    "doubled residual": (("Add",), lambda op, make, given: make(given[0], given[0])),
    "sign flipped": (_ANY, _scaled(-1.0)),
    "another activation": (("Sigmoid", "Erf"), lambda op, make, given: op.Tanh(*given)),
    "lost activation": (("Sigmoid", "Erf", "Softmax"), lambda op, make, given: op.Identity(*given)),
    "wrong scale": (_ANY, _scaled(0.9)),
    "shifted": (
        _ANY,
        lambda op, make, given: op.Add(make(*given), op.const(0.05, _FLOAT)),
    ),
    "rounded": (_ANY, lambda op, make, given: op.Round(make(*given))),
}


def wrong_rule(operators: tuple[str, ...], chosen: str, wrong: Wrong, seen: list[str]) -> Rule:
    """Return a rule that makes one node something else.

    Args:
        operators: What it looks at.
        chosen: Name of the one node that it takes.
        wrong: What it makes of that.
        seen: Gets the names of the nodes that it might have taken.
    """

    def planted_rule(op: Tape, node: ir.Node):
        """x -> something else."""
        given = [value for value in node.inputs if value is not None]
        if node.outputs[0].dtype != _FLOAT or len(given) != len(node.inputs):
            return refuse("{} is of another type", node)
        seen.append(str(node.outputs[0].name))
        if node.outputs[0].name != chosen:
            return refuse("{} is not the one", node)

        def make(*operands: ir.Value, **changed: object) -> ir.Value:
            attributes = {**node.attributes, **changed}
            return op.node(node.op_type, operands, attributes)[0]

        return wrong(op, make, given)

    either = getattr(P, operators[0])
    for name in operators[1:]:
        either = either | getattr(P, name)
    return rule(either(..., _node="node"))(planted_rule)


@dataclass
class Fault:
    """A wrong rule, and the model on which it shows."""

    kind: str
    model: str
    rule: Rule


def planted(found: Rule):
    """Let the pass simplify have a rule more."""
    return mock.patch.object(simplify, "SIMPLIFY", simplify.SIMPLIFY + found)


def _run(source: ir.Model, found: Rule) -> ir.Model:
    model = clone(source)
    with planted(found):
        PassManager(parse(PIPELINE)).run(model, in_place=True)
    return model


def faults(number: int, seed: int) -> Iterator[Fault]:
    """Yield wrong rules that show, each kind in turn, on a model drawn by chance."""
    count = 0
    for index, kind in enumerate(itertools.cycle(KINDS)):
        if count == number:
            return
        draw = random.Random(f"{seed}-{index}")
        operators, wrong = KINDS[kind]
        for _ in range(12):
            name = draw.choice(MODELS)
            source, seen = vlmpass.load(EXPORTS / name), []
            _run(source, wrong_rule(operators, "", wrong, seen))
            if not seen:
                continue
            found = wrong_rule(operators, draw.choice(seen), wrong, [])
            try:
                made = _run(source, found)
            except vlmpass.VlmpassError:  # it does not fit this node
                continue
            if shows(Planted(kind, source, made, "")):
                count += 1
                yield Fault(kind, name, found)
                break


def main(number: int, seed: int) -> int:
    """Plant many; print what is missed."""
    total = named = 0
    for fault in faults(number, seed):
        with planted(fault.rule):
            found = vlmpass.bisect(EXPORTS / fault.model, PIPELINE)
        total, right = total + 1, found.rule == NAME and bool(found.before and found.after)
        named += right
        if not right:
            print(f"{fault.kind} in {fault.model}: {found.rule or found.why}", flush=True)
    print(f"{total} wrong rules: bisect names {named}", flush=True)
    from test_door_reduce import engines

    from vlmpass.ir_tools.parts.reduction import Reducer

    left = []
    for model, fails in engines(number, seed):
        small = Reducer(model, fails).run().model
        assert fails(small)
        left.append(sum(node.op_type != "ConstantOfShape" for node in small.graph))
    few = sum(each <= 3 for each in left)
    print(f"{len(left)} engines: reduce leaves 3 nodes at most for {few}, {max(left)} at most")
    return 0 if named == total and few >= 0.9 * len(left) else 1


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
