"""`vlmpass verify`: do two models compute the same?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.arguments import Inputs, Seed
from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import models_given, no_pipe, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb

if TYPE_CHECKING:
    from vlmpass.ir_tools.run import LayerComparison, Verification
    from vlmpass.ir_tools.system.runtime import Optimization, Runtime
    from vlmpass.pages.layers_page import PageFile

__all__ = ["verify"]


@verb
def verify(
    reference: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="The reference, or an .npz of outputs that were recorded of it, for --inputs; -"
            " reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    judged: Annotated[
        Path,
        typer.Argument(
            metavar="B",
            help="What is judged; - reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    inputs: Inputs = None,
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
            help="Round every value of this type in B, float16 or bfloat16, as hardware does that"
            " computes in it; ONNX Runtime's CPU hides overflow.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="RUNTIME",
            help="What runs B instead of ONNX Runtime: openvino.",
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
    float32, and may be B itself.
    """
    no_pipe(html, "--html")
    layers = layers or html is not None
    recorded = reference if reference.suffix == ".npz" else None
    given = (judged,) if recorded is not None else (reference, judged)
    with models_given(*given) as files:
        # What else can be told to be wrong at once: the imports that follow take seconds.
        level, ran, most = _judged(inputs, optimization, emulate, on, memory)
        if on is not None:
            _refuse_elsewhere(on, emulate, layers)
        page = None if html is None else _page(html, force, (*files, recorded, inputs))
        if recorded is not None:
            _refuse_beside_recorded(inputs, emulate, layers)
            found = _recorded(recorded, files[0], inputs, tolerance, level, ran, most)
        else:
            found = _compared(files, inputs, seed, tolerance, level, emulate, ran, most)
        # Where nothing was compared, the findings say why, of the values inside, too.
        wanted = layers and bool(found.outputs)
        inside = _inside(files, inputs, seed, tolerance, emulate, most) if wanted else None
    if page is not None:
        from vlmpass.pages.layers_page import layers_page

        page.write(layers_page(found, inside, reference.name, judged.name))
    from vlmpass.report import to_data
    from vlmpass.screens.verification import verification_screen

    if json:
        data = to_data(found)
        assert isinstance(data, dict)
        more = {} if inside is None else {"layers": to_data(inside)}
        show_json({"reference": str(reference), "judged": str(judged), **data, **more})
    else:
        show(verification_screen(found, str(reference), str(judged)))
        if inside is not None:
            from vlmpass.screens.layers import layers_screen

            show(layers_screen(inside))
    return DONE if found.ok else FINDINGS


def _compared(
    files: list[Path],
    inputs: Path | None,
    seed: int,
    tolerance: float | None,
    level: Optimization | None,
    emulate: str | None,
    ran: Runtime,
    most: int | None,
) -> Verification:
    from vlmpass.ir_tools.run import Allowance, default_memory
    from vlmpass.ir_tools.run import verify as run_verify
    from vlmpass.rewriter_rules.restore import restore

    return run_verify(
        *files,
        inputs=inputs,
        seed=seed,
        tolerance=tolerance,
        optimization=level,
        emulated=emulate,
        on=ran,
        restore=restore,
        allowance=Allowance(most or default_memory()),
    )


def _refuse_elsewhere(on: str, emulate: str | None, layers: bool) -> None:
    from vlmpass.ir_tools.errors import VerifyError

    if emulate is not None or layers:
        what = "--layers looks into" if layers else "--emulate rounds"
        raise VerifyError(
            f"{what} what ONNX Runtime runs, and {on} is to run B", remedy="leave one of them out"
        )


def _page(html: Path, force: bool, sources: Sequence[Path | None]) -> PageFile:
    from vlmpass.pages.layers_page import PageFile

    return PageFile(html, force, *sources)


def _refuse_beside_recorded(inputs: Path | None, emulate: str | None, layers: bool) -> None:
    from vlmpass.ir_tools.errors import VerifyError

    if inputs is None:
        raise VerifyError(
            "recorded outputs say nothing without the inputs they are of",
            remedy="give them with --inputs file.npz",
        )
    if emulate is not None or layers:
        what = "--layers" if layers else "--emulate"
        raise VerifyError(f"{what} needs a reference that runs", remedy="name a model for A")


def _recorded(
    outputs: Path,
    file: Path,
    inputs: Path | None,
    tolerance: float | None,
    level: Optimization | None,
    ran: Runtime,
    most: int | None,
) -> Verification:
    from vlmpass.ir_tools.run import Allowance, default_memory, verify_recorded

    return verify_recorded(
        outputs,
        file,
        inputs=inputs or "",
        tolerance=tolerance,
        optimization=level,
        on=ran,
        allowance=Allowance(most or default_memory()),
    )


def _inside(
    files: list[Path],
    inputs: Path | None,
    seed: int,
    tolerance: float | None,
    emulate: str | None,
    most: int | None,
) -> LayerComparison:
    from vlmpass.ir_tools.run import Allowance, compare_layers, default_memory
    from vlmpass.rewriter_rules.restore import restore

    return compare_layers(
        *files,
        inputs=inputs,
        seed=seed,
        tolerance=tolerance,
        emulated=emulate,
        restore=restore,
        allowance=Allowance(most or default_memory()),
    )


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
