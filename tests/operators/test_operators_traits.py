"""Every operator has traits, and what they claim is so: held to the definitions by running it."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import vlmpass.ir_tools.operators
from vlmpass.ir_tools.operators import Kind, Traits, complete, named, traits_of
from vlmpass.ir_tools.operators.traits import _table

from .definitions import Case, cases, claims, commutative

UNTRIED = {
    "MaxRoiPool", "RandomNormalLike", "RandomUniformLike", "SimplifiedLayerNormalization",
}  # fmt: skip
"""What claims something and onnx has no node test of; the last one is ONNX Runtime's."""
NOT_DRAWN_THOUGH_ONNX_SAYS_SO = {
    "AffineGrid", "CausalConvWithState", "DepthToSpace", "LinearAttention", "SpaceToDepth",
}  # fmt: skip
CONTRIB = Path(vlmpass.ir_tools.operators.__file__).with_name("contrib.txt")
WHOLE = {"tensor(bool)"} | {
    f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def known_operators() -> set[tuple[str, str]]:
    standard = {(each.domain, each.name) for each in onnx.defs.get_all_schemas_with_history()}
    lines = [line for line in CONTRIB.read_text().splitlines() if not line.startswith("#")]
    contrib = {tuple(line.split("|")[0].strip().split("::")) for line in lines}
    return standard | {(domain, name) for domain, name in contrib}


def test_operators_are_all_described_and_no_others() -> None:
    assert set(_table()) == known_operators()


def test_operators_are_told_to_be_complete_for_what_is_installed() -> None:
    assert complete()


def test_operators_control_flow_is_what_holds_graphs() -> None:
    graphs = {
        each.name
        for each in onnx.defs.get_all_schemas_with_history()
        if not each.domain
        and any(a.type == onnx.defs.OpSchema.AttrType.GRAPH for a in each.attributes.values())
    }
    assert named(Kind.CONTROL) == graphs


def test_operators_drawn_at_random_are_what_onnx_says() -> None:
    drawn = {
        each.name
        for each in onnx.defs.get_all_schemas_with_history()
        if not each.domain and each.non_deterministic
    }
    assert drawn == named(Kind.RANDOM, Kind.CONTROL) | NOT_DRAWN_THOUGH_ONNX_SAYS_SO


@pytest.mark.parametrize("schema", onnx.defs.get_all_schemas(), ids=lambda schema: schema.name)
def test_operators_sizes_are_whole_numbers(schema: onnx.defs.OpSchema) -> None:
    traits = traits_of(schema.domain, schema.name)
    assert traits is not None
    for index in traits.sizes:
        kinds = set(schema.inputs[min(index, len(schema.inputs) - 1)].types)
        assert kinds <= WHOLE, (schema.name, index, kinds)


@cache
def by_operator() -> dict[tuple[str, str], list[Case]]:
    found: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases():
        found[case.identifier].append(case)
    return found


def broken(identifier: tuple[str, str], traits: Traits) -> list[str]:
    """What an operator does that its traits deny, over all its cases."""
    rng = np.random.default_rng(0)
    reasons = []
    for case in by_operator()[identifier]:
        for check in claims(traits):
            reason = check(case, rng)
            if reason is not None:
                reasons.append(f"{case.name}: {reason}")
    return reasons


@pytest.mark.parametrize("identifier", sorted(by_operator()), ids="{0[0]}{0[1]}".format)
def test_operators_hold_to_what_they_claim(identifier: tuple[str, str]) -> None:
    traits = traits_of(*identifier)
    assert traits is not None
    assert broken(identifier, traits) == []


def test_operators_whose_claims_nothing_tries_are_few() -> None:
    claiming = {each for each, traits in _table().items() if not each[0] and any(claims(traits))}
    assert {name for _, name in claiming - set(by_operator())} == UNTRIED


def test_operators_that_commute_all_say_so() -> None:
    rng = np.random.default_rng(0)
    silent = []
    for (domain, name), found in by_operator().items():
        traits = traits_of(domain, name)
        pairs = [
            case
            for case in found
            if len(case.operands) == 2
            and None not in [x is None or None for x in case.operands]
            and case.operands[0].shape == case.operands[1].shape
            and case.operands[0].dtype == case.operands[1].dtype
        ]
        if traits.kind is Kind.ELEMENTWISE and pairs and not traits.commutative:
            silent += [name] if all(commutative(case, rng) is None for case in pairs) else []
    assert silent == []


FAULTS = [
    ("Sub", Traits(Kind.ELEMENTWISE, commutative=True)),
    ("Div", Traits(Kind.ELEMENTWISE, commutative=True)),
    ("Pow", Traits(Kind.ELEMENTWISE, commutative=True)),
    ("Less", Traits(Kind.ELEMENTWISE, commutative=True)),
    ("Mod", Traits(Kind.ELEMENTWISE, commutative=True)),
    ("Sub", Traits(Kind.ELEMENTWISE, associative=True)),
    ("Mean", Traits(Kind.ELEMENTWISE, associative=True)),
    ("Sum", Traits(Kind.ELEMENTWISE, selects=True)),
    ("Relu", Traits(Kind.ELEMENTWISE, selects=True)),
    ("ReduceMean", Traits(Kind.REDUCTION, selects=True)),
    ("AveragePool", Traits(Kind.POOL, selects=True)),
    ("Softmax", Traits(Kind.ELEMENTWISE)),
    ("CumSum", Traits(Kind.ELEMENTWISE)),
    ("Transpose", Traits(Kind.ELEMENTWISE)),
    ("LayerNormalization", Traits(Kind.ELEMENTWISE)),
    ("MatMul", Traits(Kind.ELEMENTWISE)),
    ("CenterCropPad", Traits(Kind.MOVE)),
    ("Trilu", Traits(Kind.MOVE)),
    ("OneHot", Traits(Kind.CAST, keeps_shape=True)),
    ("Abs", Traits(Kind.MOVE)),
    ("Resize", Traits(Kind.FILL)),
    ("Add", Traits(Kind.FILL)),
    ("ReduceSum", Traits(Kind.CUMULATION, keeps_shape=True)),
    ("Flatten", Traits(Kind.NORMALIZATION, keeps_shape=True)),
    ("Identity", Traits(Kind.SHAPE)),
    ("Transpose", Traits(Kind.MOVE, keeps_order=True)),
    ("Slice", Traits(Kind.MOVE, keeps_order=True)),
    ("Div", Traits(Kind.ELEMENTWISE, exact=True)),
    ("Sqrt", Traits(Kind.ELEMENTWISE, exact=True)),
    ("Add", Traits(Kind.ELEMENTWISE, exact=True)),
    ("ReduceSum", Traits(Kind.REDUCTION, exact=True)),
    ("Slice", Traits(Kind.MOVE, keeps_all=True)),
    ("Gather", Traits(Kind.MOVE, keeps_all=True)),
    ("Concat", Traits(Kind.MOVE, keeps_all=True)),
    ("Pad", Traits(Kind.MOVE, keeps_all=True)),
    ("Abs", Traits(Kind.CAST, keeps_all=True)),
    ("Add", Traits(Kind.CAST, jumps=True)),
    ("Relu", Traits(Kind.CAST, jumps=True)),
    ("Softmax", Traits(Kind.CAST, jumps=True)),
    ("ReduceMax", Traits(Kind.CAST, jumps=True)),
    ("Mod", Traits(Kind.CAST, rounds=True)),
    ("Abs", Traits(Kind.CAST, rounds=True)),
    ("Div", Traits(Kind.ELEMENTWISE, whole=True)),
    ("Reciprocal", Traits(Kind.ELEMENTWISE, whole=True)),
    ("ReduceMean", Traits(Kind.REDUCTION, whole=True)),
    ("Sigmoid", Traits(Kind.ELEMENTWISE, whole=True)),
]


@pytest.mark.parametrize(
    ("name", "claim"), FAULTS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(FAULTS)]
)
def test_operators_planted_faults_are_caught(name: str, claim: Traits) -> None:
    assert broken(("", name), claim)
