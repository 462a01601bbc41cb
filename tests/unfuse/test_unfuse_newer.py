"""Operators that are newer than a model's opset, which onnx's checker refuses: so do passes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import onnx
import onnx.parser
from rules.catalogue import CASES

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.operators.schema import since
from vlmpass.ir_tools.rewrite import NoFixpoint, RuleError
from vlmpass.passes.pipeline.text import parse

TEXTS = (
    "infer,unfuse{to=standard}", "infer,fuse{emit=ort}", "infer,convert-opset{to=21}",
    "infer,repair-types,legalize{target=ort-cpu}",
)  # fmt: skip
SOME = 6


def _newer() -> Iterator[onnx.ModelProto]:
    """Yield the cases of rules at opsets that lack one of their operators."""
    for held in CASES.values():
        for inputs, body, _ in (case for each in held.FIRES.values() for case in each):
            for opset in (11, 13, 17):
                head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>'
                try:
                    model = onnx.parser.parse_model(f"{head}\ng {inputs} {{ {body} }}")
                except onnx.parser.ParseError:
                    continue
                own = [each.op_type for each in model.graph.node if not each.domain]
                if any(since(operator, opset) is None for operator in own):
                    yield model


def test_what_an_opset_has_not_is_left_or_refused() -> None:
    models = list(_newer())
    attention = [each for each in models if any(n.op_type == "Attention" for n in each.graph.node)]
    for drawn in [*random.Random(5).sample(models, SOME), attention[0], attention[-1]]:
        for text in TEXTS:
            model = load(drawn)
            try:
                for each in parse(text):
                    each.run(model)
            except (NoFixpoint, RuleError):
                raise
            except VlmpassError:
                continue
