"""One model through one pipeline, and everything that may not happen on the way.

The passes run bare, beneath what the pass manager and the command line make of an error, so that
any exception but the library's own is seen as what it is.
"""

from __future__ import annotations

import difflib
import functools
import logging
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import google.protobuf.text_format
import numpy as np
import onnx
import onnx_ir as ir

from vlmpass.intent import Intent
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.proto.graph_writer import written
from vlmpass.ir_tools.rewrite import NoFixpoint, RuleError
from vlmpass.ir_tools.types import solve
from vlmpass.passes import parse
from vlmpass.passes.infer import Infer
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.needs import Provisions
from vlmpass.presets import pipeline_text

from .runtime import RUNTIME, evaluated

DEFECTS = (NoFixpoint, RuleError, CheckError)
"""Errors of the library that speak of a fault in the library, if a pass raises them."""

BARE = (
    "infer", "fold", "cse", "simplify", "simplify{fast-math=true}", "dead-branches", "trim-outputs",
    "inline-functions", "dedupe-initializers", "fix-names", "remove-unused", "topological-sort",
    "shape-arithmetic", "repair-types", "substitute", "fuse", "fuse{emit=ort}", "unfuse",
    "unfuse{to=standard}", "split-tensor{limit=64}", "mixed-precision{to=float16}",
    "unify-dtype{to=float32}", "unify-dtype{to=bfloat16}", "infer,quant-linear{to=float}", "tie",
    "pack-products",
)  # fmt: skip
"""Every pass that takes any model, alone."""

PRESETS: Mapping[str, Mapping[str, object]] = {
    "simplify": {"simplify": True},
    "fuse standard": {"fuse": "standard"},
    "fuse ort": {"simplify": True, "fuse": "ort"},
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "float16 keep-io": {"dtype": "float16", "keep_io": True, "simplify": True},
    "bfloat16": {"dtype": "bfloat16"},
    "target": {"target": "ort-cpu", "simplify": True},
    "quant": {"quant": "dequantize-linear"},
}
"""What is asked for by name, as pipelines."""

_MODERATE = 1000.0
_LARGEST_HALF = 65504.0
INEXACT = ("16", "dtype", "mixed", "fast-math", "float32", "quant")


@dataclass(frozen=True)
class Finding:
    """What went wrong.

    Attributes:
        kind: raw, defect, empty, invalid, wrong or again.
    """

    kind: str
    pipeline: str
    detail: str
    model: onnx.ModelProto

    def __str__(self) -> str:
        return f"{self.kind} by {self.pipeline}: {self.detail}"


def pipelines(model: onnx.ModelProto, opsets: Sequence[int]) -> list[str]:
    """Return the text of every preset and pass for a model, and conversions to opsets."""
    return [
        *BARE,
        *(text for name in PRESETS if (text := preset(model, name))),
        *(pipeline_text(Intent(opset=opset), ir.from_proto(model)) for opset in opsets),
    ]


def preset(model: onnx.ModelProto, name: str) -> str:
    return pipeline_text(Intent(**PRESETS[name]), ir.from_proto(model))


@functools.cache
def passes(text: str) -> tuple[Pass, ...]:
    return parse(text)


def run(text: str, model: ir.Model) -> None:
    """Run passes bare: one alone on the model as it is, several each with what it needs."""
    chosen, provisions = passes(text), Provisions()
    for each in chosen:
        if len(chosen) > 1 and provisions.lacks(each.needed(model), model):
            Infer().run(model)
            provisions.provided(model)
        if each.run(model):
            provisions.changed()
            if each.edits_shapes:
                provisions.dropped()
        if isinstance(each, Infer):
            provisions.provided(model)


class Trial:
    """A source with its inputs, to be sent through pipelines."""

    def __init__(self, source: onnx.ModelProto, feeds: Mapping[str, object] | None = None) -> None:
        self.source = source
        self.feeds = feeds
        self.refused = 0
        self._judgements: dict[bytes, list[Finding]] = {}

    @functools.cached_property
    def sound(self) -> bool:
        """Whether our own check takes the source as it is."""
        try:
            model = load(self.source)
            check(model)
        except VlmpassError:
            return False
        # onnx does not look at the types of ONNX Runtime's own operators
        typing = solve(model)
        odd = any(each.node is not None and each.node.domain for each in typing.conflicts)
        return not odd and not typing.unknown

    @functools.cached_property
    def doomed(self) -> bool:
        """Whether the source fails when run or gives what it does not declare: no wonder then."""
        if self.feeds is None:
            return False
        return RUNTIME.fails(self.source, self.feeds) or self._misdeclared()

    def _misdeclared(self) -> bool:
        results, symbols = self.expected or (), self._symbols()
        for each, result in zip(self.source.graph.output, results, strict=False):
            if isinstance(result, np.ndarray) and each.type.tensor_type.HasField("shape"):
                dims = each.type.tensor_type.shape.dim
                known = [
                    dim.dim_value if dim.HasField("dim_value") else symbols.get(dim.dim_param)
                    for dim in dims
                ]
                if len(known) != result.ndim or any(
                    one not in (None, other) for one, other in zip(known, result.shape, strict=True)
                ):
                    return True
        return False

    def _symbols(self) -> dict[str, int]:
        """Return the sizes that the inputs give to names."""
        feeds = self.feeds or {}
        return {
            dim.dim_param: size
            for each in self.source.graph.input
            for dim, size in zip(
                each.type.tensor_type.shape.dim, np.shape(feeds.get(each.name)), strict=False
            )
            if dim.dim_param
        }

    @functools.cached_property
    def expected(self) -> list[object] | None:
        """What the source computes; None where it does not run, or not twice the same."""
        if self.feeds is None or _unsteady(self.source):
            return None
        first, second = (RUNTIME.run(self.source, self.feeds) for _ in range(2))
        same = first is not None and second is not None and not unlike(first, second, True)
        return first if same else None

    def through(self, text: str) -> Iterator[Finding]:
        """Yield what goes wrong in a pipeline."""
        try:
            yield from self._through(text)
        except DEFECTS as error:
            yield Finding("defect", text, str(error), self.source)
        except VlmpassError:
            self.refused += 1
        except Exception as error:  # noqa: BLE001 - any other is what is looked for
            yield Finding("raw", text, place_of(error), self.source)

    @functools.cached_property
    def untouched(self) -> bytes:
        return packed(load(copy(self.source)))

    def _through(self, text: str) -> Iterator[Finding]:
        model = load(copy(self.source))
        run(text, model)
        first = proto_of(model)
        data = packed(model)
        if data == self.untouched:
            return
        if data not in self._judgements:
            self._judgements[data] = list(self._judged(text, first))
        yield from self._judgements[data]
        if not self.sound:
            return
        model = load(copy(first))
        run(text, model)
        if packed(model) != data:
            yield Finding("again", text, difference(first, proto_of(model)), self.source)

    def _judged(self, text: str, result: onnx.ModelProto) -> Iterator[Finding]:
        if not self.sound:
            return
        try:
            check(load(copy(result)))
        except VlmpassError as error:
            if self.doomed:
                return
            kind = "empty" if "no name" in str(error) or "empty string" in str(error) else "invalid"
            yield Finding(kind, text, str(error), self.source)
            return
        if self.expected is None or self.doomed:
            return
        found = RUNTIME.run(result, self.feeds or {})
        if found is None or not (why := unlike(self.expected, found, exact(text))):
            return
        if not self._is_the_runtimes(result, found, exact(text)):
            yield Finding("wrong", text, why, self.source)

    def _is_the_runtimes(
        self, result: onnx.ModelProto, found: Sequence[object], precise: bool
    ) -> bool:
        """Whether a difference is one between kernels of ONNX Runtime, and none by the standard.

        Its kernels of one operator do not agree on NaN and infinity, so that the reference
        evaluator decides of what is not finite; of numbers it does not.
        """
        pairs = [_where_finite(*pair) for pair in zip(self.expected or (), found, strict=True)]
        if unlike(*zip(*pairs, strict=True), precise):
            return False
        source = evaluated(self.source, self.feeds or {})
        standard = evaluated(result, self.feeds or {})
        return None not in (source, standard) and not unlike(source, standard, precise)


def proto_of(model: ir.Model) -> onnx.ModelProto:
    """Return the protobuf with what onnx_ir leaves out of it: a Split counts its outputs."""
    return written(model)


def _unsteady(model: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime draws numbers, or writes statistics over inputs that others read."""
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute)]
    nodes = [node for each in (*graphs, *model.functions) for node in each.node]
    random = [node.op_type == "Dropout" and len(node.input) > 2 for node in nodes]
    random += [node.op_type == "BatchNormalization" and len(node.output) > 3 for node in nodes]
    return any(random)


def packed(model: ir.Model) -> bytes:
    return proto_of(model).SerializeToString(deterministic=True)


def exact(text: str) -> bool:
    return not any(word in text for word in INEXACT)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    again = onnx.ModelProto()
    again.CopyFrom(model)
    return again


def place_of(error: BaseException) -> str:
    """Say what was raised, and where in this library and below."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}:{f.name}" for f in frames]
    return f"{type(error).__name__}: {str(error)[:200]} at {' > '.join(ours[-4:])}"


def _where_finite(one: object, two: object) -> tuple[object, object]:
    """Return two results with 0 where either is not finite."""
    a, b = np.asarray(one), np.asarray(two)
    if isinstance(one, list) or a.dtype.kind != "f" or a.shape != b.shape:
        return one, two
    known = np.isfinite(a) & np.isfinite(b)
    return np.where(known, a, 0), np.where(known, b, 0)


def unlike(expected: Sequence[object], found: Sequence[object], precise: bool) -> str:
    """Say how outputs differ; empty if they do not."""
    for index, (one, two) in enumerate(zip(expected, found, strict=True)):
        if isinstance(one, list) and isinstance(two, list):
            if len(one) != len(two):
                return f"output {index}: {len(two)} elements, not {len(one)}"
            why = unlike(one, two, precise)
        else:
            why = _unlike(one, two, precise)
        if why:
            return f"output {index}: {why}"
    return ""


def _unlike(one: object, two: object, precise: bool) -> str:
    if one is None or two is None:
        return "" if one is two else "one is None"
    a, b = np.asarray(one), np.asarray(two)
    if a.shape != b.shape:
        return f"shape {b.shape}, expected {a.shape}"
    if a.dtype.kind in "OUS":
        if not precise and (numbers := _spelled(a)) is not None:
            return _unlike(numbers, _spelled(b), precise)
        return "" if (a == b).all() else "other strings"
    if a.dtype.kind in "iub" and precise:
        return "" if np.array_equal(a, b) else f"{b.tolist()}, expected {a.tolist()}"
    if a.dtype.kind in "iub":
        return ""  # an index of the largest may change with the type
    half = 4e-2 if not precise or a.dtype == np.float16 else 2e-5
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = np.max(np.abs(a), initial=1.0, where=np.isfinite(a))
    if not precise:
        if size > _MODERATE:
            return ""  # what overflows in half precision the pipeline's own comparison finds
        a, b = (np.clip(each, -_LARGEST_HALF, _LARGEST_HALF) for each in (a, b))
    if np.allclose(a, b, rtol=half, atol=half * size, equal_nan=True):
        return ""
    return f"{b.ravel()[:4].tolist()}, expected {a.ravel()[:4].tolist()}"


def _spelled(texts: np.ndarray) -> np.ndarray | None:
    """Return the numbers that texts spell, if all do."""
    try:
        return texts.astype(np.float64)
    except ValueError:
        return None


def difference(first: onnx.ModelProto, second: onnx.ModelProto) -> str:
    """Return the first lines that differ, as one may read them."""
    one, two = (
        google.protobuf.text_format.MessageToString(e).splitlines() for e in (first, second)
    )
    lines = [x.strip() for x in difflib.unified_diff(one, two, n=6) if not x.startswith("@")]
    return f"second run: {' '.join(lines[2:40])[:500]}"


def quiet() -> None:
    """Let a script print findings alone, and not what passes warn of."""
    for noisy in ("vlmpass", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def report(trials: Iterable[tuple[str, Iterable[Finding]]]) -> int:
    """Print what was found, each kind of place once, and how many models there were."""
    quiet()
    seen: Counter[str] = Counter()
    count = 0
    for name, findings in trials:
        count += 1
        for each in findings:
            key = f"{each.kind} {re.sub(r'[0-9.]+', '#', each.detail)[:120]}"
            seen[key] += 1
            if seen[key] <= 2:
                print(f"{name}: {each}\n{onnx.printer.to_text(each.model)}\n", flush=True)
    print(f"{count} models, {sum(seen.values())} findings of {len(seen)} kinds")
    for key, number in seen.most_common():
        print(f"{number:6} {key}")
    return 1 if seen else 0
