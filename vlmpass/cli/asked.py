"""What a comparison is asked for on the command line, held to what goes together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmpass.cli.piped import no_pipe

if TYPE_CHECKING:
    from vlmpass.ir_tools.run import Allowance
    from vlmpass.ir_tools.run.request import EmulatedIn
    from vlmpass.ir_tools.system.runtime import Optimization, Runtime

__all__ = ["Asked", "judge_asked", "refuse_beside", "shapes_asked", "side_asked"]


@dataclass(frozen=True)
class Asked:
    """What is asked of a comparison, of outputs or of values inside."""

    inputs: Path | None
    shapes: dict[str, int | list[int]] | None
    seed: int
    tolerance: float | None
    emulate: str | None
    emulate_in: EmulatedIn | None
    most: int | None

    def allowance(self) -> Allowance:
        """Return what running each of the two may take."""
        from vlmpass.ir_tools.run import Allowance, default_memory

        return Allowance(self.most or default_memory())


def shapes_asked(given: list[str] | None) -> dict[str, int | list[int]] | None:
    """Return sizes and shapes as they are meant: ``seq=64``, ``pixels=1x3x224x224``.

    Raises:
        VerifyError: A text is none of these.
    """
    from vlmpass.ir_tools.errors import VerifyError

    found: dict[str, int | list[int]] = {}
    for text in given or ():
        name, _, told = text.rpartition("=")
        sizes = told.split("x")
        if not name or not all(each.isdecimal() for each in sizes):
            raise VerifyError(
                f"--shape '{text}' is no size", remedy="write seq=64 or pixels=1x3x224x224"
            )
        numbers = [int(each) for each in sizes]
        found[name] = numbers if len(numbers) > 1 else numbers[0]
    return found or None


def refuse_beside(
    asked: Asked, layers: bool, on: str | None, recorded: Path | None, modules: list[Path]
) -> None:
    """Refuse what does not go together.

    Args:
        asked: What is asked.
        layers: Whether values inside are to be compared.
        on: What is to run the judged model, if anything else than ONNX Runtime.
        recorded: The file of recorded outputs, if the reference is one.
        modules: Which of the two are modules.

    Raises:
        VerifyError: With what is to be left out or given.
    """
    from vlmpass.ir_tools.errors import VerifyError

    emulated = asked.emulate is not None
    if recorded is not None and asked.inputs is None:
        raise VerifyError(
            "recorded outputs say nothing without the inputs they are of",
            remedy="give them with --inputs file.npz",
        )
    if recorded is not None and (layers or emulated):
        what = "--layers" if layers else "--emulate"
        raise VerifyError(f"{what} needs a reference that runs", remedy="name a model for A")
    if len(modules) > 1 or (recorded is not None and modules):
        raise VerifyError("one of the two must be a model", remedy="name its file")
    if on is not None and (emulated or layers):
        what = "--layers looks into" if layers else "--emulate rounds"
        raise VerifyError(
            f"{what} what ONNX Runtime runs, and {on} is to run B", remedy="leave one of them out"
        )


def side_asked(given: str | None, emulate: str | None) -> EmulatedIn | None:
    """Return which of the two models is rounded.

    Args:
        given: The text of --emulate-in.
        emulate: Of --emulate.

    Raises:
        PipelineError: There is no such choice.
        VerifyError: Nothing is to be rounded.
    """
    from vlmpass.ir_tools.errors import VerifyError
    from vlmpass.ir_tools.run.request import EMULATED_IN
    from vlmpass.options import nearest

    found = next((each for each in EMULATED_IN if each == given), None)
    if found is None and given is not None:
        raise nearest(given, EMULATED_IN, "model to round in")
    if found is not None and emulate is None:
        raise VerifyError("--emulate-in rounds nothing alone", remedy="give --emulate bfloat16 too")
    return found


def judge_asked(
    inputs: Path | None,
    optimization: str | None,
    emulate: str | None,
    on: str | None,
    memory: str | None,
) -> tuple[Optimization | None, Runtime, int | None]:
    """Refuse what can be told to be wrong at once; return the rest as it is meant.

    Args:
        inputs: Of --inputs.
        optimization: The text of --optimization.
        emulate: Of --emulate.
        on: Of --on.
        memory: Of --memory.

    Returns:
        ONNX Runtime's level, what runs the judged model, and the bytes that a run may take.

    Raises:
        VlmpassError: One of them is none, or what runs is not installed.
    """
    from vlmpass.intent import HALVES
    from vlmpass.ir_tools.save import parse_size
    from vlmpass.ir_tools.system.paths import inputs_file
    from vlmpass.ir_tools.system.runtime import OPTIMIZATIONS, RUNTIMES, require_runtime
    from vlmpass.options import nearest

    no_pipe(inputs, "--inputs")
    if inputs is not None:
        inputs_file(inputs)
    level = next((each for each in OPTIMIZATIONS if each == optimization), None)
    if level is None and optimization is not None:
        raise nearest(optimization, OPTIMIZATIONS, "optimisation level")
    if emulate is not None and emulate not in HALVES:
        raise nearest(emulate, HALVES, "element type to emulate")
    ran = next((each for each in RUNTIMES if each == (on or RUNTIMES[0])), None)
    if ran is None:
        raise nearest(str(on), RUNTIMES, "runtime")
    require_runtime(RUNTIMES[0])
    require_runtime(ran)
    return level, ran, None if memory is None else parse_size(memory)
