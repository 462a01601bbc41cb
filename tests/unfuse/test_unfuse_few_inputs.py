"""Operators of ONNX Runtime's own that lack what they must have: onnx's checker takes them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import onnx
import onnx.parser
import pytest
from rules.catalogue import CASES

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.rewrite import NoFixpoint, RuleError
from vlmpass.passes.pipeline.text import parse

TEXTS = ("infer,unfuse{to=standard}", "infer,fuse{emit=ort}")
SOME = 60
HEAD = '<ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>\n'


def _cases() -> Iterator[onnx.ModelProto]:
    """Yield the graphs of rules that speak of such operators."""
    for held in CASES.values():
        for inputs, body, _ in (case for each in held.FIRES.values() for case in each):
            if "com.microsoft." in body:
                try:
                    yield onnx.parser.parse_model(f"{HEAD}g {inputs} {{ {body} }}")
                except onnx.parser.ParseError:
                    continue


def _cut(model: onnx.ModelProto, dice: random.Random) -> onnx.ModelProto:
    """Return a model of which one such node has fewer inputs, or one of them left out."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    node = dice.choice([each for each in made.graph.node if each.domain and each.input])
    at = dice.randrange(len(node.input))
    if dice.random() < 0.5:
        del node.input[at:]
    else:
        node.input[at] = ""
    return made


@pytest.mark.parametrize("seed", range(2))
def test_what_lacks_inputs_is_left_or_refused(seed: int) -> None:
    dice = random.Random(seed)
    models = [each for each in _cases() if any(x.domain and x.input for x in each.graph.node)]
    for _ in range(SOME):
        drawn = _cut(dice.choice(models), dice)
        for text in TEXTS:
            model = load(drawn)
            try:
                for each in parse(text):
                    each.run(model)
            except (NoFixpoint, RuleError):
                raise
            except VlmpassError:
                continue
