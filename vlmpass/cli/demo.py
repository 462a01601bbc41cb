"""`vlmpass demo`: the main job on a model it makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmpass.cli.arguments import ReportJson
from vlmpass.cli.console import show, show_json, status
from vlmpass.cli.piped import no_pipe, path_given
from vlmpass.cli.verb import DONE, verb

__all__ = ["demo"]


@verb
def demo(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where the models go; it is made.", parser=path_given),
    ] = Path("vlmpass-demo"),
    json: ReportJson = False,
) -> int:
    """Make a small bfloat16 vision-language model, convert it to float32 and verify it.

    The model has patches, a vision encoder and a decoder with a cache, at opset 17; ONNX Runtime's
    CPU cannot run it. The result is at opset 18 in shards of 8 MB, checked and compared.
    """
    from vlmpass.ir_tools.errors import SaveError
    from vlmpass.ir_tools.system.paths import folder_for

    no_pipe(folder, "DIR")
    folder_for(folder, "for the models")
    from vlmpass.cli.announce import announce
    from vlmpass.demo_model import write_demo_model
    from vlmpass.ir_tools.system.runtime import require_onnxruntime
    from vlmpass.pipeline import Pipeline

    require_onnxruntime()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{folder} cannot be made: {error.strerror}") from error
    source = write_demo_model(folder / "tiny-vlm.onnx")
    with status() as shown:
        pipeline = Pipeline(
            opset=18, dtype="float32", target="ort-cpu", instruments=[announce(shown)]
        )
        report = pipeline.convert(
            source,
            folder / "tiny-vlm.float32.onnx",
            shard_size="8MB",
            verify=True,
            progress=shown.bytes,
        )
    if json:
        show_json(report.to_json())
    else:
        show(report)
    return DONE
