"""What ONNX Runtime registers beside the standard operators, read from `contrib.txt`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

import onnx_ir as ir

from vlmpass.ir_tools.operators.formal import Formal, Schema

__all__ = ["contrib"]


@cache
def contrib() -> Mapping[tuple[str, str], Schema]:
    """Return the schemas by domain and operator; the head of the table says how it is written."""
    text = resources.files(__package__).joinpath("contrib.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = (_schema(*(part.strip() for part in line.split(" | "))) for line in lines)
    return {(domain, schema.name): schema for domain, schema in found}


def _schema(
    operator: str, inputs: str, outputs: str, parameters: str, attributes: str
) -> tuple[str, Schema]:
    domain, _, name = operator.rpartition("::")
    allowed = {
        parameter: frozenset(
            kind if "(" in kind else f"tensor({kind})" for kind in types.split(",")
        )
        for parameter, _, types in (word.partition("=") for word in parameters.split())
    }
    taken, given = _formals(inputs, allowed), _formals(outputs, allowed)
    needed = sum(not (each.optional or each.variadic) for each in taken)
    kinds, defaults, required = _attributes(attributes)
    most = _UNBOUNDED if taken and taken[-1].variadic else len(taken)
    return domain, Schema(
        name, 1, taken, given, needed, most, len(given), kinds, required, defaults, False, ()
    )


_UNBOUNDED = 2**31 - 1


def _formals(text: str, allowed: Mapping[str, frozenset[str]]) -> tuple[Formal, ...]:
    formals = []
    for word in text.split():
        name, _, marked = word.partition(":")
        kind = marked.rstrip("?*+")
        mark = marked[len(kind) :]
        types = allowed.get(kind, frozenset([kind]))
        formals.append(Formal(name, kind, mark == "?", mark in ("*", "+"), mark != "+", types))
    return tuple(formals)


def _attributes(
    text: str,
) -> tuple[dict[str, ir.AttributeType], dict[str, ir.Attr], frozenset[str]]:
    kinds: dict[str, ir.AttributeType] = {}
    defaults: dict[str, ir.Attr] = {}
    required = set()
    for word in text.split():
        name, _, rest = word.partition(":")
        kind, _, default = rest.partition("=")
        kinds[name] = ir.AttributeType[kind.rstrip("!")]
        if kind.endswith("!"):
            required.add(name)
        if default:
            defaults[name] = ir.Attr(name, kinds[name], json.loads(default))
    return kinds, defaults, frozenset(required)
