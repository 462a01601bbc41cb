"""The cases of all rules in functions whose calls give every attribute, through their families.

What is read of an attribute that a call gives is no number of the node, nor is it absent. As a
script it goes through all of them: python -m tests.fuzz.references [--count N] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx.parser
from rules.catalogue import CASES

from .hostile import IMPORTS, feeds_of
from .models import typed
from .places import placed
from .trial import Finding, Trial, report

__all__ = ["cases", "judge"]

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "simplify": ("infer,simplify",),
    "fuse": ("infer,fuse", "infer,fuse{emit=ort}"),
    "unfuse": ("infer,unfuse{to=standard}",),
    "substitute": ("infer,substitute",),
    "restore": ("infer,quant-linear{to=float}",),
}
"""What a family's rules run in, by the folder of their cases."""
OPSETS = (17, 24)


def cases(family: str = "") -> Iterator[tuple[str, onnx.ModelProto, tuple[str, ...]]]:
    """Yield names, models that refer to attributes of calls, and what to send them through.

    Args:
        family: The modules of cases whose names begin so; all if empty.
    """
    for module, held in CASES.items():
        both = [*held.FIRES.items(), *held.REFUSES.items()] if module.startswith(family) else []
        texts = [(name, case) for name, each in both for case in each if "<" in case[1]]
        for name, case in texts:
            for opset in OPSETS:
                model = _referring(f"g {case[0]} {{ {case[1]} }}", opset)
                if model is not None:
                    yield f"{name}-{opset}", model, FAMILIES[module.partition(".")[0]]


def _referring(text: str, opset: int) -> onnx.ModelProto | None:
    header = f'<ir_version: 10, opset_import: ["": {opset}, {IMPORTS}]>'
    try:
        model = onnx.parser.parse_model(f"{header}\n{text}")
    except onnx.parser.ParseError:
        return None
    model = typed(placed(model, "references"), {})
    functions = [] if model is None else model.functions
    nodes = [node for each in functions for node in each.node]
    return model if any(a.ref_attr_name for node in nodes for a in node.attribute) else None


def judge(model: onnx.ModelProto, texts: tuple[str, ...]) -> Iterator[Finding]:
    """Yield what goes wrong; what a second run still infers of shapes in a function does not."""
    trial = Trial(model, feeds_of(model, np.random.default_rng(7)))
    for text in texts:
        yield from (each for each in trial.through(text) if each.kind != "again")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = list(cases())
    some = random.Random(arguments.seed).sample(found, min(arguments.count, len(found)))
    return report((name, judge(model, texts)) for name, model, texts in some)


if __name__ == "__main__":
    sys.exit(main())
