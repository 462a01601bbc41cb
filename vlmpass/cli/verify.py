"""`vlmpass verify`: do two models compute the same?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from vlmpass.cli.arguments import Inputs, Seed
from vlmpass.cli.asked import Asked, judge_asked, refuse_beside, shapes_asked, side_asked
from vlmpass.cli.console import say, show, show_json, status
from vlmpass.cli.meant import as_meant
from vlmpass.cli.piped import models_given, no_pipe, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.system.progress import telling
from vlmpass.torch_source import module_named, names_module

if TYPE_CHECKING:
    import onnx_ir as ir

    from vlmpass.ir_tools.run import LayerComparison, Verification
    from vlmpass.ir_tools.run.torch_program import Module
    from vlmpass.ir_tools.system.runtime import Optimization, Runtime

    _Source: TypeAlias = Path | ir.Model | Module
    _Report: TypeAlias = Callable[[Verification, LayerComparison | None, str, str], None]

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
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the plots of --layers as files, error.svg and range.svg, in a folder.",
            parser=path_given,
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there instead of such files.")
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
    no_pipe(plots, "--plots")
    layers = layers or html is not None or plots is not None
    modules = [each for each in (reference, judged) if names_module(str(each))]
    recorded = reference if reference.suffix == ".npz" else None
    given = [each for each in (reference, judged) if each not in (*modules, recorded)]
    with models_given(*given) as files, status() as shown, telling(shown.segments):
        # What else can be told to be wrong at once: the imports that follow take seconds.
        level, ran, most = judge_asked(inputs, optimization, emulate, on, memory)
        where = side_asked(emulate_in, emulate)
        asked = Asked(inputs, shapes_asked(shape), seed, tolerance, emulate, where, most)
        refuse_beside(asked, layers, on, recorded, modules)
        shown.stage("comparing")
        reports = _reports(html, plots, force, (*files, recorded, inputs))
        if recorded is not None:
            found = _recorded(recorded, files[0], asked, level, ran)
            sources: list[_Source] = []
        else:
            sources = _sources(reference, judged, files)
            found = _compared(sources, asked, level, ran, layers)
        inside = _looked_into(found, sources, asked) if layers else None
    for report in reports:
        report(found, inside, reference.name, judged.name)
    _tell(found, inside, str(reference), str(judged), json)
    return DONE if found.ok else FINDINGS


def _sources(reference: Path, judged: Path, files: list[Path]) -> list[_Source]:
    """Return the models, and modules that Python files give, in the order of both."""
    rest = iter(files)
    return [
        module_named(str(each)) if names_module(str(each)) else as_meant(next(rest))
        for each in (reference, judged)
    ]


def _compared(
    sources: list[_Source],
    asked: Asked,
    level: Optimization | None,
    ran: Runtime,
    layers: bool,
) -> Verification:
    from vlmpass.ir_tools.run import verify as run_verify
    from vlmpass.rewriter_rules.restore import restore
    from vlmpass.rewriter_rules.unfuse.narrow_norms import narrow_norms

    with _quiet(sources):
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


def _quiet(sources: Sequence[object]) -> AbstractContextManager[object]:
    """Keep what a module prints out of the result."""
    from vlmpass.ir_tools.run.torch_program import is_module

    return redirect_stdout(sys.stderr) if any(map(is_module, sources)) else nullcontext()


def _reports(
    html: Path | None, plots: Path | None, force: bool, sources: Sequence[Path | None]
) -> list[_Report]:
    """Return what writes the page and the plots that are wanted, once it is known that it can."""
    from vlmpass.pages.layer_plots import LAYER_PLOTS, layer_plots
    from vlmpass.pages.layers_page import PAGE_MARK, layers_page
    from vlmpass.pages.plots import SVG_MARK
    from vlmpass.pages.report_files import ReportFiles

    made: list[_Report] = []
    if html is not None:
        page = ReportFiles(PAGE_MARK, html.parent, (html.name,), force, *sources)
        made.append(lambda *told: page.write({html.name: layers_page(*told)}))
    if plots is not None:
        drawn = ReportFiles(SVG_MARK, plots, LAYER_PLOTS, force, *sources, made=True)
        made.append(lambda found, *told: drawn.write(layer_plots(*told)))
    return made


def _recorded(
    outputs: Path, file: Path, asked: Asked, level: Optimization | None, ran: Runtime
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


def _looked_into(
    found: Verification, sources: list[_Source], asked: Asked
) -> LayerComparison | None:
    """Return what is said of values inside; None where the findings say why nothing is.

    Raises:
        VerifyError: Values cannot be compared, and no finding says why.
    """
    if not found.outputs:
        return None
    try:
        return _inside(sources, asked)
    except VerifyError:
        if not found.findings:
            raise
        say("vlmpass: note: no value inside was compared: a model does not run all of the inputs")
        return None


def _inside(sources: list[_Source], asked: Asked) -> LayerComparison:
    from vlmpass.ir_tools.run import compare_layers
    from vlmpass.rewriter_rules.restore import restore
    from vlmpass.rewriter_rules.unfuse.narrow_norms import narrow_norms

    with _quiet(sources):
        return compare_layers(
            *sources,
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
