"""Count what is fused in exported architectures against what their configs compute.

    PYTHONPATH=tests python -m tests.attention.counting /tmp/exports

Reads what `tests.attention.exporting` wrote, fuses it for ONNX Runtime at opset 23, compares the
numbers with the source's, and prints a row for each architecture. With `--peers`, a row of what
others make of the same files, counted on what they write:

    PYTHONPATH=tests:benchmarks python -m tests.attention.counting /tmp/exports --peers

Needs the `torch` extra.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from attention.architectures import ARCHITECTURES, Architecture

from vlmpass import Pipeline, load
from vlmpass.ir_tools.rewrite import explain, rule_named
from vlmpass.presets import SIMPLIFY

PIPELINE = f"{SIMPLIFY},convert-opset{{to=23}},{SIMPLIFY},fuse{{emit=ort}},{SIMPLIFY}"
FORMS = {
    "attention": ("Attention", "MultiHeadAttention", "GroupQueryAttention"),
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
    found = _counted(node.op_type for node in model.graph)
    attempts = explain(rule_named("attention"), model)
    return found, error, [each.reason for each in attempts if each.matched > 1]


def _counted(operators: Iterable[str]) -> dict[str, int]:
    nodes = Counter(operators)
    return {kind: sum(nodes[form] for form in forms) for kind, forms in FORMS.items()}


def peers_row(each: Architecture, paths: list[Path], folder: Path) -> str:
    """Return a row: for each peer and kind, the most blocks that are fused in any export."""
    from fusing_peers import PEERS

    cells = []
    for peer in PEERS.values():
        found = []
        for path in paths:
            try:
                peer(path, folder / "peer.onnx")
                written = onnx.load(str(folder / "peer.onnx"), load_external_data=False)
                found.append(_counted(node.op_type for node in written.graph.node))
            except Exception as error:  # noqa: BLE001  it fuses nothing then
                print(path.name, peer.__name__, type(error).__name__, file=sys.stderr)
                found.append(dict.fromkeys(FORMS, 0))
        cells.append(", ".join(str(max(counts[kind] for counts in found)) for kind in FORMS))
    present = ", ".join(str(each.blocks.get(kind, 0)) for kind in FORMS)
    return f"| {each.name} | {len(paths)} | {present} | {' | '.join(cells)} |"


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


def _peer_names() -> list[str]:
    from fusing_peers import PEERS

    return list(PEERS)


def main(folder: Path, peers: bool) -> None:
    """Print the table."""
    if not peers:
        print(
            "| architecture | exports | attention | rotary | norms | activations | error | left |"
        )
        print("|---|---|---|---|---|---|---|---|")
    else:
        kinds = ", ".join(FORMS)
        print(f"| architecture | exports | {kinds} | {' | '.join(_peer_names())} |")
    for each in ARCHITECTURES:
        paths = sorted(folder.glob(f"{each.name}.*.onnx"))
        if paths and peers:
            with tempfile.TemporaryDirectory() as name:
                print(peers_row(each, paths, Path(name)), flush=True)
        elif paths:
            print(row(each, paths), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--peers" in sys.argv)
