"""`vlmpass convert`: the main job."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmpass.cli.arguments import ReportJson, Source
from vlmpass.cli.console import show, show_json, status
from vlmpass.cli.given import takes_options
from vlmpass.cli.naming import output_beside
from vlmpass.cli.piped import PIPED, OutputPipe, model_given, no_pipe, path_given, whole
from vlmpass.cli.verb import DONE, verb
from vlmpass.convert_options import Comparing, ConvertOptions, Writing
from vlmpass.intent import Intent
from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.commits import unwatched
from vlmpass.ir_tools.system.paths import folder_for, output_file
from vlmpass.ir_tools.system.progress import telling
from vlmpass.options import told

if TYPE_CHECKING:
    from vlmpass.passes.instruments.instrument import Instrument

__all__ = ["convert"]


@verb
@takes_options(ConvertOptions)
def convert(
    source: Source,
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT",
            help="Where the result goes; beside IN by default, named after what was asked for,"
            " such as big.opset18.onnx; - is standard output.",
            show_default=False,
        ),
    ] = None,
    json: ReportJson = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Run the passes and plan the files, say what would be done, write nothing; with"
            " --verify compare, too.",
        ),
    ] = False,
    verify_each: Annotated[
        bool,
        typer.Option("--verify-each", help="Check types after every pass."),
    ] = False,
    dump: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the graph after every pass as text.",
            parser=path_given,
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Make no change after the Nth.",
            show_default=False,
        ),
    ] = None,
    **given: object,
) -> int:
    """Convert a model and write it in shards below 2 GB.

    The result passes ONNX's full type check and computes what IN computes, or nothing is written.
    IN stays as it is, unless it is OUT too; an earlier OUT stays usable until the new one is
    complete.
    """
    # What can be told to be wrong at once comes first: the imports that follow take seconds.
    _refuse_pipes(source, output, dump, given["calibrate"], json, dry_run)
    with ExitStack() as stack:
        file = stack.enter_context(model_given(source))
        asked = ConvertOptions(**given)  # type: ignore[arg-type]
        writing, pipe = asked.part(Writing), None
        if output == str(PIPED):
            pipe = stack.enter_context(OutputPipe())
            layout = whole(writing.laid_out, writing.weights)
            writing = replace(writing, layout=layout, shard_size=None)
        path = pipe.path if pipe else output or output_beside(source, _words(asked))
        output_file(path)
        if dump is not None:
            folder_for(dump, "to dump the graphs into")
        from vlmpass.cli.announce import announce
        from vlmpass.pipeline import Pipeline

        # What is put in place for a pipe goes away again: nobody is told that it stands.
        away = unwatched() if pipe else nullcontext()
        with status() as shown, telling(shown.segments), away:
            instruments = [announce(shown), *_instruments(verify_each, dump, limit)]
            pipeline = Pipeline(**told(asked, Intent), instruments=instruments)
            options = {**told(writing, Writing), **told(asked, Comparing)}
            if dry_run:
                report = pipeline.plan(file, path, **_planned(options))
            else:
                report = pipeline.convert(file, path, **options, progress=shown.bytes)
        if source == PIPED:
            report = replace(report, source=str(PIPED))
        if pipe is not None:
            pipe.send(report, asked.most_bytes)
        elif json:
            show_json(report.to_json())
        else:
            show(report)
    return DONE


def _planned(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a plan takes; what is not asked for is not compared."""
    compared = options["verify"] or (options["verify"] is None and options["verify_seconds"])
    kept = {name: value for name, value in options.items() if name != "jobs"}
    return {**kept, "verify": bool(compared)}


def _refuse_pipes(
    source: Path,
    output: str | None,
    dump: Path | None,
    calibrate: object,
    json: bool,
    dry_run: bool,
) -> None:
    no_pipe(dump, "--dump")
    no_pipe(None if calibrate is None else path_given(str(calibrate)), "--calibrate")
    if source == PIPED and output is None:
        raise SaveError(
            "standard input has no name to call the result after",
            remedy="name OUT, or - for standard output",
        )
    if output == str(PIPED) and dry_run:
        raise SaveError(
            "a dry run has nothing for standard output but its report", remedy="name OUT"
        )
    if output == str(PIPED) and json:
        raise SaveError(
            "standard output takes the model or the report, not both", remedy="leave --json out"
        )


def _instruments(verify_each: bool, dump: Path | None, limit: int | None) -> list[Instrument]:
    from vlmpass.passes.instruments.dump import Dump
    from vlmpass.passes.instruments.limit import Limit
    from vlmpass.passes.instruments.verify import VerifyEach

    found: list[Instrument] = []
    if limit is not None:
        found.append(Limit(limit))
    if dump is not None:
        found.append(Dump(dump))
    if verify_each:
        found.append(VerifyEach())
    return found


def _words(asked: ConvertOptions) -> list[str | None]:
    """Return what was asked for in words that a name may have."""
    opset, layout = asked.opset, asked.laid_out.value
    return [
        f"opset{opset}" if isinstance(opset, int) else f"opset-{opset}" if opset else None,
        asked.dtype,
        asked.profile.name if asked.profile is not None else None,
        asked.quant,
        asked.quantize,
        "simplified" if asked.simplify else None,
        "fused" if asked.fuse else None,
        "restamped" if asked.restamp else None,
        "passes" if asked.passes else None,
        layout if layout != "default" else None,
    ]
