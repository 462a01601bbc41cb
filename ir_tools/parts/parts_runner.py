"""Parts run one after the other, each in a process of its own: one at a time is in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.parts.manifest import Manifest, manifest_of
from vlmpass.ir_tools.run.request import level
from vlmpass.ir_tools.run.runner import Runner
from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["run_parts"]


def run_parts(
    parts: str | os.PathLike[str] | Manifest,
    inputs: Mapping[str, Array | Sequence[Array] | None],
    *,
    optimization: str = "basic",
) -> Feed:
    """Run the parts of a model in their order and return the outputs of the whole, by name.

    Between two parts only what a later one takes is kept, in files.

    Args:
        parts: What `split` made: its folder, or the manifest in it.
        inputs: Arrays by input name of the whole; a list for a sequence, None for an absent
            optional. Inputs with defaults may be left out.
        optimization: ONNX Runtime's graph optimisation level; ``none`` lets every kernel compute
            what it does in the whole at that level.

    Raises:
        ModelError: There is no manifest, or a part is missing.
        ArgumentError: An input is no array.
        VerifyError: An input is unknown.
        RunError: ONNX Runtime refuses a part, or its inputs.
    """
    if not isinstance(inputs, Mapping):
        raise wrong("inputs", inputs, "arrays by name")
    found = manifest_of(parts)
    wanted = level(optimization)
    unknown = [name for name in inputs if name not in found.inputs]
    if unknown:
        raise VerifyError(f"the whole has no input '{unknown[0]}'")
    values: Feed = {name: _given(name, value) for name, value in inputs.items()}
    last, homes = found.last_use, dict[Runner, set[str]]()
    try:
        for index, part in enumerate(found.parts):
            runner = Runner(found.path_of(part), optimization=wanted or "basic")
            homes[runner] = set(part.outputs)
            values.update(runner.run({n: values[n] for n in part.inputs if n in values}))
            runner.stop()
            dead = {n for n in values if last.get(n, -1) <= index} - {*found.outputs}
            for name in dead:
                del values[name]
            for each in [each for each, names in homes.items() if names <= dead]:
                each.close()
                del homes[each]
            for names in homes.values():
                names -= dead
        return {name: _copied(values[name]) for name in found.outputs}
    finally:
        for runner in homes:
            runner.close()


def _given(name: str, value: object) -> Array | list[Array] | None:
    if value is None or isinstance(value, np.ndarray):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(each, np.ndarray) for each in value):
        return list(value)
    raise wrong(f"the input '{name}'", value, "an array, or a list of them for a sequence")


def _copied(value: Array | list[Array] | None) -> Array | list[Array] | None:
    """Return a value in memory: its file goes away."""
    if value is None:
        return None
    return [each.copy() for each in value] if isinstance(value, list) else np.array(value)
