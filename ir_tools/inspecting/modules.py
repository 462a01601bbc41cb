"""Which module of the exported program a node belongs to."""

from __future__ import annotations

import ast

import onnx_ir as ir

__all__ = ["module_of"]

_SCOPES = "pkg.torch.onnx.name_scopes"
# Where the exporter writes down that it does not know the module either.
_NOWHERE = "_empty_nn_module_stack_from_metadata_hook"


def module_of(node: ir.Node) -> str | None:
    """Return the dotted path of the module that a node was exported from; "" is the program itself.

    Read from the scopes that torch's exporters leave: metadata such as
    ``['', 'model', 'model.layers.0', 'linear']``, or names such as ``/model/layers.0/MatMul``.

    Returns:
        None for a node without a scope.
    """
    scopes = node.metadata_props.get(_SCOPES)
    if scopes is not None:
        return _from_metadata(scopes)
    if node.name and node.name.startswith("/"):
        return ".".join(node.name.strip("/").split("/")[:-1])
    return None


def _from_metadata(text: str) -> str | None:
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    if not isinstance(scopes, list) or len(scopes) < 2:
        return None
    path = str(scopes[-2])  # the last one is the operator's own
    return None if path == _NOWHERE else path
