"""Export architectures with both exporters, eager and SDPA, with and without a cache.

    PYTHONPATH=tests python -m tests.attention.exporting /tmp/exports llama qwen2

Three of what it writes are kept in tests/fixtures/attention.

Needs the `torch` extra and transformers.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from attention.architectures import ARCHITECTURES, Architecture, Exported

LEGACY, DYNAMO = "ts", "dyn"


def export(each: Architecture, exporter: str, attention: str, cached: bool, path: Path) -> None:
    """Write one model, with its inputs and results beside it."""
    model = each.model(attention)
    layers = model.config.num_hidden_layers if each.cached else 0
    module = Exported(model, list(each.inputs), layers).eval()
    feeds, dims = dict(each.inputs), {k: each.dims[k] for k in each.inputs}
    outputs = ["result"]
    if cached:
        torch.manual_seed(5)
        length = 3
        ids = feeds["input_ids"]
        mask = torch.ones(2, ids.shape[1] + length, dtype=torch.int64)
        mask[1, :2] = 0
        feeds["attention_mask"] = mask
        for layer in range(layers):
            for part in ("key", "value"):
                name = f"past_{part}_{layer}"
                feeds[name] = torch.randn(2, each.head[0], length, each.head[1])
                dims[name] = {0: "batch", 2: "past"}
                outputs.append(f"present_{part}_{layer}")
    elif each.cached:
        dims["attention_mask"] = {0: "batch", 1: "seq"}
    with torch.no_grad():
        results = module(*feeds.values())
        if exporter == LEGACY:
            torch.onnx.export(
                module, tuple(feeds.values()), str(path), dynamo=False, opset_version=17,
                input_names=list(feeds), output_names=outputs, dynamic_axes=dims,
            )  # fmt: skip
        else:
            shapes = tuple(dict.fromkeys(dims[name], torch.export.Dim.DYNAMIC) for name in feeds)
            program = torch.onnx.export(
                module, tuple(feeds.values()), dynamo=True, opset_version=18, verbose=False,
                input_names=list(feeds), output_names=outputs, dynamic_shapes=(shapes,),
            )  # fmt: skip
            assert program is not None
            program.save(str(path), external_data=False)
    bare(path)
    arrays = {f"in:{k}": v.numpy() for k, v in feeds.items()}
    arrays |= {f"out:{k}": v.numpy() for k, v in zip(outputs, results, strict=True)}
    np.savez(path.with_suffix(".npz"), **arrays)


def bare(path: Path) -> None:
    """Take away what exporters say of the sources of nodes."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.initializer]:
        value.ClearField("metadata_props")
    for field in ("metadata_props", "doc_string"):
        model.ClearField(field)
        model.graph.ClearField(field)
    onnx.save(model, str(path))


def main(folder: Path, names: list[str]) -> None:
    """Export what is named, or all."""
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    for each in ARCHITECTURES:
        if names and each.name not in names:
            continue
        for exporter in (LEGACY, DYNAMO):
            for attention in ("eager", "sdpa"):
                for cached in (False, True)[: 1 + each.cached]:
                    label = f"{each.name}.{exporter}.{attention}{'.cache' if cached else ''}"
                    path = folder / f"{label}.onnx"
                    try:
                        export(each, exporter, attention, cached, path)
                        print(label, "ok", flush=True)
                    except Exception as error:  # noqa: BLE001
                        print(label, "FAILED", type(error).__name__, str(error)[:200], flush=True)
                        if "-v" in sys.argv:
                            traceback.print_exc()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [a for a in sys.argv[2:] if a[0] != "-"])
