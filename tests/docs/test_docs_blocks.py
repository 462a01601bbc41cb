"""Every code block of README.md and docs/ runs as it stands there, or the page says why not.

The pages are read in one process, each in a folder with what its blocks name. A conversion is not
compared with its source here, which others do.
"""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vlmpass
from tests.docs.code_blocks import FIXTURES, ROOT, TEXT, Block, blocks_of, feed, vlm, weighted
from vlmpass.cli.app import run
from vlmpass.ir_tools.targets import profile

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FINDINGS = {"verify", "diff", "check", "bisect"}
"""Verbs that end with 1 where they find something."""


def _debugging(folder: Path) -> None:
    vlm("model.onnx", "a.onnx", "b.onnx", "converted.onnx")(folder)
    vlm("half.onnx", kind="float16")(folder)
    vlm("source.onnx", kind="bfloat16")(folder)
    (folder / "run.py").write_text("")
    np.savez(folder / "inputs.npz", **feed())
    vlmpass.split(folder / "model.onnx", folder / "once", layers=4)
    np.savez(folder / "outputs.npz", **vlmpass.run_parts(folder / "once", feed()))


def _decoders(folder: Path) -> None:
    decoder = vlmpass.load(FIXTURES / "exports" / "decoder.float32.dyn18.onnx")
    named = vlmpass.Pipeline("name-dims{input_ids:0=batch input_ids:1=seq}").run(decoder)
    vlmpass.save(named.model, folder / "decoder.onnx")


def _quantising(folder: Path) -> None:
    vlm("older.onnx")(folder)
    newer = vlmpass.Pipeline(opset=21).run(folder / "older.onnx")
    vlmpass.save(newer.model, folder / "model.onnx")
    (folder / "inputs").mkdir()
    np.savez(folder / "inputs" / "0.npz", **feed())


def _systems(folder: Path) -> None:
    weighted(TEXT, folder / "text.onnx")
    vlm("model.onnx", "encoder.onnx", "decoder.onnx")(folder)
    vlm("qwen2.onnx", kind="bfloat16")(folder)
    np.savez(folder / "inputs.npz", **feed())


FURNISHED: dict[str, Callable[[Path], None]] = {
    "README.md": vlm("big.onnx", "qwen2-bf16.onnx", "in.onnx", kind="bfloat16"),
    "command-line.md": vlm("big.onnx", "model.onnx"),
    "debugging.md": _debugging,
    "decoders.md": _decoders,
    "fusion.md": vlm("in.onnx"),
    "get-started.md": vlm("vlmpass-demo/tiny-vlm.onnx", kind="bfloat16"),
    "parts.md": vlm("model.onnx"),
    "quantising.md": _quantising,
    "systems.md": _systems,
    "targets.md": vlm("MODEL"),
    "verifying.md": vlm("a.onnx", "b.onnx"),
}


def _targets() -> dict[str, object]:
    return {"model": vlmpass.load("MODEL")}


KNOWN: dict[str, Callable[[], dict[str, object]]] = {
    "debugging.md": lambda: {"inputs": feed(), "crashes": lambda model: len(model.graph) > 3},
    "targets.md": _targets,
}
"""Names that blocks of Python take for given, once their folder is there."""


def fault_of(block: Block, known: dict[str, object]) -> str:
    """Run a block as its reader does, and return what is wrong; empty where nothing is."""
    if block.kind == "python" or block.text.startswith(("from ", "import ")):
        exec(compile(block.text, "block", "exec"), known)
        return ""
    if block.kind == "toml":
        Path("mine.toml").write_text(block.text, "utf-8")
        profile("mine.toml")
        return ""
    faults = (_fault_of_line(line) for line in block.text.splitlines() if line)
    return next(filter(None, faults), "")


def _fault_of_line(line: str) -> str:
    words, target = shlex.split(line), None
    if words[0] != "vlmpass":
        return f"{line}: neither Python nor a command of vlmpass, and no mark says why"
    if ">" in words:
        words, target = words[: words.index(">")], words[-1]
    if words[1] == "convert" and "--dry-run" not in words:
        words.append("--no-verify")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words[1:])
    if target is not None:
        Path(target).write_text(out.getvalue(), "utf-8")
    fine = code == 0 or (code == 1 and words[1] in FINDINGS)
    return "" if fine else f"{line}: exit code {code}\n{err.getvalue()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    blocks = list(blocks_of(page.read_text("utf-8")))
    FURNISHED.get(page.name, lambda _: None)(tmp_path)
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {"vlmpass": vlmpass, **KNOWN.get(page.name, dict)()}
    for block in blocks:
        if block.mark is not None:
            assert block.mark[0] != "run by" or (ROOT / block.mark[1]).is_file(), block
            continue
        assert (fault := fault_of(block, known)) == "", f"{page.name}:{block.line}: {fault}"


def test_a_block_that_does_not_run_is_found():
    page = (
        "\n    vlmpass convert none.onnx\n\n<!-- not run: a tree -->\n\n    a\n\n```sh\nrm x\n```\n"
    )
    found = list(blocks_of(page))
    assert [block.mark for block in found] == [None, ("not run", "a tree"), None]
    assert "exit code 2" in fault_of(found[0], {})
    assert "no mark says why" in fault_of(found[2], {})
