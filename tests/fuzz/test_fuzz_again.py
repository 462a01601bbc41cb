"""Some presets on some fixtures, run twice; defects that make a second run differ are found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.passes.cse import CommonSubexpressions
from vlmpass.passes.dedupe_initializers import DedupeInitializers
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.infer import Infer
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.remove_unused import RemoveUnused
from vlmpass.passes.simplify import Simplify

from .again import EVERY, FIXTURES, Asked, changed, draw, fixtures

SEED = 2026
PAIRS = 16
DRAWN = 8
SMALL = 20_000
HALF = "float16"  # what it may round is measured with random inputs, which takes its time

Change = Callable[[ir.Model], None]


def first(model: ir.Model, op_type: str = "") -> ir.Node:
    return next(each for each in model.graph if op_type in ("", each.op_type))


def weight(model: ir.Model) -> ir.Value:
    return next(
        each for each in model.graph.initializers.values() if each.dtype == ir.DataType.FLOAT
    )


def rename_nodes(model: ir.Model) -> None:
    for node in model.graph:
        node.name = f"{node.op_type}{node.name}"


def rename_values(model: ir.Model) -> None:
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = f"{value.name}/v"


def reverse_weights(model: ir.Model) -> None:
    values = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    for value in reversed(values):
        model.graph.initializers.add(value)


def count_runs(model: ir.Model) -> None:
    runs = int(model.metadata_props.get("runs", "0"))
    model.metadata_props["runs"] = str(runs + 1)


def count_at_node(model: ir.Model) -> None:
    node = first(model)
    node.metadata_props["runs"] = node.metadata_props.get("runs", "") + "+"


def write_more(model: ir.Model) -> None:
    model.doc_string = f"{model.doc_string or ''} again"


def describe_graph(model: ir.Model) -> None:
    model.graph.doc_string = f"{model.graph.doc_string or ''} again"


def describe_node(model: ir.Model) -> None:
    first(model).doc_string = f"{first(model).doc_string or ''} again"


def name_graph(model: ir.Model) -> None:
    model.graph.name = f"{model.graph.name}'"


def raise_producer(model: ir.Model) -> None:
    model.producer_version = f"{model.producer_version or ''}1"


def count_versions(model: ir.Model) -> None:
    model.model_version = (model.model_version or 0) + 1


def count_at_graph(model: ir.Model) -> None:
    props = model.graph.metadata_props
    props["runs"] = props.get("runs", "") + "+"


def swap_operands(model: ir.Model) -> None:
    node = first(model, "Add")
    one, two = node.inputs
    node.replace_input_with(0, two)
    node.replace_input_with(1, one)


def drift(model: ir.Model) -> None:
    value = weight(model)
    assert value.const_value is not None
    moved = np.nextafter(value.const_value.numpy(), np.float32(9))
    value.const_value = ir.tensor(moved, name=value.name)


def drift_of_an_attribute(model: ir.Model) -> None:
    attributes = first(model, "LeakyRelu").attributes
    attributes["alpha"] = ir.AttrFloat32("alpha", attributes.get_float("alpha", 0.1) * 1.5)


def put_identity(model: ir.Model) -> None:
    output = model.graph.outputs[0]
    node = ir.Node("", "Identity", [output], num_outputs=1)
    name, output.name = output.name, f"{output.name}/before"
    node.outputs[0].name, node.outputs[0].type = name, output.type
    node.outputs[0].shape = output.shape
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]


def rename_a_weight(model: ir.Model) -> None:
    value = weight(model)
    value.name = f"{value.name}'"


def name_a_size(model: ir.Model) -> None:
    output = model.graph.outputs[0]
    assert output.shape is not None
    was = output.shape[0]
    text = was.value if isinstance(was, ir.SymbolicDim) else "n"
    output.shape = ir.Shape([ir.SymbolicDim(f"{text}_"), *list(output.shape)[1:]])


def describe_value(model: ir.Model) -> None:
    value = model.graph.outputs[0]
    value.doc_string = f"{value.doc_string or ''} again"


def count_at_value(model: ir.Model) -> None:
    value = model.graph.outputs[0]
    value.metadata_props["runs"] = value.metadata_props.get("runs", "") + "+"


PLANTS: tuple[tuple[type[Pass], Change], ...] = (
    (Infer, name_a_size),
    (Infer, count_runs),
    (Infer, describe_value),
    (Infer, count_at_value),
    (Fold, drift),
    (Fold, drift_of_an_attribute),
    (Fold, count_at_node),
    (Fold, raise_producer),
    (CommonSubexpressions, swap_operands),
    (CommonSubexpressions, rename_values),
    (CommonSubexpressions, describe_node),
    (Simplify, rename_nodes),
    (Simplify, describe_graph),
    (Simplify, name_graph),
    (Simplify, count_versions),
    (Simplify, put_identity),
    (RemoveUnused, count_at_graph),
    (RemoveUnused, write_more),
    (DedupeInitializers, reverse_weights),
    (DedupeInitializers, rename_a_weight),
)


FOUND = (
    ("blocks/rms.float32.dyn18", "infer,convert-opset{to=23},mixed-precision,infer,fuse"),
    ("blocks/acts.float32.dyn18", "mixed-precision,infer,fuse{emit=ort}"),
    (
        "blocks/alike.float32.dyn18",
        "mixed-precision{to=bfloat16 keep-io=true},infer,convert-opset{to=12},infer",
    ),
    ("blocks/norms.float16.dyn18", "mixed-precision{keep-io=true},infer,convert-opset{to=7},infer"),
    ("blocks/alike.bfloat16.dyn18", "infer,mixed-precision{to=bfloat16 calibrate=random}"),
    ("blocks/norms.float32.dyn18", "infer,unfuse{to=standard},infer,fuse"),
    (
        "exports/text.float32.ts13",
        "unify-dtype{to=float32 keep-io=true},infer,convert-opset{to=10},infer",
    ),
)
"""What changed something once, on which fixtures: islands that fusion ends otherwise, what it
leaves unused, Casts that did nothing any more, Casts of the source at the ends of islands,
measuring in a type that ONNX Runtime does not compute in, names that grow, a Cast to the type that
is there."""


def drawn() -> list[tuple[Path, Asked]]:
    """Return small models with options at random, those in half precision left out."""
    small = [each for each in fixtures() if each.stat().st_size < SMALL]
    dice = random.Random(SEED)
    found: list[tuple[Path, Asked]] = []
    while len(found) < DRAWN:
        asked = draw(dice)
        if HALF not in str(asked):
            found.append((dice.choice(small), asked))
    return found


def pairs() -> list[tuple[Path, str]]:
    small = [each for each in fixtures() if each.stat().st_size < SMALL]
    every = [(path, name) for path in small for name in EVERY if HALF not in name]
    return random.Random(SEED).sample(every, PAIRS)


@pytest.mark.parametrize(("path", "name"), pairs(), ids=lambda each: getattr(each, "stem", each))
def test_a_second_run_changes_nothing(path: Path, name: str, tmp_path: Path) -> None:
    assert not changed(path, EVERY[name], tmp_path)


@pytest.mark.parametrize(("path", "asked"), drawn(), ids=lambda each: getattr(each, "stem", ""))
def test_a_second_run_with_random_options_changes_nothing(
    path: Path, asked: Asked, tmp_path: Path
) -> None:
    assert not changed(path, asked, tmp_path)


@pytest.mark.parametrize(("name", "passes"), FOUND)
def test_what_changed_on_a_second_run_does_not(name: str, passes: str, tmp_path: Path) -> None:
    assert changed(FIXTURES / f"{name}.onnx", {"passes": passes}, tmp_path) == ""


def test_what_a_split_weight_needs_is_tidied_up(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 18]> g (int64[n] i) => (float[n,64] y, bool[n] s)
        <int64 none = {0}> { y = Gather (w, i) s = Equal (i, none) }"""
    model = ir.from_onnx_text(
        text, initializers=[ir.tensor(np.arange(6400, dtype=np.float32).reshape(100, 64), name="w")]
    )
    ir.save(model, tmp_path / "source.onnx")
    asked = {"simplify": True, "shard_size": "12KB", "layout": "default"}
    assert changed(tmp_path / "source.onnx", asked, tmp_path) == ""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a small model with two inputs, two weights and nothing to simplify."""
    text = """<ir_version: 9, opset_import: ["": 18]>
        g (float[n,4] x, float[n,4] z) => (float[n,4] y)
        <float[4,4] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}, float[4] b = {1,2,3,4}> {
        m = MatMul (x, w) r = LeakyRelu <alpha = 0.1> (m) s = Mul (r, b) t = Add (s, z) y = Tanh (t)
    }"""
    path = tmp_path / "source.onnx"
    ir.save(ir.from_onnx_text(text), path)
    return path


def test_the_source_of_the_planted_defects_is_settled(source: Path, tmp_path: Path) -> None:
    assert not changed(source, {"simplify": True}, tmp_path)


@pytest.mark.parametrize(("owner", "change"), PLANTS, ids=lambda each: each.__name__)
def test_a_pass_that_is_never_done_is_found(
    owner: type[Pass],
    change: Change,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = owner.run

    def and_more(self: Pass, model: ir.Model) -> bool:
        run(self, model)
        change(model)
        return True

    monkeypatch.setattr(owner, "run", and_more)
    assert changed(
        source, {"passes": "infer,fold,cse,simplify,remove-unused,dedupe-initializers"}, tmp_path
    )


def test_twenty_defects_are_planted() -> None:
    assert len(PLANTS) >= 20
