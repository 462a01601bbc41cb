"""Random configurations of ONNX Runtime's operators, each said in standard ones and compared.

As a script it goes through as many as are asked for:

    PYTHONPATH=tests python -m tests.unfuse.trials --count 200 [--seed N] [--only OPERATOR]
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from unfuse.cases import Case, Stays, Untaken, problem
from unfuse.decoders import DRAWN as DECODERS
from unfuse.experts import DRAWN as EXPERTS
from unfuse.heads import DRAWN as HEADS
from unfuse.layers import DRAWN as LAYERS
from unfuse.older import DRAWN as OLDER
from unfuse.projections import DRAWN as PROJECTIONS
from unfuse.quantised import DRAWN as QUANTISED
from unfuse.tabled import DRAWN as TABLED

DRAWN = {**HEADS, **DECODERS, **QUANTISED, **TABLED, **LAYERS, **PROJECTIONS, **EXPERTS, **OLDER}


def cases(operator: str, seed: int, count: int) -> Iterator[tuple[int, Case]]:
    """Yield configurations of an operator, and the numbers that they are drawn again by."""
    for number in range(count):
        rng = np.random.default_rng([seed, zlib.crc32(operator.encode()), number])
        yield number, _declared_otherwise(DRAWN[operator](rng), rng)


def _declared_otherwise(case: Case, rng: np.random.Generator) -> Case:
    """Return a case whose open axes may have no names, in a file as old as its opset or older."""
    anonymous = case.dynamic and rng.random() < 0.3
    version = int(rng.choice([8, 10, 13]))
    return replace(
        case,
        anonymous=anonymous,
        may_stay=case.may_stay or anonymous,
        ir_version=version,
        to="primitive" if rng.random() < 0.2 else "standard",
    )


def outcomes(operator: str, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Return how many cases were right, left, and untaken by ONNX Runtime, and what was wrong."""
    tally: Counter[str] = Counter()
    wrong = []
    for number, case in cases(operator, seed, count):
        try:
            found = problem(case)
        except Untaken as error:
            tally["untaken"] += 1
            tally[f"untaken: {str(error)[:150]}"] += 1
            continue
        except Stays as error:
            tally["stays"] += 1
            tally[f"stays: {error}"] += 1
            continue
        tally["wrong" if found else "right"] += 1
        if found:
            wrong.append(f"{operator} {seed}-{number}: opset {case.opset}: {found}")
    return tally, wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(DRAWN))
    asked = parser.parse_args()
    failed = False
    for operator in [asked.only] if asked.only else DRAWN:
        tally, wrong = outcomes(operator, asked.seed, asked.count)
        print(operator, dict(tally))
        for line in wrong:
            print("   ", line[:400])
        failed |= bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
