"""What a comparison is asked for, held to the types it is to have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.inputs import held_to, read_inputs
from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.ir_tools.system.runtime import OPTIMIZATIONS, RUNTIMES, Optimization, Runtime
from vlmpass.ir_tools.types.emulate import EMULATED
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = [
    "EMULATED_IN",
    "EmulatedIn",
    "Inputs",
    "Value",
    "emulated_side",
    "emulated_type",
    "given_inputs",
    "level",
    "runtime",
]

Value: TypeAlias = "Array | Sequence[Array] | None"
EmulatedIn = Literal["judged", "reference", "both"]
"""Which of two models is rounded."""
EMULATED_IN: tuple[EmulatedIn, ...] = ("judged", "reference", "both")
Inputs: TypeAlias = "Mapping[str, Value] | str | os.PathLike[str]"


def given_inputs(given: object, model: ir.Model) -> Feed | None:
    """Return inputs as a model takes them.

    Args:
        given: Arrays by name, or an ``.npz`` file of them; None for none.
        model: Has the inputs.

    Raises:
        VerifyError: They are not those of the model, or no arrays.
    """
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return read_inputs(given, model)
    if not isinstance(given, Mapping):
        raise wrong("inputs", given, "arrays by name or the path of an .npz file")
    types = {value.name: value.type for value in model.graph.inputs}
    found = {str(name): _value(name, each, types.get(name)) for name, each in given.items()}
    return held_to(found, model, "what is given as inputs")


def _value(
    name: object, given: object, declared: ir.TypeProtocol | None
) -> Array | list[Array] | None:
    if isinstance(declared, ir.OptionalType):
        if given is None:
            return None
        declared = declared.elem_type
    if isinstance(declared, ir.SequenceType) and isinstance(given, Sequence):
        return [_array(name, each) for each in given]
    return _array(name, given)


def _array(name: object, given: object) -> Array:
    try:
        found = np.asarray(given)
    except Exception as error:  # an object with an __array__ of its own may raise anything
        raise VerifyError(f"input '{name}' is no array: {error}") from error
    if found.dtype.kind in "OmM" and not all(isinstance(each, str) for each in found.flat):
        raise VerifyError(
            f"input '{name}' is no array but a {type(given).__name__}", remedy="give a numpy array"
        )
    return found


def level(given: object) -> Optimization | None:
    """Return an optimisation level of ONNX Runtime, or None.

    Raises:
        ArgumentError: There is no such level.
    """
    found = next((each for each in OPTIMIZATIONS if isinstance(given, str) and each == given), None)
    if found is None and given is not None:
        raise wrong("optimization", given, f"one of {', '.join(OPTIMIZATIONS)}")
    return found


def runtime(name: str, given: object) -> Runtime:
    """Return the runtime of a name.

    Args:
        name: Of the argument.
        given: What was given for it.

    Raises:
        ArgumentError: There is none.
    """
    found = next((each for each in RUNTIMES if isinstance(given, str) and each == given), None)
    if found is None:
        raise wrong(name, given, f"one of {', '.join(RUNTIMES)}")
    return found


def emulated_type(given: object) -> ir.DataType | None:
    """Return the half precision that is to be emulated, or None.

    Raises:
        ArgumentError: It is none.
    """
    found = EMULATED.get(given) if isinstance(given, str) else given
    if found is None and given is None:
        return None
    if not isinstance(found, ir.DataType) or found not in EMULATED.values():
        raise wrong("emulated", given, "float16 or bfloat16")
    return found


def emulated_side(given: object) -> EmulatedIn | None:
    """Return which of the two models is to be rounded, or None.

    Raises:
        ArgumentError: There is no such choice.
    """
    found = next((each for each in EMULATED_IN if isinstance(given, str) and each == given), None)
    if found is None and given is not None:
        raise wrong("emulated_in", given, f"one of {', '.join(EMULATED_IN)}")
    return found
