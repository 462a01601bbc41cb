"""Programs that are compared with a model: they take what it takes and give what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.runner import AnyRunner, Engine, RunError
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Part", "Program", "ProgramRunner", "See"]


class Part(NamedTuple):
    """A tensor that a module of a program takes or gives.

    Attributes:
        path: The module's, empty for the program itself.
        taken: Whether it is an argument.
        call: Which call of the module it is of, counted from 0.
        place: Which of the call's tensors it is, counted from 0.
    """

    path: str
    taken: bool
    call: int
    place: int

    def __str__(self) -> str:
        """Return its name for people: ``layers.0.mlp``, ``input of head``, ``act[1], call 2``."""
        what = self.path or "the module"
        what = f"input of {what}" if self.taken else what
        what += f"[{self.place}]" if self.place else ""
        return what + (f", call {self.call + 1}" if self.call else "")


See = Callable[[Part, Array], None]
"""Is shown what modules take and give, in the order in which they do."""


@dataclass(frozen=True)
class Program:
    """Something that computes.

    Attributes:
        run: Returns the outputs, in a model's order, for inputs by name. Whatever it raises says
            that it does not take them.
        engine: What it runs on, whose errors there are.
        watched: Runs it like `run`, and shows what its modules take and give.
        modules: Every module by its path, and by other paths that lead to it.
    """

    run: Callable[[Mapping[str, object]], Sequence[Array]]
    engine: Engine
    watched: Callable[[Mapping[str, object], See], None]
    modules: Mapping[str, str] = field(default_factory=dict)


class ProgramRunner(AnyRunner):
    """Runs a program in this process, as `Runner` runs a model.

    Args:
        program: What runs.
        model: Names its outputs.
    """

    def __init__(self, program: Program, model: ir.Model) -> None:
        self._program = program
        self._names = [str(value.name) for value in model.graph.outputs]

    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name.

        Raises:
            RunError: It does not take these inputs.
            VerifyError: It gives more outputs than the model, or fewer.
        """
        try:
            made = self._program.run(inputs)
        except VerifyError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            raise RunError("run", self._program.engine, told) from error
        if len(made) != len(self._names):
            raise VerifyError(
                f"the model has {len(self._names)} outputs, where the program has {len(made)}"
            )
        return dict(zip(self._names, made, strict=True))

    def stop(self) -> None:
        """Do nothing: there is no process."""

    def close(self) -> None:
        """Do nothing: what was made is the caller's."""
