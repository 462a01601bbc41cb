"""Writes ir_tools/operators/contrib.txt from the schemas of the installed ONNX Runtime.

Run `python tests/types/contrib_table.py > ir_tools/operators/contrib.txt` after an upgrade.
"""

from __future__ import annotations

from onnxruntime.capi import onnxruntime_pybind11_state as runtime

HEAD = """\
# Operators that ONNX Runtime registers beside the standard ones, with the types they admit.
# domain::Operator | inputs | outputs | type variables. `?` optional, `*` variadic, `+` variadic of
# mixed types. Made by tests/types/contrib_table.py.
"""

BESIDE_STANDARD = ("SimplifiedLayerNormalization",)


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


def lines() -> list[str]:
    """One line an operator, sorted."""
    found = []
    for schema in runtime.get_all_operator_schema():
        standard = schema.domain == "" and schema.name in BESIDE_STANDARD
        if schema.domain != "com.microsoft" and not standard:
            continue
        parts = [
            f"{schema.domain}::{schema.name}",
            " ".join(_formal(f) for f in schema.inputs),
            " ".join(_formal(f) for f in schema.outputs),
            " ".join(sorted(_constraint(c) for c in schema.type_constraints)),
        ]
        found.append(" | ".join(parts).rstrip())
    return sorted(found)


if __name__ == "__main__":
    print(HEAD, end="")
    print("\n".join(lines()))
