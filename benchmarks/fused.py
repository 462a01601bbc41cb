"""What fusing brings on ONNX Runtime's CPU: all forms of a model alternate in one run.

    python benchmarks/fused.py --peers

A decoder of two layers with grouped heads, its prefill and a step of decoding, and two layers of a
vision transformer, of the widths of real ones, with random weights. For each form the median, the
quartiles and the least time are printed, and how often median and least go into the unfused form's.
With --peers, what others make of the same files alternates with them; where that computes something
else, it is said.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cached
import numpy as np
import onnx_ir as ir
import onnxruntime
from decoder import IR_VERSION, Builder, Config, WeightWriter
from fusing_peers import PEERS

from vlmpass import Pipeline, load, save
from vlmpass.presets import SIMPLIFY

DECODER = Config(layers=2, hidden=896, heads=14, kv_heads=2, intermediate=2432, vocab=1024)
VISION = Config(layers=2, hidden=768, heads=12, kv_heads=12, intermediate=3072, vocab=0)
FORMS = {
    "unfused": SIMPLIFY,
    "standard 23": f"{SIMPLIFY},convert-opset{{to=23}},fuse{{target=ort-cpu}},{SIMPLIFY}",
    "ort 17": f"{SIMPLIFY},fuse{{emit=ort target=ort-cpu}},{SIMPLIFY}",
    "ort 23": f"{SIMPLIFY},convert-opset{{to=23}},fuse{{emit=ort target=ort-cpu}},{SIMPLIFY}",
    "ort 25": f"{SIMPLIFY},convert-opset{{to=25}},fuse{{emit=ort target=ort-cpu}},{SIMPLIFY}",
}


def _block(b: Builder, x: ir.Value, name: str) -> ir.Value:
    """One layer of a vision transformer, its norms already one node each."""
    c = b.config

    def linear(label: str, x: ir.Value, rows: int, columns: int) -> ir.Value:
        product = b("MatMul", x, b.weight(f"{name}.{label}.weight", rows, columns))
        return b("Add", b.weight(f"{name}.{label}.bias", columns), product)

    def norm(label: str, x: ir.Value) -> ir.Value:
        scale = b.weight(f"{name}.{label}.weight", c.hidden, ones=True)
        return b("LayerNormalization", x, scale, b.weight(f"{name}.{label}.bias", c.hidden))

    def heads(label: str, perm: Sequence[int]) -> ir.Value:
        apart = b("Reshape", linear(label, y, c.hidden, c.hidden), b.const([0, 0, c.heads, -1]))
        return b("Transpose", apart, perm=perm)

    y = norm("before", x)
    query, key, value = (
        heads(label, perm)
        for label, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
    )
    scores = b("Mul", b("MatMul", query, key), b.number(c.head_dim**-0.5))
    mixed = b("Transpose", b("MatMul", b("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])
    joined = b("Reshape", mixed, b.const([0, 0, -1]))
    x = b("Add", x, linear("o", joined, c.hidden, c.hidden))
    wide = linear("up", norm("after", x), c.hidden, c.intermediate)
    bent = b("Erf", b("Div", wide, b.number(2**0.5)))
    gelu = b("Mul", b("Mul", wide, b("Add", bent, b.number(1.0))), b.number(0.5))
    return b("Add", x, linear("down", gelu, c.intermediate, c.hidden))


def vision(path: Path, config: Config) -> ir.Model:
    """Return layers of a vision transformer over tokens, their weights written next to `path`."""
    weights = WeightWriter(path, config)
    b = Builder(config, weights)
    shape = ["batch", "tokens", config.hidden]
    x = tokens = ir.val("tokens", dtype=b.dtype, shape=shape)
    for layer in range(config.layers):
        b.scope = f"/layers.{layer}"
        x = _block(b, x, f"layers.{layer}")
    x.name, x.type, x.shape = "features", ir.TensorType(b.dtype), ir.Shape(shape)
    weights.close()
    graph = ir.Graph(
        [tokens],
        [x],
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports={"": config.opset},
        name="vision",
    )
    return ir.Model(graph, ir_version=IR_VERSION[config.opset])


def decoder_feed(config: Config, length: int, past: int) -> dict[str, np.ndarray]:
    """Return inputs of the decoder: one sequence, nothing of it padding."""
    rng = np.random.default_rng(0)
    size = (1, config.kv_heads, past, config.head_dim)
    feed = {
        "input_ids": rng.integers(0, config.vocab, (1, length)),
        "attention_mask": np.ones((1, past + length), np.int64),
    }
    for layer in range(config.layers):
        for part in ("key", "value"):
            feed[f"past_key_values.{layer}.{part}"] = rng.standard_normal(size, np.float32)
    return feed


def sessions(
    source: Path, folder: Path, threads: int, peers: bool
) -> dict[str, onnxruntime.InferenceSession]:
    """Return a session for each form of a model."""
    found = {}
    for label in [*FORMS, *(PEERS if peers else ())]:
        target = folder / f"{label.replace(' ', '_')}.onnx"
        try:
            if label in FORMS:
                save(Pipeline(FORMS[label]).run(load(source)).model, target)
            else:
                PEERS[label](source, target)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = threads, 4
            found[label] = onnxruntime.InferenceSession(str(target), options)
        except Exception as error:  # a peer may refuse a model
            if label in FORMS:
                raise
            print(f"{label}: {type(error).__name__}", flush=True)
    return found


def _error(wanted: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest element."""
    return max(
        float(np.abs(one - two).max(initial=0)) / max(1.0, float(np.abs(one).max(initial=0)))
        for one, two in zip(wanted, got, strict=True)
    )


def measure(
    title: str,
    forms: Mapping[str, onnxruntime.InferenceSession],
    feed: Mapping[str, np.ndarray],
    rounds: int,
) -> None:
    """Run all forms in turn, and print how long each took."""
    times: dict[str, list[float]] = {label: [] for label in forms}
    wanted, errors = forms["unfused"].run(None, feed), dict.fromkeys(forms, 0.0)
    for number in range(rounds + 3):
        for label, session in forms.items():
            start = time.perf_counter()
            got = session.run(None, feed)
            if number > 2:
                times[label].append(1e3 * (time.perf_counter() - start))
            errors[label] = _error(wanted, got)
            assert label in PEERS or errors[label] <= 1e-4
    base, least = float(np.median(times["unfused"])), min(times["unfused"])
    for label, taken in times.items():
        low, middle, high = np.percentile(taken, (25, 50, 75))
        spread = f"{middle:.2f} ms | {low:.2f} to {high:.2f} | {min(taken):.2f}"
        gain = f"{base / middle:.2f} | {least / min(taken):.2f}"
        off = f" differs by {errors[label]:.0e}" if errors[label] > 1e-4 else ""
        print(f"| {title} | {label}{off} | {spread} | {gain} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "decoder.onnx"
        model = cached.build(path, DECODER)
        model.producer_name = "pytorch"  # onnxruntime.transformers fuses nothing of others
        ir.save(model, path)
        forms = sessions(path, folder, arguments.threads, arguments.peers)
        for title, length, past in (("prefill of 128", 128, 0), ("step after 512", 1, 512)):
            measure(title, forms, decoder_feed(DECODER, length, past), arguments.rounds)
        path = folder / "vision.onnx"
        ir.save(vision(path, VISION), path)
        forms = sessions(path, folder, arguments.threads, arguments.peers)
        tokens = np.random.default_rng(0).standard_normal((1, 197, VISION.hidden), np.float32)
        measure("197 patches", forms, {"tokens": tokens}, arguments.rounds)


if __name__ == "__main__":
    main()
