"""How to run a model on this machine: as it is, by a twin in float32, or by the evaluator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, cast

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.effects import NumberChanges
from vlmpass.ir_tools.graph.walk import all_nodes, weight_bytes
from vlmpass.ir_tools.load.source import Source, load
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.run.allowance import UNBOUNDED, Allowance
from vlmpass.ir_tools.run.program import Program, ProgramRunner
from vlmpass.ir_tools.run.request import EmulatedIn
from vlmpass.ir_tools.run.runner import NAMES, AnyRunner, RunError, Runner
from vlmpass.ir_tools.run.seeds import draws, with_seeds
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.torch_program import Module, is_module, program_of
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.system.runtime import RUNTIME_NAMES, Optimization, Runtime
from vlmpass.ir_tools.types import apply, solve
from vlmpass.ir_tools.types.emulate import emulate

__all__ = [
    "ONE_SESSION",
    "Norms",
    "Restore",
    "Side",
    "cast_to",
    "computed_in",
    "let_round",
    "refuse_other_draws",
    "side_of",
    "sides_of",
]

ONE_SESSION = 512_000_000
"""Bytes of weights above which a model is run in segments."""

# Operators that only move, store or convert numbers: their types say nothing about arithmetic.
_MOVES = named(Kind.MOVE, Kind.CAST, Kind.SHAPE, Kind.CONTROL, Kind.SEQUENCE) | {"Constant"}
_FLOAT = ir.DataType.FLOAT
_PACKED = frozenset(ir.DataType[name] for name in ("INT2", "UINT2", "INT4", "UINT4", "FLOAT4E2M1"))
Restore: TypeAlias = "Callable[[ir.Model], NumberChanges]"
"""Restores rounded numbers of a typed model that computes in float32, and tells which."""
Norms: TypeAlias = "Callable[[ir.Model, ir.DataType], list[str]]"
"""Spells the normalisations of a type in other operators of that type, in place; names the rest."""

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOATS = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point())


def computed_in(model: ir.Model) -> frozenset[ir.DataType]:
    """Return the floating-point types that a model's operators compute in; no weight is read."""
    typing = solve(model)
    found: set[ir.DataType] = set()
    for node in all_nodes(model):
        if node.op_type in _MOVES or node.op_identifier() in model.functions:
            continue
        for value in (*node.inputs, *node.outputs):
            dtype = typing.dtype(value) if value is not None else None
            if dtype in _FLOATS:
                found.add(dtype)
    return frozenset(found)


def cast_to(model: ir.Model) -> frozenset[ir.DataType]:
    """Return the half precisions that Casts of a model give."""
    given = [node.attributes.get("to") for node in all_nodes(model) if node.op_type == "Cast"]
    numbers = {each.value for each in given if each is not None and not each.is_ref()}
    return frozenset(dtype for dtype in _HALVES if dtype in numbers)


@dataclass
class Side:
    """One of the two models of a comparison.

    Attributes:
        model: Its graph; weights stay where they lie.
        path: Its file, which the runtime is given if nothing must be changed first; None for a
            model in memory.
        widened: The types that are computed in float32 instead.
        emulated: The type whose every value is rounded, computed in float32; None for none.
        norms: Lets what is inside norms be rounded, too; None for what computes them in float32.
        allowance: What running it may take.
        runtime: What runs it.
        program: What is compared instead of it, which it has the inputs and outputs of.
        role: What it is called in messages.
        closed: The norms that were not spelled out, once there is a twin.
        how: How it came to be run; empty before `open`.
        refused: Why ONNX Runtime did not load it as it is; None if it was not tried or loaded.
    """

    model: ir.Model
    path: str | os.PathLike[str] | None = None
    widened: frozenset[ir.DataType] = frozenset()
    emulated: ir.DataType | None = None
    norms: Norms | None = None
    allowance: Allowance = UNBOUNDED
    runtime: Runtime = "onnxruntime"
    program: Program | None = None
    role: str = "judged"
    closed: list[str] = field(default_factory=list)
    how: str = ""
    refused: RunError | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Let a model that draws at random draw the same as the other one."""
        seeded = with_seeds(self.model)
        if seeded is not None:
            self.model, self.path = seeded, None

    def open(self, optimization: Optimization) -> AnyRunner:
        """Return a runner: ONNX Runtime's if it loads the model, else the reference evaluator's.

        A model whose weights are more than one session takes is run in segments, each of which is
        loaded when its turn comes.

        Raises:
            VerifyError: If neither loads it, with both reasons.
            RunError: If it takes more than it may.
        """
        if self.program is not None:
            self.how = NAMES[self.program.engine]
            return ProgramRunner(self.program, self.model)
        reasons: list[str] = []
        for how, start in self._ways(optimization):
            try:
                runner = start()
            except RunError as error:
                if error.is_stop:
                    raise  # another way would take as much
                reasons.append(str(error))
                if self.refused is None and error.backend == "onnxruntime":
                    self.refused = error
                continue
            self.how = how
            if self.path is not None and how == "ONNX Runtime":
                self.refused = None
            return runner
        raise VerifyError("nothing here runs the model: " + "; ".join(dict.fromkeys(reasons)))

    def takes(self) -> dict[str | None, ir.DataType | None]:
        """Return the element type that each input is to be fed in, by name."""
        types = {value.name: value.dtype for value in self.model.graph.inputs}
        return {n: _FLOAT if t is not None and t == self.emulated else t for n, t in types.items()}

    @property
    def changed(self) -> bool:
        """Whether the twin is run, and not the model as it is."""
        return bool(self.widened) or self.emulated is not None

    @cached_property
    def twin(self) -> ir.Model:
        """A copy that computes in float32 what is to be, rounded where that is emulated.

        Raises:
            VerifyError: The model has nothing to round.
            Refused: It is not well typed.
        """
        twin = clone(self.model)
        if self.emulated is not None and self.norms is not None:
            self.closed = self.norms(twin, self.emulated)
        if self.emulated is not None and not emulate(twin, self.emulated):
            name = self.emulated.name.lower()
            raise VerifyError(
                f"the {self.role} model has no {name} in it to be rounded",
                remedy=f"convert it first: vlmpass convert --dtype {name}",
            )
        if self.widened:
            widen(twin, self.widened)
        return twin

    def restorable(self, restore: Restore) -> str:
        """Return which numbers of the twin were rounded, as `restore` tells it; it stays."""
        return self._restored(restore)[1]

    def restores(self, restore: Restore, told: str) -> bool:
        """Let the twin have numbers that were rounded as they were; say whether these are they.

        Args:
            restore: Restores them in a typed model, and tells which.
            told: What it must tell; the twin stays as it is where it tells something else.
        """
        twin, found = self._restored(restore)
        if found != told:
            return False
        self.twin = twin
        return True

    def _restored(self, restore: Restore) -> tuple[ir.Model, str]:
        twin = clone(self.twin)
        apply(twin, solve(twin))
        return twin, restore(twin).restored

    def _ways(self, optimization: Optimization) -> Iterator[tuple[str, Callable[[], AnyRunner]]]:
        if self.runtime != "onnxruntime":
            yield RUNTIME_NAMES[self.runtime], lambda: self._elsewhere(optimization)
            return

        def start(source: str | os.PathLike[str] | ir.Model) -> Runner:
            return Runner(source, optimization=optimization, allowance=self.allowance)

        how, path = f"ONNX Runtime{self._arithmetic()}", self.path
        if weight_bytes(self.model) > ONE_SESSION:
            large = self.twin if self.changed else self.model
            yield (
                f"{how}, in segments",
                lambda: SegmentRunner(large, optimization=optimization, allowance=self.allowance),
            )
            return
        if self.changed:
            yield how, lambda: start(self.twin)
        elif self._is_packed():
            yield "the reference evaluator", lambda: self._loaded(start)
        else:
            if path is not None:
                yield how, lambda: start(path)
            # Staged, a model also runs whose data files are links, as in the Hugging Face cache.
            yield how, lambda: start(self.model)
        if self.emulated is None:
            yield f"the reference evaluator{self._arithmetic()}", self._evaluator

    def _elsewhere(self, optimization: Optimization) -> Runner:
        source = self.model if self.path is None else self.path
        return Runner(
            source, backend=self.runtime, optimization=optimization, allowance=self.allowance
        )

    def _loaded(self, start: Callable[[ir.Model], Runner]) -> Runner:
        """Return the evaluator's runner of a model, once ONNX Runtime has loaded it."""
        start(self.model).close()
        return self._evaluator()

    def _evaluator(self) -> Runner:
        model = self.twin if self.widened else self.model
        return Runner(model, backend="reference", allowance=self.allowance)

    def _is_packed(self) -> bool:
        """Say whether values go in or out that ONNX Runtime's Python interface does not take."""
        border = (*self.model.graph.inputs, *self.model.graph.outputs)
        return any(value.dtype in _PACKED for value in border)

    def _arithmetic(self) -> str:
        """Return how a twin computes, as the end of a phrase."""
        text = ""
        if self.emulated is not None:
            text += f", every value rounded to {self.emulated.name.lower()}"
        if self.widened:
            names = " and ".join(sorted(dtype.name.lower() for dtype in self.widened))
            text += f", {names} computed in float32"
        return text


def refuse_other_draws(a: Side, b: Side) -> None:
    """Refuse to compare models that draw at random where each is run by something else.

    Raises:
        VerifyError: With the same seed ONNX Runtime and the evaluator draw other numbers.
    """
    engines = {side.how.startswith("ONNX Runtime") for side in (a, b)}
    if len(engines) > 1 and draws(a.model):
        raise VerifyError(
            f"the models draw at random, and the first is run by {a.how} and the second by {b.how},"
            " which draw other numbers"
        )


def let_round(
    sides: tuple[Side, Side],
    dtype: ir.DataType | None,
    where: EmulatedIn | None,
    norms: Norms | None,
) -> None:
    """Say which of two models is to round its values.

    Args:
        sides: The reference and what is judged.
        dtype: The type whose values are rounded; None for none.
        where: As ``emulated_in`` of `verify`.
        norms: See `Side`.

    Raises:
        VerifyError: It is a module, in which nothing can be rounded.
    """
    if dtype is None:
        return
    a, b = sides
    a.role = "reference"
    if where is None:
        elsewhere = b.program is None and not _has(b.model, dtype) and _has(a.model, dtype)
        where = "reference" if elsewhere else "judged"
    for side, others in ((a, "judged"), (b, "reference")):
        if where == others:
            continue
        if side.program is not None:
            raise VerifyError("a module is run by PyTorch, and nothing in it can be rounded")
        side.emulated, side.norms = dtype, norms


def _has(model: ir.Model, dtype: ir.DataType) -> bool:
    """Whether a model has values of a type."""
    typing = solve(model)
    made = (value for node in all_nodes(model) for value in node.outputs)
    return any(typing.dtype(value) == dtype for value in (*model.graph.inputs, *made))


def sides_of(a: Source | Module, b: Source | Module, allowance: Allowance) -> tuple[Side, Side]:
    """Return two models, or a model and a PyTorch module, as what is compared.

    Args:
        a: The reference.
        b: What is judged.
        allowance: What running each may take.

    Raises:
        VerifyError: There is no model among them, or the module cannot be called as one.
    """
    modules = [is_module(each) for each in (a, b)]
    if not any(modules):
        return side_of(cast(Source, a), allowance), side_of(cast(Source, b), allowance)
    if all(modules):
        raise VerifyError("one of the two must be a model, which says what inputs there are")
    model, module = (b, a) if modules[0] else (a, b)
    found = side_of(cast(Source, model), allowance)
    names = [str(value.name) for value in found.model.graph.inputs if not value.is_initializer()]
    program = program_of(cast(Module, module), names)
    other = Side(found.model, allowance=allowance, program=program)
    return (other, found) if modules[0] else (found, other)


def side_of(source: Source, allowance: Allowance) -> Side:
    """Return a model as one of two that are compared."""
    if isinstance(source, ir.Model):
        return Side(source, allowance=allowance)
    path = source if isinstance(source, (str, os.PathLike)) else None
    return Side(load(source), path, allowance=allowance)
