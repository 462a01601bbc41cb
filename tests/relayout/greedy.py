"""Decoders laid out anew say what they said: tokens, one after the other, the likeliest each time.

    PYTHONPATH=tests python -m tests.relayout.greedy --tokens 64 /tmp/exports/*.cache.onnx

The files are those of `tests.attention.exporting`, or any with such inputs: ids, a mask, positions,
and caches past_… that come out as present_….
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from vlmpass import Pipeline, load

__all__ = ["FORMS", "LENGTH", "greedy", "laid_out", "same"]

LENGTH = 96
FORMS = {
    "last logits": "logits{{output={logits}}}",
    "static": "cache{{form=static length={length}}}",
    "there and back": "cache{{form=static length={length}}},cache{{form=dynamic}}",
    "tied": "tie",
    "all": "infer,logits{{output={logits}}},tie,cache{{form=static length={length}}}",
    "fused": "infer,simplify,convert-opset{{to=23}},fuse,logits{{output={logits}}},"
    "cache{{form=static length={length}}}",
    "written": "infer,convert-opset{{to=24}},cache{{form=static length={length}}}",
    "written and back": "infer,simplify,convert-opset{{to=24}},fuse,cache{{form=static "
    "length={length}}},infer,simplify,cache{{form=dynamic}}",
    "gqa": "infer,simplify,convert-opset{{to=23}},fuse,cache{{form=gqa length={length}}},"
    "infer,simplify",
    "gqa and back": "infer,simplify,convert-opset{{to=23}},fuse,cache{{form=gqa length={length}}},"
    "infer,simplify,cache{{form=dynamic}},infer,simplify",
}


def laid_out(path: Path, form: str) -> ir.Model:
    """Return a decoder in another form."""
    model = load(path)
    text = FORMS[form].format(logits=model.graph.outputs[0].name, length=LENGTH)
    return Pipeline(text).run(model).model


def _session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _caches(
    session: onnxruntime.InferenceSession, batch: int, length: int
) -> dict[str, np.ndarray]:
    """Return caches of nothing: without tokens, or buffers whose content does not count."""
    found = {}
    for each in session.get_inputs():
        if each.name.startswith("past_") and len(each.shape) == 4:
            fixed = isinstance(each.shape[2], int)
            size = (batch, each.shape[1], length if fixed else 0, each.shape[3])
            found[each.name] = np.full(size, 7.0, np.float32)
    return found


def greedy(
    model: ir.Model, ids: np.ndarray, padding: Sequence[int], tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens that a decoder says after a prompt, and the last logits.

    Args:
        model: With a cache that grows, or a buffer and `past_length`.
        ids: The prompts, [batch, length], padded on the left.
        padding: How much of each is padding.
        tokens: How many to say.
    """
    session = _session(model)
    inputs = {each.name for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    caches = _caches(session, len(ids), LENGTH)
    mask = np.array([[at >= count for at in range(ids.shape[1])] for count in padding], np.int64)
    before, said = 0, []
    last = np.zeros(0)
    for _ in range(tokens):
        places = np.maximum(np.cumsum(mask, 1) - 1, 0)[:, -ids.shape[1] :]
        given: Mapping[str, np.ndarray] = {
            "input_ids": ids, "attention_mask": mask, "position_ids": places,
            "past_length": np.array([before]), **caches,
        }  # fmt: skip
        results = session.run(None, {name: given[name] for name in inputs})
        before += ids.shape[1]
        last = results[0][:, -1]
        ids = last.argmax(-1)[:, None]
        said.append(ids)
        caches = {
            name.replace("present", "past"): value
            for name, value in zip(names[1:], results[1:], strict=True)
        }
        mask = np.concatenate([mask, np.ones((len(mask), 1), np.int64)], 1)
    return np.concatenate(said, 1), last


def same(path: Path, form: str, tokens: int, vocabulary: int = 96) -> str:
    """Return how what a decoder says differs in another form, empty where it does not."""
    rng = np.random.default_rng(3)
    model = load(path)
    feeds = [
        (rng.integers(3, vocabulary, (2, 7)), (0, 3)),
        (rng.integers(3, vocabulary, (1, 1)), (0,)),
    ]
    other = laid_out(path, form)
    for ids, padding in feeds:
        wanted, got = greedy(model, ids, padding, tokens), greedy(other, ids, padding, tokens)
        if not np.array_equal(wanted[0], got[0]):
            return f"{form}: {wanted[0].tolist()} became {got[0].tolist()}"
        error = float(np.abs(wanted[1] - got[1]).max())
        if error > 1e-4 * max(1.0, float(np.abs(wanted[1]).max())):
            return f"{form}: logits differ by {error}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    failed = 0
    for path in asked.paths:
        found = [same(path, form, asked.tokens) for form in FORMS]
        print(path.name, "; ".join(filter(None, found)) or f"{len(found)} forms say the same")
        failed += any(found)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
