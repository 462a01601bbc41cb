"""Nodes left by vlmpass and its peers on the same graphs, and whether the outputs still agree.

    python benchmarks/simplifiers.py MODEL [MODEL ...] --page docs/simplifiers.md

Each tool runs in a process of its own; Constant nodes are not counted. Peers: onnxslim, onnxsim,
onnxscript's optimizer, ONNX Runtime at its basic level; one that is not installed is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from measure import table


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
    import onnx_ir as ir
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


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "vlmpass": _vlmpass,
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxscript": _onnxscript,
    "onnxruntime": _ort,
}


def nodes(path: Path) -> int:
    """Count nodes of all graphs and functions, Constant nodes apart."""
    import onnx_ir as ir

    from vlmpass.ir_tools.walk import all_nodes

    return sum(node.op_type != "Constant" for node in all_nodes(ir.load(path)))


def _run(tool: str, source: Path, target: Path) -> str:
    start = time.perf_counter()
    command = [sys.executable, __file__, "--tool", tool, str(source), str(target)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if result.returncode or not target.exists():
        return "fails"
    return f"{nodes(target)} ({time.perf_counter() - start:.1f} s)"


def _equal(source: Path, target: Path) -> str:
    verify = [sys.executable, "-m", "vlmpass", "verify", str(source), str(target)]
    result = subprocess.run(verify, capture_output=True, text=True, check=False)
    return {0: "equal", 1: "different"}.get(result.returncode, "not run")


def compare(models: list[Path]) -> str:
    """Run every tool on every model and return the table."""
    tools = [name for name in TOOLS if find_spec(name) is not None]
    rows = [["model", "source", *tools, "vlmpass's outputs"]]
    for model in models:
        row = [model.stem, str(nodes(model))]
        with tempfile.TemporaryDirectory() as folder:
            for tool in tools:
                row.append(_run(tool, model, Path(folder) / f"{tool}.onnx"))
            row.append(_equal(model, Path(folder) / "vlmpass.onnx"))
        rows.append(row)
        print(" | ".join(row), file=sys.stderr)
    return table(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, help="write the table there")
    parser.add_argument("--tool", choices=TOOLS, help="run one tool on MODEL and write TARGET")
    arguments = parser.parse_args()
    if arguments.tool:
        TOOLS[arguments.tool](*arguments.models)
        return
    text = compare(arguments.models)
    print(text)
    if arguments.page:
        head = "# Nodes left after simplifying\n\nWritten by `benchmarks/simplifiers.py` "
        arguments.page.write_text(f"{head}(seconds include process start).\n\n{text}\n")


if __name__ == "__main__":
    main()
