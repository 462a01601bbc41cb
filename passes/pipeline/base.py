"""What a pass is: a frozen dataclass whose fields are its options and whose text is its name.

A pass is an onnx_ir pass to the outside, so that it runs in an onnx_ir pipeline as it is.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges, changes
from vlmpass.ir_tools.system.arguments import shown
from vlmpass.passes.pipeline.kinds import BadValueError
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.pipeline.options import options_of

if TYPE_CHECKING:
    from vlmpass.ir_tools.rewrite import Rewrites

__all__ = ["Done", "OptionError", "Pass", "Result", "text_of"]


class OptionError(PipelineError):
    """An option has the right type and still an impossible value.

    Args:
        option: Its name as written in a pipeline; the parser puts the caret under its value.
        problem: What is wrong with the value.
        remedy: What to write instead.
    """

    def __init__(self, option: str, problem: str, *, remedy: str = "") -> None:
        super().__init__(f"option '{option}': {problem}", remedy=remedy)
        self.option = option


@dataclass(frozen=True)
class Done:
    """What a pass did; true if it changed something.

    Attributes:
        changed: Whether it changed something.
        changes: What it did to numbers.
    """

    changed: bool
    changes: NumberChanges = EXACT

    def __bool__(self) -> bool:
        return self.changed

    @classmethod
    def of(cls, rewrites: Rewrites, *, changed: bool = False) -> Done:
        """Return what rules did.

        Args:
            rewrites: As `apply_rules` returns it.
            changed: Whether something was changed before.
        """
        return cls(changed or bool(rewrites), rewrites.changes)


@dataclass
class Result(ir.passes.PassResult):
    """A model after a pass, and what that did to numbers."""

    changes: NumberChanges = EXACT


@dataclass(frozen=True)
class Pass(ir.passes.InPlacePass):
    """One thing done to a whole model.

    A subclass is a frozen dataclass with a `name`, options as fields (each with a string under it
    that documents it) and `run`. Option types: int, float, bool, str, Literal of strings,
    ``tuple[T, ...]`` of these, unions with None or each other, and ``tuple[tuple[str, T], ...]``
    for options of any name. The first line of its docstring says in the imperative what it does.
    """

    name: ClassVar[str]
    idempotent: ClassVar[bool] = True
    """Whether a second run right after the first has nothing to do, so that it may be left out."""
    keeps_values: ClassVar[bool] = False
    """Whether every value that stays in the model holds what it held, name and all."""

    effects: ClassVar[frozenset[Effect]] = frozenset()
    """What it does to numbers wherever it changes something, and does not say more exactly."""

    mends_source: ClassVar[bool] = False
    """Whether it changes what a model computes to what was meant, so that a result is compared with
    the source after this pass."""

    changes_interface: ClassVar[bool] = False
    """Whether what it changes takes other inputs than the source, with which a result is then not
    compared."""

    rounds: ClassVar[str] = ""
    """What it rounds by more than a result may differ, so that a result is compared with the model
    before this pass after `round_likewise`; empty for nothing."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    """What the manager provides before it runs."""

    edits_shapes: ClassVar[bool] = False
    """Whether what is declared of values may be wrong after it."""

    nothing: ClassVar[str] = ""
    """What is said where it was asked for and changed nothing; empty for one that tidies up."""

    @property
    def half(self) -> ir.DataType | None:
        """The half precision that it brings a model to, which is then judged as hardware rounds."""
        return None

    def __post_init__(self) -> None:
        """Check the options' types; a subclass that also checks values calls this first."""
        for option in options_of(type(self)):
            value = getattr(self, option.field)
            try:
                object.__setattr__(self, option.field, option.accept(value))
            except BadValueError:
                raise OptionError(
                    option.name,
                    f"{self.name} takes {option.kind.says} here, such as {option.kind.example}, "
                    f"not {shown(value)}",
                ) from None

    def needed(self, model: ir.Model) -> frozenset[Need]:
        """Return which of its needs it has of this very model."""
        return self.needs

    def mending(self) -> Pass | None:
        """Return what brings a source to what a result is compared with; None for the source."""
        return self if self.mends_source else None

    def round_likewise(self, model: ir.Model, done: set[ir.Value]) -> None:
        """Let weights, and what they multiply, be what this pass leaves of them, as floats.

        Args:
            model: As it is before this pass; changed in place.
            done: The weights that passes before this one rounded; those of this one are added.
        """

    @abc.abstractmethod
    def run(self, model: ir.Model) -> bool | Done:
        """Change a model in place.

        Args:
            model: Any model; it may be left half changed only if this raises.

        Returns:
            True if anything changed, or with what was done to numbers; a second run right after
            the first returns False.

        Raises:
            Refused: It cannot be done right; the error lists every offending node.
        """

    @final
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run as an onnx_ir pass."""
        done = self.run(model)
        if not isinstance(done, Done):
            done = Done(done, changes(*self.effects) if done else EXACT)
        return Result(model, done.changed, done.changes)

    def __str__(self) -> str:
        """Return the pipeline text of this pass: its name and what differs from the defaults."""
        options = options_of(type(self))
        declared = [option.name for option in options if not option.free]
        written = [
            text
            for option in options
            if option.required or getattr(self, option.field) != option.default
            for text in option.write(getattr(self, option.field), declared)
        ]
        return f"{self.name}{{{' '.join(written)}}}" if written else self.name


def text_of(each: ir.passes.PassBase) -> str:
    """Return the pipeline text of any pass; for one of another package, that of its class alone."""
    if isinstance(each, Pass):
        return str(each)
    return f"foreign{{class={type(each).__module__}:{type(each).__qualname__}}}"
