"""Writes ir_tools/operators/contrib.txt from the schemas of the installed ONNX Runtime.

Run `python tests/types/contrib_table.py > ir_tools/operators/contrib.txt` after an upgrade.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

HEAD = """\
# Operators that ONNX Runtime registers beside the standard ones, with the types they admit.
# domain::Operator | inputs | outputs | type parameters | attributes. `?` optional, `*` variadic,
# `+` variadic of mixed types, `!` required, `=` default in JSON. From tests/types/contrib_table.py.
"""

BESIDE_STANDARD = ("SimplifiedLayerNormalization", "LayerNormalization")
"""The second is the standard's from opset 17 on, and ONNX Runtime's, the same, at every other."""


def _formal(formal) -> str:
    option = str(formal.option)
    mark = "?" if "Optional" in option else ""
    if "Variadic" in option:
        mark = "*" if formal.isHomogeneous else "+"
    return f"{formal.name}:{formal.typeStr}{mark}"


def _constraint(constraint) -> str:
    types = [
        text[len("tensor(") : -1] if text.startswith("tensor(") else text.replace(" ", "")
        for text in constraint.allowed_type_strs
    ]
    return f"{constraint.type_param_str}={','.join(types)}"


def _attribute(attribute) -> str:
    kind = str(attribute.type).rpartition(".")[2]
    mark = "!" if attribute.required else ""
    proto = onnx.AttributeProto.FromString(attribute._default_value)
    if not proto.name:
        return f"{attribute.name}:{kind}{mark}"
    value = onnx.helper.get_attribute_value(proto)
    value = [_plain(each) for each in value] if isinstance(value, list) else _plain(value)
    return f"{attribute.name}:{kind}{mark}={json.dumps(value, separators=(',', ':'))}"


def _plain(value):
    if isinstance(value, float):
        return float(np.format_float_positional(np.float32(value), unique=True))
    return value.decode() if isinstance(value, bytes) else value


def lines() -> list[str]:
    """One line an operator, sorted."""
    found = []
    for schema in runtime.get_all_operator_schema():
        standard = schema.domain == "" and schema.name in BESIDE_STANDARD
        standard &= schema.since_version == 1
        if schema.domain != "com.microsoft" and not standard:
            continue
        parts = [
            f"{schema.domain}::{schema.name}",
            " ".join(_formal(f) for f in schema.inputs),
            " ".join(_formal(f) for f in schema.outputs),
            " ".join(sorted(_constraint(c) for c in schema.type_constraints)),
            " ".join(_attribute(each) for _, each in sorted(schema.attributes.items())),
        ]
        found.append(" | ".join(parts))
    return sorted(found)


if __name__ == "__main__":
    print(HEAD, end="")
    print("\n".join(lines()))
