"""Count what is fused in exported architectures against what their configs compute.

    PYTHONPATH=tests python -m tests.attention.counting /tmp/exports

Reads what `tests.attention.exporting` wrote, fuses it for ONNX Runtime at opset 23, compares the
numbers with the source's, and prints a row for each architecture. Needs the `torch` extra.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from attention.architectures import ARCHITECTURES, Architecture

from vlmpass import Pipeline, load
from vlmpass.ir_tools.rewrite import explain, rule_named
from vlmpass.presets import SIMPLIFY

PIPELINE = f"{SIMPLIFY},convert-opset{{to=23}},{SIMPLIFY},fuse{{emit=ort}},{SIMPLIFY}"
FORMS = {
    "attention": ("Attention", "MultiHeadAttention"),
    "rope": ("RotaryEmbedding",),
    "norm": (
        "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
        "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    ),
    "activation": ("Gelu", "FastGelu", "QuickGelu", "Swish"),
}  # fmt: skip


def _results(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, {name: feeds[name] for name in names}))


def count(path: Path) -> tuple[dict[str, int], float, list[str]]:
    """Return how many blocks of each kind are one node, the largest difference, and reasons."""
    model = Pipeline(PIPELINE).run(load(path)).model
    arrays = np.load(path.with_suffix(".npz"))
    feeds = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
    wanted, got = (
        _results(path.read_bytes(), feeds),
        _results(ir.to_proto(model).SerializeToString(), feeds),
    )
    error = max(
        float(np.abs(one - two).max(initial=0)) / max(1.0, float(np.abs(one).max(initial=0)))
        for one, two in zip(wanted, got, strict=True)
    )
    nodes = Counter(node.op_type for node in model.graph)
    found = {kind: sum(nodes[form] for form in forms) for kind, forms in FORMS.items()}
    attempts = explain(rule_named("attention"), model)
    return found, error, [each.reason for each in attempts if each.matched > 1]


def row(each: Architecture, paths: list[Path]) -> str:
    """Return a row: for each kind, the fewest blocks that are fused in any export, of how many."""
    found = [count(path) for path in paths]
    cells = [
        f"{min(counts[kind] for counts, _, _ in found)}/{each.blocks.get(kind, 0)}"
        for kind in FORMS
    ]
    error = max(error for _, error, _ in found)
    reasons = sorted({reason for _, _, all_of_them in found for reason in all_of_them})
    return (
        f"| {each.name} | {len(paths)} | {' | '.join(cells)} | {error:.1e} | {'; '.join(reasons)} |"
    )


def main(folder: Path) -> None:
    """Print the table."""
    print("| architecture | exports | attention | rotary | norms | activations | error | left |")
    print("|---|---|---|---|---|---|---|---|")
    for each in ARCHITECTURES:
        paths = sorted(folder.glob(f"{each.name}.*.onnx"))
        if paths:
            print(row(each, paths), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
