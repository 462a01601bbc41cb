"""Models and calls for the tests of the door."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vlmpass.cli.app import run
from vlmpass.demo_model import Sizes, write_demo_model

PAGE = Path(__file__).parents[2] / "docs" / "exporters.md"
TINY = Sizes(hidden=16, heads=4, kv_heads=2, intermediate=24, vocab=2048, layers=1, image=28)


def page_block(name):
    """A function or class of the page of exporters, its block run as it stands there."""
    found: dict[str, object] = {}
    blocks = PAGE.read_text("utf-8").split("```python\n")[1:]
    codes = (each.partition("```")[0] for each in blocks)
    code = next(each for each in codes if f"def {name}(" in each or f"class {name}(" in each)
    exec(compile(code, str(PAGE), "exec"), found)
    return found[name]


def demo_model(folder: Path, name: str = "tiny.onnx") -> Path:
    return write_demo_model(folder / name, TINY)


def mlp_model(folder: Path, name: str = "mlp.onnx", *, scale: float = 1.0) -> Path:
    """Write y = relu(x @ a) @ b at opset 17, its weights in a data file."""
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 32] x, float[32, 64] a, float[64, 8] b) => (float[n, 8] y) {
            h = MatMul(x, a)
            r = Relu(h)
            y = MatMul(r, b)
        }"""
    )
    for value in list(model.graph.inputs)[1:]:
        array = (rng.standard_normal(value.shape.numpy()) * scale).astype(np.float32)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    ir.save(model, folder / name, external_data=f"{name}.data", size_threshold_bytes=0)
    return folder / name


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def child(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vlmpass", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


class Door:
    """Runs the command line in this process."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        code = run([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err
