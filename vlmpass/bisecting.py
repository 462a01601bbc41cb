"""Which pass, and which application of a rule, makes a model compute something else."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError, Refused, VerifyError, VlmpassError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.effects import NumberChanges
from vlmpass.ir_tools.graph.limit import Changes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.parts.changed_nodes import changed
from vlmpass.ir_tools.parts.lift import Lifter
from vlmpass.ir_tools.parts.outside_check import outside_check
from vlmpass.ir_tools.parts.reduction import smallest
from vlmpass.ir_tools.parts.selection import closed, taken_by
from vlmpass.ir_tools.proto.onnx_text import model_text
from vlmpass.ir_tools.run import Allowance, default_memory, generate_inputs, verify
from vlmpass.ir_tools.run.observed import observe
from vlmpass.ir_tools.run.request import Inputs, given_inputs
from vlmpass.ir_tools.system.arguments import flag, number, seconds, word, wrong
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.system.paths import folder_for
from vlmpass.ir_tools.worker.transport import Feed
from vlmpass.passes import PassManager, parse
from vlmpass.passes.instruments.instrument import Instrument, Step
from vlmpass.passes.instruments.limit import Limit
from vlmpass.replacing import Sources
from vlmpass.reproducer_folder import ReproducerFolder
from vlmpass.rewriter_rules.restore import restore

__all__ = ["BisectReport", "bisect"]

_NAMED = 3
_HOPS = 3
"""How far around the nodes of a change a reproducer may reach."""


@dataclass(frozen=True)
class BisectReport:
    """What a bisection found.

    Attributes:
        found: Whether the result of the pipeline fails at all.
        pipeline: Its text.
        changes: How many changes it makes.
        number: The first change after which it fails, counted from 1; 0 where none does.
        pass_text: The pass that makes it.
        rule: The rule, or what else the pass calls a single change; empty where all that the pass
            does is one change.
        node: The node it was made at; where all that the pass does is one change, the fewest nodes
            that it goes wrong on alone, which `before` and `after` show then.
        why: What is wrong after it.
        before: The nodes that the change takes away, as ONNX text.
        after: The nodes that it makes.
        replay: The command that makes all changes up to it.
        reproducer: Path of the smallest model over which the pass alone fails; None without one.
        inputs: Path of that model's inputs, as they are inside the whole.
        runs: How often the pipeline was run.
    """

    found: bool
    pipeline: str
    changes: int
    number: int = 0
    pass_text: str = ""
    rule: str = ""
    node: str = ""
    why: str = ""
    before: str = ""
    after: str = ""
    replay: str = ""
    reproducer: str | None = None
    inputs: str | None = None
    runs: int = 0


def bisect(
    source: Source,
    passes: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    tolerance: float | None = None,
    inputs: Inputs | None = None,
    seed: int = 0,
    check: str | None = None,
    check_time: float | None = None,
    force: bool = False,
    name: str | None = None,
) -> BisectReport:
    """Find the first change of a pipeline after which a model computes something else.

    Args:
        source: A path, or anything that `load` takes; it stays as it is.
        passes: Pipeline text.
        folder: Where a reproducer is written: ``reproducer.onnx`` and ``inputs.npz``; by default
            none is.
        tolerance: Largest relative error, as for `verify`.
        inputs: The user's own inputs, as for `verify`.
        seed: Of generated inputs.
        check: Instead of numbers, a command with ``{}`` where the model goes: what it fails on is
            wrong.
        check_time: Seconds that the command may take, by default 600; one that takes longer is
            ended, and fails.
        force: Replace what is called so in the folder; it goes even if nothing is found.
        name: What to call the source in the command that is told, if not by its path.

    Raises:
        ArgumentError: An argument is of a wrong type.
        PipelineError: The pipeline or the command is none.
        VerifyError: The source fails itself, or does not run.
        SaveError: The folder has a reproducer, or cannot have one.
        VlmpassError: The pipeline refuses the model.
    """
    home = None
    if folder is not None:
        place = folder_for(folder, "for the reproducer")
        home = ReproducerFolder(place, Sources(source, inputs), flag("force", force))
    judge = _Judge(
        seconds("tolerance", tolerance),
        inputs,
        number("seed", seed, None) or 0,
        word("check", check),
        seconds("check_time", check_time),
    )
    if not isinstance(passes, str):
        raise wrong("passes", passes, "pipeline text")
    parse(passes)
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    model = clone(source) if isinstance(source, ir.Model) else load(source)
    called = path if name is None else word("name", name)
    return _Bisection(model, passes, judge, called).run(home)


@dataclass
class _Judge:
    """Says what is wrong with a result, empty if nothing is."""

    tolerance: float | None
    inputs: Inputs | None
    seed: int
    check: str | None
    check_time: float | None = None

    def __post_init__(self) -> None:
        if self.check is not None and self.tolerance is not None:
            raise PipelineError(
                "a check decides without a tolerance", remedy="leave --tolerance or --check out"
            )
        if self.check is None and self.check_time is not None:
            raise PipelineError("no check is to be timed", remedy="give --check too")
        self._outside = None if self.check is None else outside_check(self.check, self.check_time)

    def why(
        self,
        source: ir.Model,
        result: ir.Model,
        changes: NumberChanges,
        inputs: Inputs | None,
    ) -> str:
        if self._outside is not None:
            return f"the check {self._outside.told}" if self._outside.fails(result) else ""
        found = verify(
            source,
            result,
            inputs=inputs,
            seed=self.seed,
            tolerance=self.tolerance,
            restore=restore,
            changes=changes,
        )
        wrong = [f"{each.name}: {each.reason}" for each in found.outputs if not each.ok]
        return "; ".join([*found.findings, *wrong])


class _Marks(Instrument):
    """Notes how many changes were made after each pass."""

    def __init__(self, changes: Changes) -> None:
        self.passes: list[tuple[str, int]] = []
        self._changes = changes

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        self.passes.append((step.text, self._changes.made))


@dataclass
class _State:
    """What a pipeline makes of a model up to a change."""

    model: ir.Model
    changes: Changes
    passes: Sequence[tuple[str, int]]
    why: str


@dataclass
class _Bisection:
    source: ir.Model
    passes: str
    judge: _Judge
    path: str | None
    runs: int = 0
    _states: dict[int | None, _State] = field(default_factory=dict)

    def run(self, home: ReproducerFolder | None) -> BisectReport:
        last = self._at(None)
        total = last.changes.made
        if not last.why:
            if home is not None:
                home.clear()
            return BisectReport(False, self.passes, total, runs=self.runs)
        if self._at(0).why:
            raise VerifyError(f"the source fails itself: {self._at(0).why}")
        good, bad = 0, total
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._at(middle).why:
                bad = middle
            else:
                good = middle
        return self._told(total, self._at(good), self._at(bad), home)

    def _at(self, limit: int | None) -> _State:
        if limit not in self._states:
            self.runs += 1
            self._states[limit] = self._state(limit)
        return self._states[limit]

    def _state(self, limit: int | None) -> _State:
        model, count = clone(self.source), Limit(limit)
        marks = _Marks(count.changes)
        try:
            manager = PassManager(parse(self.passes), (marks, count), source=self.path)
            report = manager.run(model, in_place=True)
        except VlmpassError as error:
            if limit is None:
                raise
            return _State(model, count.changes, marks.passes, error.problem)
        why = self.judge.why(self.source, model, report.changes, self.judge.inputs)
        return _State(model, count.changes, marks.passes, why)

    def _told(
        self, total: int, good: _State, bad: _State, home: ReproducerFolder | None
    ) -> BisectReport:
        number, last = bad.changes.made, bad.changes.last
        pass_text = next((text for text, made in bad.passes if made >= number), self.passes)
        rule, _, node = ("", "", "") if last == pass_text else last.partition(" at ")
        gone, come = changed(good.model, bad.model)
        lifter = Lifter(good.model)
        before, after = _text(lifter, gone), _text(Lifter(bad.model), come)
        small = None
        if home is not None or not rule:
            small = _Reproducer(lifter, pass_text, self.judge, self._feed).smallest(gone)
        if small is not None and not rule:  # of all that the pass does, this is wrong
            node = listed(map(name_node, small.model.graph), _NAMED)
            before, after = model_text(small.model), model_text(small.result)
        reproducer, given = None, None
        if home is not None:
            reproducer, given = home.write(small.model, small.feed) if small else home.clear()
        command = ["vlmpass", "convert", self.path or "<model>", "out.onnx", "--no-verify"]
        return BisectReport(
            True,
            self.passes,
            total,
            number,
            pass_text,
            rule,
            node,
            bad.why,
            before,
            after,
            shlex.join([*command, "--passes", self.passes, "--limit", str(number)]),
            reproducer,
            given,
            self.runs,
        )

    def _feed(self, model: ir.Model) -> Feed:
        given = given_inputs(self.judge.inputs, model)
        return generate_inputs(model, self.judge.seed) if given is None else given


def _text(lifter: Lifter, nodes: Sequence[ir.Node]) -> str:
    """Return nodes as ONNX text, with what they take and give; empty without any."""
    if not nodes:
        return ""
    try:
        return model_text(lifter.lift(closed(lifter.model, set(nodes)), "bisect"))
    except Refused:  # a border without a type
        return ""


@dataclass
class _Small:
    """A model over which a pass fails, what the pass makes of it, and inputs that show it."""

    model: ir.Model
    result: ir.Model
    feed: Feed


@dataclass
class _Reproducer:
    """Looks for the fewest nodes over which a pass fails with the values of the whole.

    Attributes:
        lifter: Of the model before the change.
        pass_text: The pass.
        judge: Says what is wrong.
        feed: Gives the inputs of the whole.
    """

    lifter: Lifter
    pass_text: str
    judge: _Judge
    feed: Callable[[ir.Model], Feed]
    _values: Feed = field(default_factory=dict)

    def smallest(self, gone: Sequence[ir.Node]) -> _Small | None:
        model = self.lifter.model
        regions = [*_around(gone), list(model.graph)] if gone else [list(model.graph)]
        for region in regions:
            self._observe(region)
            if not self._fails(region):
                continue
            few = smallest(region, lambda some: bool(some) and self._fails(some))
            piece = self.lifter.lift(closed(model, set(few)), "bisect")
            result = clone(piece)
            PassManager(parse(self.pass_text)).run(result, in_place=True)
            return _Small(piece, result, self._inputs(piece) or {})
        return None

    def _observe(self, region: Iterable[ir.Node]) -> None:
        """Note what goes into the nodes of a region inside the whole."""
        names = {
            str(value.name)
            for node in region
            for value in taken_by(node)
            if not value.is_initializer() and value.name not in self._values
        }
        if names and self.judge.check is None:
            with suppress(VerifyError):
                allowance = Allowance(default_memory())
                model = self.lifter.model
                self._values.update(observe(model, names, self.feed(model), allowance))

    def _inputs(self, piece: ir.Model) -> Feed | None:
        names = [str(value.name) for value in piece.graph.inputs]
        known = self._values
        return {n: known[n] for n in names} if all(n in known for n in names) else None

    def _fails(self, nodes: Sequence[ir.Node]) -> bool:
        try:
            piece = self.lifter.lift(closed(self.lifter.model, set(nodes)), "bisect")
            result = clone(piece)
            report = PassManager(parse(self.pass_text)).run(result, in_place=True)
            given: Mapping[str, object] | None = self._inputs(piece)
            return bool(self.judge.why(piece, result, report.changes, given))  # type: ignore[arg-type]
        except VlmpassError:
            return False


def _around(nodes: Sequence[ir.Node]) -> Iterable[list[ir.Node]]:
    """Yield nodes, and then more and more of those around them, in graph order."""
    found = dict.fromkeys(nodes)
    for _ in range(_HOPS + 1):
        order = [node for node in nodes[0].graph or () if node in found]
        yield order
        for node in order:
            makers = (value.producer() for value in taken_by(node))
            users = (use.node for value in node.outputs for use in value.uses())
            beside = (*makers, *users)
            found.update((n, None) for n in beside if n is not None and n.graph is node.graph)
