"""What others fuse: each reads one file and writes another, as its users would have it do so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime

__all__ = ["PEERS"]


def _onnxscript(source: Path, target: Path) -> None:
    """onnxscript's optimizer, and what it has for ONNX Runtime."""
    import onnxscript.optimizer
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    model = ir.load(source)
    onnxscript.optimizer.optimize(model)
    model, _ = optimize_for_ort(model)
    ir.save(model, target)


def _onnxsim(source: Path, target: Path) -> None:
    """onnxsim with its fusion of attention, off as it comes, for opset 23, which has it."""
    import onnxsim

    model, _ = onnxsim.simplify(
        onnx.load(str(source)), extra_optimizers=["fuse_attention"], target_opset_version=23
    )
    onnx.save(model, str(target))


def _extended(source: Path, target: Path) -> None:
    """ONNX Runtime's own extended level, written down."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(target), 4
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _transformers(source: Path, target: Path) -> None:
    """onnxruntime.transformers, of whose model types the one that fuses most attention."""
    from onnxruntime.transformers import optimizer

    best, most = None, -1
    for kind in ("bert", "gpt2", "gpt_neox", "phi", "qwen3", "bart", "t5", "clip", "vit"):
        try:
            model = optimizer.optimize_model(str(source), model_type=kind, opt_level=0)
        except Exception as error:  # noqa: BLE001  many types refuse many models
            print(f"onnxruntime.transformers as {kind}: {type(error).__name__}")
            continue
        nodes = Counter(node.op_type for node in model.model.graph.node)
        count = sum(number for name, number in nodes.items() if "Attention" in name)
        if count > most:
            best, most = model, count
    assert best is not None
    best.save_model_to_file(str(target))


PEERS: Mapping[str, Callable[[Path, Path], None]] = {
    "onnxscript": _onnxscript,
    "onnxruntime.transformers": _transformers,
    "onnxsim": _onnxsim,
    "ORT extended": _extended,
}
