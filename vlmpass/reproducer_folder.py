"""Where a reproducer goes: a model and its inputs, of one run, both or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx_ir as ir
from numpy.lib.format import write_array

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.saving import drafted
from vlmpass.ir_tools.worker.transport import Array, Feed
from vlmpass.replacing import Replacement, Sources, made_folder, refuse_taken, replacement

__all__ = ["ReproducerFolder"]

_MODEL, _INPUTS = "reproducer.onnx", "inputs.npz"


class ReproducerFolder:
    """Where a reproducer goes.

    Args:
        folder: Made where it does not exist.
        sources: What it is made of, never replaced.
        force: Whether a reproducer that is there goes.

    Raises:
        SaveError: One is there, and is to stay.
    """

    def __init__(self, folder: Path, sources: Sources, force: bool) -> None:
        self._model, self._given = folder / _MODEL, folder / _INPUTS
        self._sources = sources
        for path in (self._model, self._given):
            sources.refuse(path)
            refuse_taken(path, force)

    def write(self, model: ir.Model, feed: Feed) -> tuple[str, str | None]:
        """Write a model, and its inputs if they are all known; return the paths.

        Raises:
            SaveError: They cannot be written; all is as it was.
        """
        arrays = {name: value for name, value in feed.items() if isinstance(value, np.ndarray)}
        known = bool(arrays) and len(arrays) >= len(model.graph.inputs)
        with (
            made_folder(self._model.parent),
            replacement(self._model) as swap,
            drafted(model, self._model) as draft,
        ):
            listing = swap.folder / _INPUTS
            if known:
                _write_arrays(listing, arrays)
            self._clear(swap)
            if known:
                swap.put(listing, self._given)
            swap.add(draft.commit())
        return str(self._model), str(self._given) if known else None

    def clear(self) -> tuple[None, None]:
        """Remove the reproducer of a run before this one, which has none."""
        if self._model.parent.is_dir():
            with replacement(self._model) as swap:
                self._clear(swap)
        return None, None

    def _clear(self, swap: Replacement) -> None:
        swap.set_aside([self._model], [self._given], self._sources)


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as `numpy.savez` does, whatever their names are, but text as text."""
    try:
        with ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                plain = array.astype(np.str_) if array.dtype == object else array
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    write_array(file, plain, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SaveError(f"{_INPUTS} cannot be written: {error}") from error
