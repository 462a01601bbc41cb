"""Graphs of which simplifying leaves little, in types that targets lack, converted again and again.

What hands a value on, moves it there and back, or computes it twice is what simplifying takes out,
and an Identity what it leaves where an output of the graph would be an input. A target that lacks
the type has Casts there, and the next run must not begin anew:

    python -m tests.legalize.handed_on --count 100 [--seed N] [--targets A,B]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import parser

from tests.fuzz.trial import quiet
from tests.legalize.agreement import problem, profiles

KINDS = [
    "float",
    "double",
    "float16",
    "bfloat16",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "bool",
]
WIDER = {"uint8": 6, "int8": 6, "uint16": 6, "int16": 6, "bool": 6, "float16": 1, "bfloat16": 1}
STEPS = {
    "identity": "{to} = Identity({x})",
    "turned": "{to}t = Transpose<perm=[1,0]>({x}) {to} = Transpose<perm=[1,0]>({to}t)",
    "shaped": "{to}s = Constant<value_ints=[3,2]>() {to}r = Reshape({x}, {to}s) "
    "{to}b = Constant<value_ints=[2,3]>() {to} = Reshape({to}r, {to}b)",
    "joined": "{to} = Concat<axis=0>({x})",
    "cast": "{to}w = Cast<to={wide}>({x}) {to} = Cast<to={kind}>({to}w)",
    "same": "{to} = Cast<to={kind}>({x})",
    "chosen": "{to}c = Constant<value=bool{{1}}>() {to} = If({to}c) <then_branch=g{to} () => "
    "({type} {to}y) {{ {to}y = Identity({x}) }}, else_branch=h{to} () => ({type} {to}z) "
    "{{ {to}z = Identity({x}) }}>",
    "moved": "{to} = Transpose<perm=[1,0]>({x})",
    "twice": "{to}u = Identity({x}) {to} = Identity({x})",
}


def drawn(seed: int) -> onnx.ModelProto:
    """Return the graph of a seed: steps one after the other, of which some are given out."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(KINDS))
    code = onnx.TensorProto.DataType.Value(kind.upper())
    lines, names, sizes = [], ["x"], ["2,3"]
    for number in range(int(rng.integers(1, 5))):
        step = str(rng.choice(list(STEPS)))
        place = int(rng.integers(len(names)))
        if step == "shaped" and sizes[place] != "2,3":
            step = "identity"
        to = f"v{number}"
        type_text = f"{kind}[{sizes[place]}]"
        lines.append(
            STEPS[step].format(
                to=to, x=names[place], wide=WIDER.get(kind, code), kind=code, type=type_text
            )
        )
        names.append(to)
        sizes.append(sizes[place][::-1] if step == "moved" else sizes[place])
    given = sorted({len(names) - 1, *map(int, rng.integers(1, len(names), 2))})
    outputs = ", ".join(f"{kind}[{sizes[each]}] {names[each]}" for each in given)
    body = " ".join(lines)
    head = '<ir_version: 10, opset_import: ["" : 21, "l" : 1]>'
    if rng.random() < 0.6:
        return parser.parse_model(f"{head} g ({kind}[2,3] x) => ({outputs}) {{ {body} }}")
    called = ", ".join(names[each] for each in given)
    return parser.parse_model(
        f"{head} g ({kind}[2,3] x) => ({outputs}) {{ {called} = l.F(x) }}"
        f'<opset_import: ["" : 21], domain: "l"> F (x) => ({called}) {{ {body} }}'
    )


def found(seeds: range, folder: Path, targets: list[str], each: int) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with graphs at so many targets in turn, and the word for each."""
    for seed in seeds:
        source = folder / "source.onnx"
        onnx.save(drawn(seed), source)
        for turn in range(each):
            target = targets[(seed * each + turn) % len(targets)]
            word, why = problem(source, target, folder)
            if word.startswith("check promises"):
                word = "refused"  # a decided If goes, and what it gave out is refused in its place
            yield word, f"{seed} for {Path(target).stem}: {word}: {' '.join(why.split())[-300:]}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--count", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--each", type=int, default=2)
    arguments.add_argument("--targets", default="")
    asked = arguments.parse_args()
    quiet()
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        known = profiles(Path(folder))
        wanted = asked.targets.split(",") if asked.targets else known
        known = [each for each in known if Path(each).stem in wanted or each in wanted]
        seeds = range(asked.seed, asked.seed + asked.count)
        for word, told in found(seeds, Path(folder), known, asked.each):
            counts[word] += 1
            if word not in ("agrees", "refused"):
                print(told, flush=True)
    print(dict(sorted(counts.items())))
    return int(bool(set(counts) - {"agrees", "refused"}))


if __name__ == "__main__":
    sys.exit(main())
