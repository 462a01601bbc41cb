"""Option values that several passes read: sizes, and things named by module and attribute."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection

import onnx_ir as ir

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.save import parse_size
from vlmpass.passes.pipeline.base import OptionError

__all__ = ["imported", "size_in_bytes", "tell_kept_io"]

_LOG = logging.getLogger(__name__)


def size_in_bytes(option: str, text: str | int) -> int:
    """Return what a size such as 2GB is.

    Raises:
        OptionError: It is none; the option is named.
    """
    try:
        return parse_size(text)
    except VlmpassError as error:
        raise OptionError(option, error.problem, remedy=error.remedy) from None


def imported(option: str, text: str, form: str) -> object:
    """Return what `package.module:attribute` names.

    Args:
        option: The option whose value it is, for errors.
        text: The name; the attribute may be a path with dots.
        form: What a name looks like here, for errors.

    Raises:
        OptionError: It is no such name, or there is nothing of that name.
    """
    module, _, path = text.partition(":")
    if not module or not path:
        raise OptionError(option, f"'{text}' is not of the form {form}")
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise OptionError(option, f"{text} cannot be imported: {error}") from error
    return found


def tell_kept_io(model: ir.Model, request: str, types: Collection[ir.DataType]) -> None:
    """Say so if no input or output has a type that `keep-io` could keep.

    Args:
        model: The model, not converted yet.
        request: What was asked, for the message.
        types: Element types that are converted.
    """
    if not any(value.dtype in types for value in (*model.graph.inputs, *model.graph.outputs)):
        _LOG.warning("%s: keep-io: no input or output has a type that is converted", request)
