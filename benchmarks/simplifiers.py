"""Nodes left by vlmpass and its peers on the same graphs, and whether the outputs still agree.

    python benchmarks/simplifiers.py MODEL [MODEL ...] --page docs/simplifiers.md --keep FOLDER

Each tool runs in a process of its own; Constant nodes are not counted. Peers: onnxslim, onnxsim,
onnxscript's optimizer, ONNX Runtime at its basic level; one that is not installed is left out.
With --keep, what a peer wrote on an earlier run is not made again. Status 1 if vlmpass leaves more
nodes than a peer for no reason known here, changes an output or renames an initializer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx_ir as ir
from measure import table

from vlmpass.ir_tools.graph.walk import all_nodes, subgraphs


def _vlmpass(source: Path, target: Path) -> None:
    from vlmpass import Pipeline
    from vlmpass.presets import SIMPLIFY

    Pipeline(SIMPLIFY).convert(source, target, verify=False)


def _onnxslim(source: Path, target: Path) -> None:
    import onnxslim

    onnxslim.slim(str(source), str(target))


def _onnxsim(source: Path, target: Path) -> None:
    import onnx
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(str(source)))
    onnx.save(model, str(target))


def _onnxscript(source: Path, target: Path) -> None:
    from onnxscript import optimizer

    model = ir.load(source)
    optimizer.optimize(model)
    ir.save(model, target)


def _ort(source: Path, target: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options)


def _float32(source: Path, target: Path) -> None:
    from vlmpass import Pipeline

    text = "repair-types,unify-dtype{to=float32}"
    Pipeline(text).convert(source, target, layout="inline", verify=False)


def _standard(source: Path, target: Path) -> None:
    from vlmpass import Pipeline

    text = "infer,convert-opset{to=18},substitute"
    Pipeline(text).convert(source, target, verify=False)


OURS = "vlmpass"
TOOLS: dict[str, Callable[[Path, Path], None]] = {
    OURS: _vlmpass,
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxscript": _onnxscript,
    "onnxruntime": _ort,
}
STEPS = {**TOOLS, "float32": _float32, "standard": _standard}


# ------------------------------------------------------------------- why more nodes than a peer's
@dataclass(frozen=True)
class Cause:
    """Why vlmpass leaves nodes that do not depend on any input.

    Attributes:
        text: What they do, and why they stay.
        tells: Whether a node says that the constant it helps to compute is of this kind.
    """

    text: str
    tells: Callable[[ir.Node], bool]


def _whole_numbers(node: ir.Node) -> bool:
    """Return whether a node computes with a table of integers."""
    tables = [x for x in node.inputs if x is not None and x.shape is not None and len(x.shape) > 1]
    return any(x.dtype is not None and x.dtype.is_integer() for x in tables)


def _makes_integers(node: ir.Node) -> bool:
    return any(x.dtype is not None and x.dtype.is_integer() for x in node.outputs)


SUMS = frozenset(["ReduceMean", "ReduceSum", "LayerNormalization", "Resize", "MatMul", "Softmax"])
CAUSES = (
    Cause(
        "compute a table of places that is larger than all it is computed from",
        lambda node: node.op_type == "ScatterND" and _makes_integers(node),
    ),
    Cause("unpack quantised weights, which stay packed", _whole_numbers),
    Cause(
        "compute a constant from sums of floats, which runtimes round each in their own way",
        lambda node: node.op_type in SUMS,
    ),
)


def _cones(graph: ir.Graph) -> Iterator[set[ir.Node]]:
    """Yield the nodes behind each value that depends on no input and is used by one that does."""
    constant: dict[ir.Node, None] = {}
    for node in graph:
        sources = [x for x in node.inputs if x is not None]
        known = all(x.const_value is not None or x.producer() in constant for x in sources)
        if known and sources and not any(subgraphs(node)):
            constant[node] = None
    for node in constant:
        if all(use.node in constant for output in node.outputs for use in output.uses()):
            continue
        cone, left = set(), [node]
        while left:
            inner = left.pop()
            cone.add(inner)
            producers = [x.producer() for x in inner.inputs if x is not None]
            left.extend(each for each in producers if each is not None and each not in cone)
        yield cone


HALVES = Cause(
    "are the factor of a Gelu, which stays where runtimes look for it, not in the next weights",
    lambda node: node.op_type == "Mul" and any(map(_is_half, node.inputs)) and _feeds_weights(node),
)


def _is_half(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return tensor is not None and tensor.size == 1 and float(tensor.numpy().item()) == 0.5


def _feeds_weights(node: ir.Node) -> bool:
    users = [use.node for output in node.outputs for use in output.uses()]
    return bool(users) and all(user.op_type in ("Conv", "MatMul", "Gemm") for user in users)


def difference(model: ir.Model, more: int) -> tuple[str, bool]:
    """Say why a model has more nodes than another, and whether that explains all of them."""
    found: dict[Cause, set[ir.Node]] = {}
    for cone in _cones(model.graph):
        cause = next((each for each in CAUSES if any(map(each.tells, cone))), None)
        if cause is not None:
            found.setdefault(cause, set()).update(cone)
    counted = set[ir.Node]().union(*found.values())
    halves = set(filter(HALVES.tells, model.graph)) - counted
    if halves and len(counted) < more:
        found[HALVES] = halves
    counted.clear()
    words = []
    for cause, nodes in found.items():
        words.append(f"{len(nodes - counted)} nodes {cause.text}")
        counted |= nodes
    if len(counted) < more:
        words.append(f"{more - len(counted)} nodes more for no known reason")
    return "; ".join(words), len(counted) >= more


# --------------------------------------------------------------------------------- what is measured
def nodes(path: Path) -> int:
    """Count nodes of all graphs and functions, Constant nodes apart."""
    return sum(node.op_type != "Constant" for node in all_nodes(ir.load(path)))


def _step(tool: str, source: Path, target: Path) -> bool:
    """Run one tool in a process of its own; return whether it wrote its model."""
    command = [sys.executable, __file__, "--tool", tool, str(source), str(target)]
    result = subprocess.run(command, capture_output=True, timeout=1800, check=False)
    return result.returncode == 0 and target.exists()


def _verified(source: Path, target: Path) -> dict[str, Any] | None:
    """Return what `vlmpass verify` finds; None if one of the models cannot be run."""
    verify = [sys.executable, "-m", "vlmpass", "verify", "--json", str(source), str(target)]
    result = subprocess.run(verify, capture_output=True, text=True, check=False)
    return json.loads(result.stdout) if result.returncode in (0, 1) else None


def _outputs(source: Path, target: Path) -> tuple[str, bool]:
    """Say how far the outputs of two models are apart, and whether they are equal."""
    found, mark = _verified(source, target), ""
    if found is None:
        both = [target.with_name(f"{side}-{target.name}") for side in ("before", "after")]
        for path, standard in zip((source, target), both, strict=True):
            _step("standard", path, standard)
        found, mark = _verified(*both), " +"
    if found is None:
        return "cannot run", False
    if not found["ok"]:
        return "different", False
    largest = max((each["max_rel"] or 0.0 for each in found["outputs"]), default=0.0)
    return ("identical" if largest == 0 else f"within {largest:.0e}") + mark, True


def _contents(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    kept = {}
    for name, value in ir.load(path).graph.initializers.items():
        tensor = value.const_value
        if tensor is not None:
            kept[name] = (tensor.dtype.name, tuple(tensor.shape.numpy()), tensor.tobytes())
    return kept


def _renamed(source: Path, target: Path) -> int:
    """Count initializers that have another name than in the source, or its name and other bytes."""
    before, after = _contents(source), _contents(target)
    gone = {tensor for name, tensor in before.items() if name not in after}
    other = [name for name, tensor in after.items() if name in before and before[name] != tensor]
    moved = [name for name, tensor in after.items() if name not in before and tensor in gone]
    return len(other) + len(moved)


# ---------------------------------------------------------------------------------------- the table
@dataclass(frozen=True)
class Row:
    """What became of one model.

    Attributes:
        cells: One for each column.
        good: Whether nothing is left to explain.
    """

    cells: list[str]
    good: bool


def _start(model: Path, folder: Path) -> tuple[str, Path]:
    """Return what to call a model and the file that all tools get."""
    if _step(OURS, model, folder / f"{OURS}.onnx"):
        return model.stem, model
    _step("float32", model, folder / "float32.onnx")
    return f"{model.stem} *", folder / "float32.onnx"


def _counts(tools: list[str], left: Mapping[str, int], wrong: Mapping[str, str]) -> list[str]:
    marks = {tool: f" ({wrong[tool]})" if tool in wrong else "" for tool in tools}
    return [f"{left[tool]}{marks[tool]}" if tool in left else "fails" for tool in tools]


def examine(model: Path, tools: list[str], folder: Path) -> Row:
    """Run every tool on a model and describe what is left."""
    label, source = _start(model, folder)
    made = {tool: folder / f"{tool}.onnx" for tool in tools}
    done = [tool for tool in tools if made[tool].exists() or _step(tool, source, made[tool])]
    left = {tool: nodes(made[tool]) for tool in done}
    start = str(nodes(source)) if source.exists() else ""
    if OURS not in left:
        return Row([label, start, *_counts(tools, left, {}), "", "", ""], False)
    less = [tool for tool, count in left.items() if count < left[OURS]]
    judged = {tool: _outputs(source, made[tool]) for tool in less}
    wrong = {tool: text for tool, (text, good) in judged.items() if not good}
    best = min(count for tool, count in left.items() if tool not in wrong)
    why, explained = "", True
    if left[OURS] > best:
        why, explained = difference(ir.load(made[OURS]), left[OURS] - best)
    outputs, equal = _outputs(source, made[OURS])
    renamed = _renamed(source, made[OURS])
    names = "kept" if renamed == 0 else f"{renamed} changed"
    cells = [label, start, *_counts(tools, left, wrong), outputs, names, why]
    return Row(cells, explained and equal and renamed == 0)


def compare(models: list[Path], tools: list[str], keep: Path) -> tuple[str, bool]:
    """Return the table, and whether it leaves nothing to explain.

    Args:
        models: What to run on.
        tools: Whom to run.
        keep: Where their models are kept, in a folder for each source.
    """
    rows = [["model", "source", *tools, "outputs", "initializers", "difference"]]
    good = True
    for model in models:
        folder = keep / f"{model.parent.name}__{model.stem}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{OURS}.onnx").unlink(missing_ok=True)
        row = examine(model, tools, folder)
        rows.append(row.cells)
        good &= row.good
        print(" | ".join(row.cells), file=sys.stderr, flush=True)
    return table(rows), good


HEAD = """# Nodes left after simplifying

Written by `python benchmarks/simplifiers.py MODEL ... --page docs/simplifiers.md` from exports of
both PyTorch exporters: those of `tests/fixtures/exports`, larger ones of BLIP, MiniCPM-V and Qwen2,
plain and quantised, and families of transformers by name (`ts17` is the older exporter, `dyn18` the
newer one), small and with random weights. Every tool gets the same file. Constant nodes are not
counted; functions are, each once.

{versions}.

- *outputs*: the largest relative error of those of vlmpass, by `vlmpass verify` on generated inputs
  of two sizes. A peer that leaves fewer nodes is verified too, and does not count if it fails.
- *initializers*: whether those that vlmpass leaves have the name and bytes they had.
- *difference*: why vlmpass leaves more nodes than the best peer, read off the nodes it leaves.
- `*`: as exported this is no valid ONNX (a bfloat16 Conv before opset 22), and vlmpass refuses it;
  all tools got it in float32.
- `+`: no runtime has its ATen operators; they were replaced in both models before running them.
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, help="write the table there")
    parser.add_argument("--keep", type=Path, help="keep there what the tools write")
    parser.add_argument("--tool", choices=STEPS, help="run one tool on MODEL and write TARGET")
    arguments = parser.parse_args()
    if arguments.tool:
        STEPS[arguments.tool](*arguments.models)
        return
    tools = [name for name in TOOLS if find_spec(name) is not None]
    with tempfile.TemporaryDirectory() as folder:
        text, good = compare(arguments.models, tools, arguments.keep or Path(folder))
    print(text)
    if arguments.page:
        versions = ", ".join(f"{tool} {version(tool)}" for tool in tools)
        page = f"{HEAD.format(versions=versions)}\n{text}\n"
        arguments.page.write_text(page, encoding="utf-8")
    sys.exit(not good)


if __name__ == "__main__":
    main()
