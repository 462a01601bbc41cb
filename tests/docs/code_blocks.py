"""The code blocks of a page of the documentation, and what lies in the folder where they run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"<!-- (not run|run by): (.+) -->")
FIXTURES = ROOT / "tests" / "fixtures"

VLM = """<ir_version: 8, opset_import: ["": 17]>
vlm (float[n, 3, h, w] pixels, float[n, seq, 1] mask, float[3, 32] w0, float[32, 32] w1,
     float[32, 64] w2) => (float[n, seq, 64] logits) {
    ["/vpm/layers.0/ReduceMean"] pooled = ReduceMean<axes=[2, 3]>(pixels)
    ["/vpm/layers.0/Flatten"] flat = Flatten<axis=1>(pooled)
    ["/vpm/layers.1/MatMul"] seen = MatMul(flat, w0)
    ["/resampler/MatMul"] queried = MatMul(seen, w1)
    ["/llm/layers.2/Axes"] axes = Constant<value_ints=[1]>()
    ["/llm/layers.2/Unsqueeze"] hidden = Unsqueeze(queried, axes)
    ["/llm/layers.2/Mul"] masked = Mul(hidden, mask)
    ["/llm/layers.3/MatMul"] logits = MatMul(masked, w2)
}"""
"""A tower, a resampler and a decoder by name, numbered layers, and sizes that are open."""

TEXT = """<ir_version: 8, opset_import: ["": 17]>
text (int64[1, 9] input_ids, float[1, 9] attention_mask, float[1, 17, 8] image, float[50, 8] w0)
    => (float[1, 9, 8] hidden) {
    words = Gather(w0, input_ids)
    axes = Constant<value_ints=[2]>()
    open = Unsqueeze(attention_mask, axes)
    kept = Mul(words, open)
    one = Constant<value_ints=[1]>()
    looked = ReduceMean<axes=[1]>(image)
    hidden = Add(kept, looked)
}"""


@dataclass(frozen=True)
class Block:
    """A block of code, fenced or indented.

    Attributes:
        line: Of the page, from 1.
        kind: The word behind the fence, or ``indented``.
        text: What is in it.
        mark: What the page says of it to this test: how, and why or by what.
    """

    line: int
    kind: str
    text: str
    mark: tuple[str, str] | None


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the code blocks of a page; a mark stands on the last line before one that has text."""
    lines, index = page.splitlines(), 0
    while index < len(lines):
        end = index + 1
        if fenced := re.match(r"```(\w*)$", lines[index]):
            while lines[end] != "```":
                end += 1
            yield Block(index + 1, fenced[1], _text(lines[index + 1 : end]), _mark(lines, index))
            end += 1
        elif lines[index].startswith("    ") and not lines[index - 1].strip():
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield Block(index + 1, "indented", _text(lines[index:end]), _mark(lines, index))
        index = end


def _text(lines: list[str]) -> str:
    cut = 4 if lines and all(line.startswith("    ") or not line for line in lines) else 0
    return "\n".join(line[cut:] for line in lines).strip() + "\n"


def _mark(lines: list[str], index: int) -> tuple[str, str] | None:
    while index and not lines[index - 1].strip():
        index -= 1
    found = MARK.fullmatch(lines[index - 1]) if index else None
    return (found[1], found[2]) if found else None


def weighted(text: str, path: Path, kind: str = "float") -> None:
    """Write a model whose inputs w0, w1 … are weights in a data file, exact in any type."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(text.replace("float[", f"{kind}["))
    for value in [each for each in model.graph.inputs if re.fullmatch(r"w\d", each.name)]:
        array = rng.choice([-0.5, 0.5], value.shape.numpy()).astype(value.dtype.numpy())
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=0)


def feed() -> dict[str, np.ndarray]:
    """Return inputs of the model of a tower and a decoder."""
    rng = np.random.default_rng(0)
    shapes = {"pixels": (1, 3, 4, 4), "mask": (1, 5, 1)}
    return {name: rng.random(shape).astype(np.float32) for name, shape in shapes.items()}


def vlm(*names: str, kind: str = "float") -> Callable[[Path], None]:
    """Return what writes the model of a tower and a decoder under some names."""

    def write(folder: Path) -> None:
        for name in names:
            weighted(VLM, folder / name, kind)

    return write
