"""`vlmpass convert`: the main job."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.console import show, show_json, status
from vlmpass.cli.naming import output_beside
from vlmpass.cli.piped import PIPED, OutputPipe, model_given, no_pipe, path_given, whole
from vlmpass.cli.verb import DONE, verb
from vlmpass.ir_tools.errors import PipelineError, SaveError
from vlmpass.ir_tools.save.commits import unwatched

if TYPE_CHECKING:
    from vlmpass.intent import Intent
    from vlmpass.passes.instruments.instrument import Instrument

__all__ = ["convert"]


@verb
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="The model; - reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Argument(
            metavar="OUT",
            help="Where the result goes; beside IN by default, named after what was asked for,"
            " such as big.opset18.onnx; - is standard output.",
            show_default=False,
        ),
    ] = None,
    opset: Annotated[
        str | None, typer.Option(metavar="N", help="Opset to convert to, or auto or lowest.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Compute in float32, float16 or bfloat16."),
    ] = None,
    keep_io: Annotated[
        bool,
        typer.Option("--keep-io", help="With --dtype: inputs and outputs keep their types."),
    ] = False,
    widen_io: Annotated[
        bool,
        typer.Option(
            "--widen-io",
            help="With --opset: inputs and outputs of a type that it lacks take a wider one, such"
            " as int8 for int4.",
        ),
    ] = False,
    restamp: Annotated[
        bool,
        typer.Option(
            "--restamp",
            help="Stamp the opset that the nodes are written for where the file says another,"
            " before all else.",
        ),
    ] = False,
    mend_shifts: Annotated[
        bool,
        typer.Option(
            "--mend-shifts",
            help="Unpack negative words as PyTorch does where the exporter divided for >>.",
        ),
    ] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="With half precision: random, or an .npz file of inputs, to find what overflows"
            " and keep it in float32.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep within what this runtime reads: ort-cpu."),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="Make each GPTQ or AWQ layer matmul-nbits, dequantize-linear or float.",
        ),
    ] = None,
    simplify: Annotated[
        bool, typer.Option("--simplify", help="Leave as few nodes as possible.")
    ] = False,
    fuse: Annotated[
        str | None,
        typer.Option(
            metavar="WHOSE",
            help="Make normalisations and activations one operator each: standard, or ort for"
            " ONNX Runtime's own.",
        ),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Run these passes instead, such as 'infer,convert-opset{to=18}';"
            " see vlmpass passes.",
        ),
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Compare the result's numbers with the source's on ONNX Runtime, however long it"
            " takes; by default for two minutes. Types are always checked, and what is for a"
            " --target is loaded.",
            show_default=False,
        ),
    ] = None,
    verify_time: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.0, help="How long comparing may take.", show_default=False
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What ONNX Runtime may take beside the weights to load and compare, as 8GB; by"
            " default a quarter of the memory, 4GB at most.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    shard_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="No file is larger, as 500MB or 2GiB; by default 2GB.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="default, hf (transformers.js), single, inline or safetensors.",
        ),
    ] = "default",
    weights: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="Data files that need no change: keep, copy, or auto.",
        ),
    ] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Threads that write.", show_default=False),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an OUT that is not a model."),
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
) -> int:
    """Convert a model and write it in shards below 2 GB.

    The result passes ONNX's full type check and computes what IN computes, or nothing is written.
    IN stays as it is, unless it is OUT too; an earlier OUT stays usable until the new one is
    complete.
    """
    from vlmpass.intent import Intent
    from vlmpass.ir_tools.save import parse_size
    from vlmpass.ir_tools.save.layout import layout_of, refuse_contradiction, way_of
    from vlmpass.ir_tools.save.size import SHARD_LIMIT
    from vlmpass.ir_tools.system.paths import folder_for, output_file
    from vlmpass.passes.pipeline.named import read_named

    # What can be told to be wrong at once comes first: the imports that follow take seconds.
    _refuse_pipes(source, output, dump, calibrate, json)
    with ExitStack() as stack:
        file = stack.enter_context(model_given(source))
        intent = Intent(
            opset,
            dtype,
            target,
            quant,
            simplify,
            fuse,
            keep_io,
            calibrate,
            widen_io,
            mend_shifts,
            restamp,
        )
        if passes is not None:
            intent.refuse_beside_passes()
            read_named(passes)
        kind, way = layout_of(layout), way_of(weights)
        refuse_contradiction(kind, way, limited=shard_size is not None)
        pipe = None
        if output == str(PIPED):
            pipe = stack.enter_context(OutputPipe())
            kind = whole(kind, way)
        path = (
            pipe.path if pipe else output or output_beside(source, _words(intent, passes, layout))
        )
        output_file(path)
        if dump is not None:
            folder_for(dump, "to dump the graphs into")
        if verify is False and verify_time is not None:
            raise PipelineError(
                "--verify-time is about comparing, and --no-verify was given",
                remedy="leave one of them out",
            )
        shard_bytes = None if shard_size is None else parse_size(shard_size)
        most = None if memory is None else parse_size(memory)
        from vlmpass.cli.announce import announce
        from vlmpass.pipeline import Pipeline

        # What is put in place for a pipe goes away again: nobody is told that it stands.
        with status() as shown, unwatched() if pipe else nullcontext():
            instruments = [announce(shown), *_instruments(verify_each, dump, limit)]
            pipeline = Pipeline(passes, instruments=instruments, **vars(intent))
            report = pipeline.convert(
                file,
                path,
                shard_size=None if pipe else shard_bytes,
                layout=kind,
                weights=way,
                jobs=jobs,
                verify=verify,
                memory=most,
                verify_seconds=verify_time,
                force=force,
                progress=shown.bytes,
            )
        if source == PIPED:
            report = replace(report, source=str(PIPED))
        if pipe is not None:
            pipe.send(report, SHARD_LIMIT if shard_bytes is None else shard_bytes)
        elif json:
            show_json(report.to_json())
        else:
            show(report)
    return DONE


def _refuse_pipes(
    source: Path, output: str | None, dump: Path | None, calibrate: str | None, json: bool
) -> None:
    no_pipe(dump, "--dump")
    no_pipe(None if calibrate is None else path_given(calibrate), "--calibrate")
    if source == PIPED and output is None:
        raise SaveError(
            "standard input has no name to call the result after",
            remedy="name OUT, or - for standard output",
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


def _words(intent: Intent, passes: str | None, layout: str) -> list[str | None]:
    """Return what was asked for in words that a name may have."""
    opset = intent.opset
    words = [
        f"opset{opset}" if isinstance(opset, int) else f"opset-{opset}" if opset else None,
        intent.dtype,
        intent.target,
        intent.quant,
        "simplified" if intent.simplify else None,
        "fused" if intent.fuse else None,
        "restamped" if intent.restamp else None,
        "passes" if passes else None,
    ]
    return [*words, layout if layout != "default" else None]
