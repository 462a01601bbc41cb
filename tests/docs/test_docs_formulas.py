"""A formula names operators that exist, with inputs and attributes that they have there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pytest

from vlmpass.ir_tools.operators.schema import Schema, history, in_force, schema, since
from vlmpass.ir_tools.rewrite import all_rules
from vlmpass.rewriter_rules.opset import tell
from vlmpass.rewriter_rules.opset.table import Step, entries

NO_OPERATORS = {"NaN", "Runtime"}
"""Capitalised words that formulas need."""

CONTRIB = ("com.microsoft", "")


@dataclass(frozen=True)
class Call:
    """An operator with arguments, as a formula spells it."""

    operator: str
    arguments: tuple[str, ...]
    result: bool
    """Whether it stands behind the arrow."""

    @property
    def attributes(self) -> list[str]:
        """The names before an equals sign."""
        return [found[1] for each in self.arguments if (found := re.match(r"(\w+)=", each))]

    def inputs(self, known: Schema) -> list[str]:
        """The arguments that are no attributes, by name alone either."""
        words = [re.split(r"\W", each)[0] for each in self.arguments]
        return [word for word in words if word not in known.attributes]

    def misplaced(self, known: Schema) -> list[str]:
        """The inputs named as they are in the schema, but at another's place."""
        places = {each.name: place for place, each in enumerate(known.inputs) if len(each.name) > 1}
        given = enumerate(self.arguments)
        return [name for place, name in given if places.get(name, place) != place]


def arguments(text: str) -> tuple[str, ...]:
    """Split what follows an opening parenthesis at the commas before the closing one."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if depth < 0:
            break
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return tuple(each.strip() for each in found) if found != [""] else ()


def calls(formula: str) -> Iterator[Call]:
    """Every operator that a formula applies to something, inner ones too."""
    arrow = formula.find(" -> ")
    for found in re.finditer(r"\b([A-Z]\w*)\(", formula):
        given = arguments(formula[found.end() :])
        yield Call(found[1], given, 0 <= arrow < found.start())


def words(formula: str) -> set[str]:
    """The capitalised words of a formula, without a plural's s where there is no such operator."""
    found = set(re.findall(r"\b[A-Z]\w*[a-z]\w*|\b[A-Z]\w*(?=\()", formula)) - NO_OPERATORS
    return {word if exists(word) else word.removesuffix("s") for word in found}


def exists(operator: str) -> bool:
    """Whether an operator is of the standard or one of ONNX Runtime's."""
    return bool(history(operator)) or any(in_force(each, operator, 1) for each in CONTRIB)


def faults_of_step(step: Step, formula: str, opset: int) -> list[str]:
    """What the formula of an adapter has wrong, which leads a step's nodes to an opset."""
    operator, source, _ = step
    found = [f"there is no {word}" for word in sorted(words(formula)) if not exists(word)]
    heads = [call.operator for call in calls(formula) if not call.result]
    if operator not in heads:
        found.append(f"it is about {', '.join(heads) or 'nothing'}")
    for call in calls(formula):
        if not history(call.operator):
            continue
        version = since(call.operator, opset if call.result else source)
        if version is None:
            found.append(f"{call.operator} does not exist at opset {opset}")
            continue
        known = schema(call.operator, version)
        where = f"{call.operator}-{version}"
        found += [
            f"{where} has no attribute {name}"
            for name in call.attributes
            if name not in known.attributes
        ]
        found += [f"{name} is another input of {where}" for name in call.misplaced(known)]
        inputs = call.inputs(known)
        if len(inputs) > known.max_inputs:
            found.append(f"{where} has no {len(inputs)} inputs: {', '.join(inputs)}")
    return found


def faults_of_rule(formula: str, captures: Collection[str]) -> list[str]:
    """What the formula of a rule has wrong; an attribute may go by the name of its capture."""
    found = [f"there is no {word}" for word in sorted(words(formula)) if not exists(word)]
    for call in calls(formula):
        known = [schema(call.operator, each) for each in history(call.operator)]
        contrib = [in_force(domain, call.operator, 1) for domain in CONTRIB]
        names = {name for each in known for name in each.attributes}
        names |= {n for each in contrib if each for n in each.attributes}
        found += [
            f"{call.operator} has no attribute {n}" for n in call.attributes if n not in names
        ]
        most = max((each.max_inputs for each in known), default=len(call.arguments))
        beyond = [each for each in call.arguments if re.split(r"\W", each)[0] not in names][most:]
        found += [
            f"{call.operator} has no input {each}"
            for each in beyond
            if not set(re.findall(r"\w+", each)) <= {*captures}
        ]
    return found


def test_formulas_of_steps_are_true():
    tell("Add")  # enters every adapter
    found = {}
    for step, entry in entries().items():
        faults = faults_of_step(step, entry.summary, entry.opset)
        if faults:
            found[step] = (entry.summary, faults)
    assert found == {}


def test_formulas_of_rules_are_true():
    found = {rule.name: faults_of_rule(rule.formula, rule.kinds) for rule in all_rules()}
    assert {name: faults for name, faults in found.items() if faults} == {}


GOOD = [
    (("TopK", 1, 10), "TopK(x, k=n) -> TopK(x, [n]).", 10),
    (("Resize", 11, 13), "Resize(x, roi, empty, sizes) -> Resize(x, roi, , sizes).", 13),
    (("HardSwish", 14, None), "HardSwish(x) -> x * HardSigmoid(x, alpha=1/6, beta=0.5).", 13),
    (("Clip", 11, 6), "Clip(x, a, b) -> Clip(x, min=a, max=b), by Max and Min if they vary.", 10),
    (("If", 11, 1), "If(c) stays, when its branches are alike, NaN or not.", 10),
]

PLANTED = [
    (("TopK", 1, 10), "TopK(x, [n]) -> TopK(x, [n]).", 10),  # a later version's input
    (("TopK", 1, 10), "TopK(x, k=n) -> TopK(x, k=n).", 10),  # an attribute of before
    (("TopK", 11, 10), "TopK(x, k) -> TopK(x, k, largest=1).", 10),
    (("TopK", 11, 10), "Op(x, axis=a) -> Op(x, axis=a + r).", 10),  # a name for several
    (("TopK", 11, 10), "ArgMax(x, axis=a) -> ArgMax(x, axis=a + r).", 10),  # another's formula
    (("TopK", 11, 10), "stays.", 10),
    (("DepthToSpace", 11, 1), "DepthToSpace(x, axis=a) -> DepthToSpace(x).", 10),
    (("DepthToSpace", 11, 1), "DepthToSpace(x, mode=CRD) -> Reshap(x).", 10),
    (("DepthToSpace", 11, 1), "DepthToSpace(x) -> Reshape(Transpose(x, order=p)).", 10),
    (("DepthToSpace", 11, 1), "DepthToSpace(x) -> its blocks by Reshapings.", 10),
    (("Gelu", 20, None), "Gelu(x) -> Gelu(x).", 19),  # no such operator there
    (("Gelu", 20, None), "Gelu(x) -> Mul(x, Swish(x)).", 19),
    (("Resize", 18, 13), "Resize(x, s, axes=a) -> Resize(x, s, axes=a).", 17),
    (("Resize", 19, 18), "Resize(x, sizes) -> Resize(x, sizes).", 18),  # at another's place
    (("Resize", 10, 11), "Resize(x, s) -> Resize(x, roi, s, asymmetric, floor).", 11),
    (("Pad", 11, 2), "Pad(x, p, v) -> Pad(x, p, v).", 10),
    (("MatMul", 9, 1), "MatMul(x, y) -> ReduceSum(Unsqueeze(x, y, [1]) * y).", 8),
]

PLANTED_IN_RULES = [
    "Gelu(x, tan=1) -> x.",
    "MatMul(Transpose(a), b) -> Gemm(a, b, trans_a=1).",
    "QuickGelu(x, beta=a) -> x * sigmoid(a * x).",
    "SkipNormalization(a, b) -> a + b.",
    "Concat(x) -> x, and Maximum.",
    "Cast(x, to=inner) -> Cast(x, outer).",
    "Gelu(a + b) -> Gelu(x, tanh).",
]


@pytest.mark.parametrize(("step", "formula", "opset"), GOOD)
def test_good_formula_of_a_step_passes(step, formula, opset):
    assert faults_of_step(step, formula, opset) == []


@pytest.mark.parametrize(("step", "formula", "opset"), PLANTED)
def test_planted_fault_of_a_step_is_found(step, formula, opset):
    assert faults_of_step(step, formula, opset)


@pytest.mark.parametrize("formula", PLANTED_IN_RULES)
def test_planted_fault_of_a_rule_is_found(formula):
    assert faults_of_rule(formula, ["a", "b", "x"])
