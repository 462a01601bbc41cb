"""Normalisations in float16, drawn from seeds, some with squares beyond its range.

python tests/run/norm_pieces.py 300 0

What is expected is computed in numpy, apart from everything that is under test.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from vlmpass.ir_tools.run import compare_layers, verify
from vlmpass.rewriter_rules.unfuse.narrow_norms import narrow_norms

END = 65504.0
ORT = "com.microsoft"
OPERATORS = {
    # name: domain, lowest opset, whether the mean is subtracted, whether something is added first
    "LayerNormalization": ("", 17, True, False),
    "RMSNormalization": ("", 23, False, False),
    "SimplifiedLayerNormalization": ("", 11, False, False),
    "SkipLayerNormalization": (ORT, 11, True, True),
    "SkipSimplifiedLayerNormalization": (ORT, 11, False, True),
}


@dataclass(frozen=True)
class Piece:
    """A norm between two nodes of its type.

    Attributes:
        model: The model.
        feed: What it is given.
        named: What the norm is called in messages.
        overflows: Whether a square inside is beyond float16.
    """

    model: ir.Model
    feed: dict[str, np.ndarray]
    named: str
    overflows: bool


def drawn(draw: random.Random) -> Piece:
    """Draw a norm, its opset, its axis and how large its input is."""
    operator = draw.choice([*OPERATORS])
    domain, lowest, centred, adds = OPERATORS[operator]
    opset = draw.choice([each for each in (13, 15, 17, 18, 21, 23) if each >= lowest])
    rng = np.random.default_rng(draw.randrange(2**32))
    width, top = draw.choice((8, 32)), draw.choice((0.5, 3.0, 200.0, 280.0, 330.0, 3000.0))
    x = rng.uniform(-top, top, (2, 3, width)).astype(np.float16)
    skip = rng.uniform(-1, 1, x.shape).astype(np.float16) if adds else np.zeros_like(x)
    gamma = rng.uniform(0.5, 1.5, width).astype(np.float16)
    total = (x + skip).astype(np.float16)  # as the hardware rounds it
    wide = total.astype(np.float64)
    # The mean is rounded before it is subtracted.
    mean = wide.mean(-1, keepdims=True).astype(np.float16).astype(np.float64) if centred else 0.0
    squares = (wide - mean).astype(np.float16).astype(np.float64) ** 2
    attributes: dict[str, object] = {"epsilon": 1e-5}
    if not adds:
        attributes["axis"] = draw.choice((-1, 2))
    model = _model(operator, domain, opset, ["x", "skip"] if adds else ["x"], gamma, attributes)
    feed = {"x": x, **({"skip": skip} if adds else {})}
    shown = f"{domain}:{operator}" if domain else operator
    return Piece(model, feed, f"node 'norm' ({shown})", bool(squares.max() > END))


def _model(
    operator: str,
    domain: str,
    opset: int,
    given: list[str],
    gamma: np.ndarray,
    attributes: dict[str, object],
) -> ir.Model:
    shape = ["b", 3, gamma.size]
    half = TensorProto.FLOAT16
    taken = [f"{name}_" for name in given]
    nodes = [
        helper.make_node("Identity" if name == "skip" else "Abs", [name], [f"{name}_"])
        for name in given[1:]
    ]
    nodes.append(helper.make_node("Identity", ["x"], ["x_"]))
    nodes.append(
        helper.make_node(operator, [*taken, "gamma"], ["n"], "norm", domain=domain, **attributes)
    )
    nodes.append(helper.make_node("Neg", ["n"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, half, shape) for name in given],
        [helper.make_tensor_value_info("y", half, shape)],
        [numpy_helper.from_array(gamma, "gamma")],
    )
    domains = [helper.make_opsetid("", opset)]
    domains += [helper.make_opsetid(domain, 1)] if domain else []
    return ir.from_proto(helper.make_model(graph, opset_imports=domains, ir_version=10))


def layer_faults_of(piece: Piece) -> list[str]:
    """Return what is said wrongly of the values inside."""
    found = compare_layers(
        piece.model, piece.model, inputs=piece.feed, emulated="float16", norms=narrow_norms
    )
    faults = [f"not looked into: {each}" for each in found.closed]
    if (found.leaving is not None) != piece.overflows:
        return [*faults, f"leaving {found.leaving}, and it should be {piece.overflows}"]
    if found.leaving is None:
        return faults if found.first is None else [*faults, "a norm in range is said to differ"]
    if found.leaving.inside != piece.named:
        faults.append(f"inside {found.leaving.inside}")
    first = None if found.first is None else found.layers[found.first]
    if first is None or first.name != "n" or first.actual.nan + first.actual.inf:
        faults.append(f"the first that differs is {first}")
    return faults


def output_faults_of(piece: Piece) -> list[str]:
    """Return what is said wrongly of the outputs."""
    found = verify(
        piece.model, piece.model, inputs=piece.feed, emulated="float16", norms=narrow_norms
    )
    return ["the outputs are told wrongly"] if found.ok == piece.overflows else []


def main(number: int, seed: int) -> int:
    """Draw many; print what is said wrongly."""
    wrong = beyond = 0
    for index in range(number):
        piece = drawn(random.Random(f"{seed}-{index}"))
        beyond += piece.overflows
        faults = layer_faults_of(piece) + output_faults_of(piece)
        wrong += bool(faults)
        for fault in faults:
            print(f"{index} {piece.named} at {piece.model.opset_imports}: {fault}", flush=True)
    print(f"{number} norms, {beyond} beyond the range inside: {wrong} told wrongly")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
