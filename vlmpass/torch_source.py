"""A PyTorch module that a command line names: ``tower.py:make``."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmpass.ir_tools.errors import ModelError, VlmpassError

if TYPE_CHECKING:
    from vlmpass.ir_tools.run.torch_program import Module

__all__ = ["module_named", "names_module"]


def names_module(text: str) -> bool:
    """Whether a text names something in a Python file, rather than a file."""
    file, colon, name = text.rpartition(":")
    return bool(colon) and file.endswith(".py") and name.isidentifier()


def module_named(text: str) -> Module:
    """Run a Python file and return the module that it has under a name.

    What the file prints goes to standard error.

    Args:
        text: The file and, behind a colon, a module, or what returns one when it is called.

    Raises:
        VlmpassError: PyTorch is missing.
        ModelError: There is no such file or name, the file fails, or what it gives is no module.
    """
    if importlib.util.find_spec("torch") is None:
        raise VlmpassError("PyTorch is not installed", remedy="pip install 'vlmpass[torch]'")
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"there is no file '{file}'")
    found = _given_by(path, name)
    if not isinstance(found, torch.nn.Module):
        raise ModelError(f"{text} is a {type(found).__name__}, and no torch.nn.Module")
    return found


def _given_by(path: Path, name: str) -> Any:
    sys.path.insert(0, str(path.parent.absolute()))  # as Python does for a script
    try:
        with redirect_stdout(sys.stderr):
            held = runpy.run_path(str(path))
            if name not in held:
                raise ModelError(f"{path} has no '{name}'")
            found = held[name]
            made = isinstance(found, type) or not hasattr(found, "state_dict")
            return found() if made and callable(found) else found
    except VlmpassError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{path}:{name} does not give a module: {told}") from error
    finally:
        sys.path.pop(0)
