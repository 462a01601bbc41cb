"""The graph after every pass that changed it, as numbered ONNX text files."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.proto.onnx_text import Digests, model_text
from vlmpass.ir_tools.save.commits import note_commit
from vlmpass.ir_tools.system.paths import folder_for
from vlmpass.passes.instruments.instrument import Instrument, Step

__all__ = ["Dump"]


class Dump(Instrument):
    """Writes ``03-legalize.onnxtxt`` after the third pass, if that changed something.

    The first line is the command that leads there. Large tensors are named by their digest, which
    means that each is read once, in chunks.

    Args:
        folder: Where the files go; it is made where it does not exist.

    Raises:
        SaveError: There is something else in its place.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = folder_for(folder, "to dump the graphs into")
        self._digests = Digests()

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """Write the file.

        Raises:
            SaveError: It cannot be written.
        """
        if changed:
            path = self._folder / f"{step.number:02}-{step.name}.onnxtxt"
            text = f"# {step.replay}\n{model_text(model, self._digests)}"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            except OSError as error:
                raise SaveError(
                    f"{path} cannot be written: {error.strerror}", remedy="name another folder"
                ) from error
            note_commit(path)
