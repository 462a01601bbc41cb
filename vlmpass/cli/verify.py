"""`vlmpass verify`: do two models compute the same?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.arguments import Inputs, Seed
from vlmpass.cli.console import show, show_json, status
from vlmpass.cli.piped import models_given, no_pipe, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb
from vlmpass.ir_tools.system.progress import telling
from vlmpass.torch_source import module_named, names_module

if TYPE_CHECKING:
    from vlmpass.ir_tools.run import Allowance, LayerComparison, Verification
    from vlmpass.ir_tools.run.request import EmulatedIn
    from vlmpass.ir_tools.run.torch_program import Module
    from vlmpass.ir_tools.system.runtime import Optimization, Runtime
    from vlmpass.pages.layers_page import PageFile

__all__ = ["verify"]


@verb
def verify(
    reference: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="The reference, or an .npz of outputs that were recorded of it, for --inputs, or a"
            " PyTorch module, as tower.py:make; - reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    judged: Annotated[
        Path,
        typer.Argument(
            metavar="B",
            help="What is judged, a module, too, if A is none; - reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    inputs: Inputs = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE",
            help="Of generated inputs: a size by dimension or a shape by input, such as seq=64 or"
            " pixels=1x3x224x224; may be given again.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0.0,
            help="Largest relative error allowed; by default 1e-4 for float32; for half"
            " precisions the error's norm counts too (docs/verifying.md).",
            show_default=False,
        ),
    ] = None,
    optimization: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="ONNX Runtime's: none, basic, extended or all; by default basic, and none before"
            " two models are said to differ.",
            show_default=False,
        ),
    ] = None,
    emulate: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Round every value of this type, float16 or bfloat16, as hardware does that"
            " computes in it; ONNX Runtime's CPU hides overflow.",
            show_default=False,
        ),
    ] = None,
    emulate_in: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="Round in judged, reference or both; by default in B where it has the type, and"
            " else in A, as a bfloat16 source is computed where it comes from.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME",
            help="What runs B instead of ONNX Runtime: openvino, iree or ort-web-wasm.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What running a model may take beside its weights, as 8GB; by default a quarter"
            " of the memory, 4GB at most.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Compare the values inside, too: say which is the first that differs.",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what --layers compares as a page with plots, in one file.",
            parser=path_given,
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there instead of such a page.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> int:
    """Run two models on the same inputs and compare every output.

    Inputs are generated from A: ids, masks, positions, caches and pixels by name, type and use, at
    two sizes of every dynamic dimension. Each model runs on ONNX Runtime in a process of its own.
    Exit code 1 if an output differs by more than the tolerance. With --emulate, A is computed in
    float32, and may be B itself, unless --emulate-in rounds it.
    """
    no_pipe(html, "--html")
    layers = layers or html is not None
    modules = [each for each in (reference, judged) if names_module(str(each))]
    recorded = reference if reference.suffix == ".npz" else None
    given = [each for each in (reference, judged) if each not in (*modules, recorded)]
    with models_given(*given) as files, status() as shown, telling(shown.segments):
        # What else can be told to be wrong at once: the imports that follow take seconds.
        level, ran, most = _judged(inputs, optimization, emulate, on, memory)
        where = _emulated_in(emulate_in, emulate)
        asked = _Asked(inputs, _shapes(shape), seed, tolerance, emulate, where, most)
        _refuse_beside(asked, layers, on, recorded, modules)
        shown.stage("comparing")
        page = None if html is None else _page(html, force, (*files, recorded, inputs))
        if recorded is not None:
            found = _recorded(recorded, files[0], asked, level, ran)
        else:
            sources = _sources(reference, judged, files)
            found = _compared(sources, asked, level, ran, layers)
        # Where nothing was compared, the findings say why, of the values inside, too.
        inside = _inside(files, asked) if layers and bool(found.outputs) else None
    if page is not None:
        from vlmpass.pages.layers_page import layers_page

        page.write(layers_page(found, inside, reference.name, judged.name))
    _tell(found, inside, str(reference), str(judged), json)
    return DONE if found.ok else FINDINGS


@dataclass(frozen=True)
class _Asked:
    """What is asked of a comparison, of outputs or of values inside."""

    inputs: Path | None
    shapes: dict[str, int | list[int]] | None
    seed: int
    tolerance: float | None
    emulate: str | None
    emulate_in: EmulatedIn | None
    most: int | None

    def allowance(self) -> Allowance:
        from vlmpass.ir_tools.run import Allowance, default_memory

        return Allowance(self.most or default_memory())


def _shapes(given: list[str] | None) -> dict[str, int | list[int]] | None:
    """Return sizes and shapes as they are meant: ``seq=64``, ``pixels=1x3x224x224``."""
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


def _sources(reference: Path, judged: Path, files: list[Path]) -> list[Path | Module]:
    """Return the models' files, and modules that Python files give, in the order of both."""
    rest = iter(files)
    return [
        module_named(str(each)) if names_module(str(each)) else next(rest)
        for each in (reference, judged)
    ]


def _compared(
    sources: list[Path | Module],
    asked: _Asked,
    level: Optimization | None,
    ran: Runtime,
    layers: bool,
) -> Verification:
    from vlmpass.ir_tools.run import verify as run_verify
    from vlmpass.rewriter_rules.restore import restore
    from vlmpass.rewriter_rules.unfuse.narrow_norms import narrow_norms

    # What a module prints is no result.
    with redirect_stdout(sys.stderr) if any(map(_is_module, sources)) else nullcontext():
        return run_verify(
            *sources,
            inputs=asked.inputs,
            shapes=asked.shapes,
            seed=asked.seed,
            tolerance=asked.tolerance,
            optimization=level,
            emulated=asked.emulate,
            emulated_in=asked.emulate_in,
            on=ran,
            norms=narrow_norms if layers else None,
            restore=restore,
            allowance=asked.allowance(),
        )


def _is_module(source: object) -> bool:
    return not isinstance(source, Path)


def _refuse_beside(
    asked: _Asked, layers: bool, on: str | None, recorded: Path | None, modules: list[Path]
) -> None:
    """Refuse what does not go together.

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
    if (recorded is not None and (layers or emulated)) or (modules and layers):
        what = "--layers" if layers else "--emulate"
        raise VerifyError(f"{what} needs a reference that runs", remedy="name a model for A")
    if len(modules) > 1 or (recorded is not None and modules):
        raise VerifyError("one of the two must be a model", remedy="name its file")
    if on is not None and (emulated or layers):
        what = "--layers looks into" if layers else "--emulate rounds"
        raise VerifyError(
            f"{what} what ONNX Runtime runs, and {on} is to run B", remedy="leave one of them out"
        )


def _page(html: Path, force: bool, sources: Sequence[Path | None]) -> PageFile:
    from vlmpass.pages.layers_page import PageFile

    return PageFile(html, force, *sources)


def _recorded(
    outputs: Path, file: Path, asked: _Asked, level: Optimization | None, ran: Runtime
) -> Verification:
    from vlmpass.ir_tools.run import verify_recorded

    return verify_recorded(
        outputs,
        file,
        inputs=asked.inputs or "",
        tolerance=asked.tolerance,
        optimization=level,
        on=ran,
        allowance=asked.allowance(),
    )


def _inside(files: list[Path], asked: _Asked) -> LayerComparison:
    from vlmpass.ir_tools.run import compare_layers
    from vlmpass.rewriter_rules.restore import restore
    from vlmpass.rewriter_rules.unfuse.narrow_norms import narrow_norms

    return compare_layers(
        *files,
        inputs=asked.inputs,
        shapes=asked.shapes,
        seed=asked.seed,
        tolerance=asked.tolerance,
        emulated=asked.emulate,
        emulated_in=asked.emulate_in,
        norms=narrow_norms,
        restore=restore,
        allowance=asked.allowance(),
    )


def _tell(
    found: Verification, inside: LayerComparison | None, expected: str, actual: str, json: bool
) -> None:
    from vlmpass.report import to_data
    from vlmpass.screens.layers import layers_screen
    from vlmpass.screens.verification import verification_screen

    if json:
        data = to_data(found)
        assert isinstance(data, dict)
        more = {} if inside is None else {"layers": to_data(inside)}
        show_json({"reference": expected, "judged": actual, **data, **more})
        return
    show(verification_screen(found, expected, actual))
    if inside is not None:
        show(layers_screen(inside))


def _emulated_in(given: str | None, emulate: str | None) -> EmulatedIn | None:
    """Return which of the two models is rounded.

    Raises:
        VlmpassError: There is no such choice, or nothing is to be rounded.
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


def _judged(
    inputs: Path | None,
    optimization: str | None,
    emulate: str | None,
    on: str | None,
    memory: str | None,
) -> tuple[Optimization | None, Runtime, int | None]:
    """Refuse what can be told to be wrong at once; return the rest as it is meant."""
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
