"""Make the facts of ONNX Runtime's CPU from the wheel that is installed.

Its kernel registry says what it computes itself. What it casts or inlines nobody says; for every
other type that an operator admits, models with one node are loaded, in a child process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.operators.contrib import contrib
from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.schema import history, in_force, ir_version_of, operators, schema
from vlmpass.ir_tools.operators.type_texts import element
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET
from vlmpass.ir_tools.targets.kernels import Kernels
from vlmpass.ir_tools.targets.one_node import needs_graphs, one_node_models
from vlmpass.ir_tools.targets.profile_text import types_line
from vlmpass.ir_tools.targets.support import Support
from vlmpass.ir_tools.worker.child import Child, Died
from vlmpass.ir_tools.worker.folder import WorkFolder

__all__ = ["Sessions", "facts", "newest"]

_MISSING = ("Could not find an implementation", "NOT_IMPLEMENTED", "Failed to find kernel")
_SECONDS = 20.0
_FIRST = ("tensor(float)", "tensor(int64)", "tensor(bool)", "tensor(int32)", "tensor(string)")
_BUILT_IN = ("Constant",)
"""What needs no kernel: it becomes an initializer."""


class Sessions:
    """Loads models in a child process, which is started anew when one ends it."""

    def __init__(self) -> None:
        self._home = WorkFolder()
        self._child: Child | None = None
        self.count = 0

    def why_not(self, model: ir.Model) -> str | None:
        """Return what the runtime says of a model that it does not load; None where it does."""
        path = Path(self._home.path) / "one.onnx"
        ir.save(model, path)
        self.count += 1
        if self._child is None:
            self._child = Child(Path(self._home.path) / "log")
        request = {
            "do": "load", "backend": "onnxruntime", "model": str(path), "optimization": "none",
            "prepack": True, "fold": None, "memory": None, "files": {},
        }  # fmt: skip
        try:
            answer = self._child.ask(request, _SECONDS)
        except Died as error:
            self._child.kill()
            self._child = None
            return error.how
        return None if answer["ok"] else str(answer["error"])

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
        self._home.remove()


@dataclass
class _Asked:
    """One operator at one since-version."""

    domain: str
    schema: Schema
    opsets: range
    kernels: list[Mapping[str, list[str]]]
    sessions: Sessions

    def lines(self) -> list[str]:
        """Return what is found, as lines of a profile; nothing where nothing is supported."""
        lines, known = [], dict[str, Mapping[Support, list[str]]]()
        for name in self._parameters():
            kinds: dict[Support, list[str]] = defaultdict(list)
            limits, partial = [], set[str]()
            for kind in self._admitted(name):
                support, opsets = self._support(name, kind)
                kinds[support].append(kind)
                if opsets:
                    limits.append(_limit(name, kind, opsets))
                    partial.add(kind)
            kinds.pop(Support.UNSUPPORTED, None)
            words = {support: list(map(_word, each)) for support, each in kinds.items()}
            lines += (
                [types_line(name, words), *limits] if kinds else [f"{name}: unsupported others"]
            )
            known[name] = {s: [k for k in each if k not in partial] for s, each in kinds.items()}
        if not known:
            found = self._loads({}, self.opsets[-1])
            runs = bool(self.kernels) or found is Support.AUTOMATIC
            return ["native" if self.kernels else found.word] if runs else []
        return [*lines, *self._together(known)] if any(known.values()) else []

    def _together(self, kinds: Mapping[str, Mapping[Support, list[str]]]) -> Iterator[str]:
        """Yield lines about types that run, and do not run together.

        Args:
            kinds: The types of each parameter.
        """
        if needs_graphs(self.schema) or not (len(self.kernels) > 1 or self.schema.bodies):
            return
        for one, other in combinations(kinds, 2):
            runs = [_running(kinds[each]) for each in (one, other)]
            taken: dict[tuple[str, ...], list[str]] = defaultdict(list)
            for a in runs[0]:
                taken[tuple(b for b in runs[1] if self._runs({one: a, other: b}))].append(a)
            for with_, alone in taken.items():
                if with_ and len(with_) < len(runs[1]):
                    yield _apart(one, alone, other, with_)

    def _runs(self, pair: Mapping[str, str]) -> bool:
        """Whether two types run together: in one kernel, or where the runtime casts or inlines."""
        if any(
            all(kind in self._of_kernel(types, name) for name, kind in pair.items())
            for types in self.kernels
        ):
            return True
        first = next(iter(pair.items()))
        tried = ({**self._types(*first, kernels), **pair} for kernels in self._alone())
        return any(self._loads(e, self.opsets[-1], [*pair]) is Support.AUTOMATIC for e in tried)

    def _alone(self) -> list[list[Mapping[str, list[str]]]]:
        """Return each kernel by itself: what other parameters take decides, too."""
        return [[each] for each in self.kernels] or [[]]

    def _parameters(self) -> list[str]:
        formals = (*self.schema.inputs, *self.schema.outputs)
        return list(dict.fromkeys(each.parameter for each in formals if len(each.types) > 1))

    def _admitted(self, name: str) -> list[str]:
        allowed = self.schema.allowed[name]
        return sorted(each for each in allowed if "complex" not in each and "map(" not in each)

    def _support(self, name: str, kind: str) -> tuple[Support, list[int]]:
        """Return how well a type is run, and at which opsets if not at all of them."""
        if any(kind in self._of_kernel(types, name) for types in self.kernels):
            return Support.NATIVE, []
        if not (self.kernels or self.schema.bodies or self.schema.name in _BUILT_IN):
            return Support.UNSUPPORTED, []
        if needs_graphs(self.schema):
            return Support.UNKNOWN if self.kernels else Support.AUTOMATIC, []
        types = self._types(name, kind, self.kernels)
        depends = bool(self.schema.bodies)
        opsets = list(self.opsets) if depends else [self.opsets[-1]]
        found = {opset: self._loads(types, opset, [name]) for opset in opsets}
        best = min(found.values())
        if best is not Support.AUTOMATIC:
            return max(found.values()) if len(set(found.values())) == 1 else best, []
        good = [opset for opset, each in found.items() if each is Support.AUTOMATIC]
        return best, good if len(good) < len(opsets) else []

    def _of_kernel(self, types: Mapping[str, list[str]], name: str) -> Iterable[str]:
        formals = (*self.schema.inputs, *self.schema.outputs)
        names = [name, *(each.name for each in formals if each.parameter == name)]
        return next((types[each] for each in names if each in types), self.schema.allowed[name])

    def _types(
        self, name: str, kind: str, kernels: Sequence[Mapping[str, list[str]]]
    ) -> dict[str, str]:
        """Return a type for every type parameter, of a kernel where there is one."""
        types = {}
        for each in self._parameters():
            kernel = next((self._of_kernel(k, each) for k in kernels), ())
            choices = [*_FIRST, *kernel, *self._admitted(each)]
            admitted = self.schema.allowed[each]
            types[each] = next(
                (c for c in choices if c in admitted and (not kernel or c in kernel)),
                min(admitted),
            )
        return {**types, name: kind}

    def _loads(self, types: Mapping[str, str], opset: int, asked: Collection[str] = ()) -> Support:
        """Return automatic if one of the models of these types loads; unknown if none is valid."""
        for each in self._variants(types, asked):
            for model in one_node_models(self.domain, self.schema, opset, each):
                said = self.sessions.why_not(model)
                if said is None:
                    return Support.AUTOMATIC
                if any(text in said for text in _MISSING):
                    return Support.UNSUPPORTED
        return Support.UNKNOWN

    def _variants(
        self, types: Mapping[str, str], asked: Collection[str]
    ) -> Iterator[Mapping[str, str]]:
        yield types
        for kind in dict.fromkeys(types.values()):
            same = {
                name: kind if name not in asked and kind in self.schema.allowed[name] else each
                for name, each in types.items()
            }
            if same != types:
                yield same


def facts(kernels: Kernels, sessions: Sessions, last: int) -> dict[str, dict[int, list[str]]]:
    """Return the lines of a profile by operator and since-version.

    Args:
        kernels: Of the installed wheel.
        sessions: Loads what the kernels do not decide.
        last: The newest opset that is asked for.
    """
    found: dict[str, dict[int, list[str]]] = {}
    for domain, name, schema_, opsets in _versions(kernels, last):
        at = opsets[-1] if domain == "" else schema_.version
        asked = _Asked(domain, schema_, opsets, kernels.at(domain, name, at), sessions)
        lines = asked.lines()
        if lines:
            key = f"{domain}.{name}" if domain else name
            found.setdefault(key, {})[schema_.version] = lines
    return found


def newest(sessions: Sessions) -> tuple[int, int]:
    """Return the newest opset and ir_version that the runtime reads."""
    opset, version = OLDEST_OPSET, 4
    while sessions.why_not(_identity(opset + 1, ir_version_of(opset + 1))) is None:
        opset += 1
    version = ir_version_of(opset)
    while sessions.why_not(_identity(OLDEST_OPSET, version + 1)) is None:
        version += 1
    return opset, version


def _identity(opset: int, ir_version: int) -> ir.Model:
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.Node("", "Identity", [value])
    node.outputs[0].name, node.outputs[0].type = "y", value.type
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": opset}, name="one")
    return ir.Model(graph, ir_version=ir_version)


def _versions(kernels: Kernels, last: int) -> Iterator[tuple[str, str, Schema, range]]:
    for name in operators():
        versions = history(name)
        for version, after in zip(versions, [*versions[1:], last + 1], strict=True):
            opsets = range(max(version, OLDEST_OPSET), min(after, last + 1))
            if opsets:
                yield "", name, schema(name, version), opsets
    for (domain, name), each in contrib().items():
        first = min(history(name), default=last + 1) if domain == "" else last + 1
        if (domain, name) in kernels.ranges and first > 1:
            yield domain, name, each, range(OLDEST_OPSET, first)
    for domain, name in sorted(kernels.ranges):
        for version in range(1, 6) if domain == "ai.onnx.ml" else ():
            found = in_force(domain, name, version)
            if found is not None and found.version == version:
                yield domain, name, found, range(last, last + 1)


def _word(kind: str) -> str:
    inner = element(kind)
    if inner is not None:
        return f"{kind.partition('(')[0]}({_word(inner)})"
    return kind.replace("sparse_tensor(", "sparse(") if "sparse" in kind else kind[7:-1]


def _running(kinds: Mapping[Support, list[str]]) -> list[str]:
    return sorted(kinds.get(Support.NATIVE, []) + kinds.get(Support.AUTOMATIC, []))


def _apart(one: str, kinds: Iterable[str], other: str, others: Iterable[str]) -> str:
    alone, together = (" ".join(map(_word, each)) for each in (kinds, others))
    return (
        f"unsupported if type({one}) = {alone} and type({other}) != {together}:"
        " they do not run together"
    )


def _limit(name: str, kind: str, opsets: list[int]) -> str:
    known = " ".join(map(str, opsets))
    return f"unsupported if type({name}) = {_word(kind)} and opset != {known}: not inlined there"
