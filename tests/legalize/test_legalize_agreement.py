"""`convert --target` exits 0 only with what `check --target` takes; the script has more models.

``VLMPASS_AGREEMENT_VERSIONS`` (30) operator versions are drawn with the seed
``VLMPASS_AGREEMENT_SEED`` (1), each for two targets in turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.legalize.agreement import chosen, disagreements, of_files, problem, profiles, told
from tests.opset.opset_models import EXPORTS
from tests.opset.versions.models import Case
from vlmpass.ir_tools.targets import names

COUNT = int(os.environ.get("VLMPASS_AGREEMENT_VERSIONS", "30"))
SEED = int(os.environ.get("VLMPASS_AGREEMENT_SEED", "1"))
HEAD = '<ir_version: 9, opset_import: ["" : 18, "l" : 1]>'
OPEN = "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"
CALL = """g (float[2] x) => (float[2] y) { y = l.F(x) }
<opset_import: ["" : 18], domain: "l"> F (x) => (y) { y = Relu(x) }"""
SMALL = 'inherits = "onnx-standard"\nabout = "a"\nsource = "s"\n[reads]\nfile-size = 4000\n'


def model(folder: Path, text: str) -> Path:
    path = folder / "source.onnx"
    onnx.save(parser.parse_model(HEAD + text), path)
    return path


def random_cases() -> Iterator[Case]:
    return chosen(COUNT, SEED)


def test_random_models(tmp_path: Path) -> None:
    found = list(disagreements(random_cases(), tmp_path, profiles(tmp_path), 2))
    assert [each for each in found if each[1] not in ("agrees", "refused")] == []
    counts = Counter(word for _, word, _ in found)
    assert counts["agrees"] > counts["refused"] > 0


PACKED = EXPORTS / "quant_mod.float16.ts17.onnx"


def test_check_says_of_fixtures_what_convert_does(tmp_path: Path) -> None:
    """A seeded sample; the script takes all fixtures, or models that are named."""
    paths, known = sorted(EXPORTS.glob("*.onnx")), names()
    rng = np.random.default_rng(SEED)
    for place in rng.permutation(len(paths))[:3]:
        some = [str(rng.choice(known))]
        for which, word, why in of_files([paths[place]], tmp_path, some):
            assert word in ("agrees", "refused"), f"{which}: {word}: {why}"


def test_weights_that_are_written_as_floats_are_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is all else that passes before legalize do; planted: only legalize counts."""
    assert problem(PACKED, "openvino", tmp_path) == ("agrees", "")
    monkeypatch.setattr("vlmpass.suits._converts", lambda *_: False)
    assert problem(PACKED, "openvino", tmp_path)[0].startswith("check knows no remedy for")


def test_a_remedy_that_is_refused_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: whatever is asked for converts."""
    text = "g (string[2] x) => (string[2] y) { y = StringNormalizer(x) }"
    source = model(tmp_path, text)
    assert problem(source, "iree", tmp_path)[0] == "refused"
    monkeypatch.setattr("vlmpass.suits._converts", lambda *_: True)
    assert problem(source, "iree", tmp_path)[0] == "check promises a remedy for StringNormalizer"


def test_what_is_not_held_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: open shapes pass where none may be."""
    monkeypatch.setattr("vlmpass.running.hold", lambda *_: [])
    assert problem(model(tmp_path, OPEN), "qnn", tmp_path)[0] == "check finds something"


@pytest.mark.parametrize(
    ("text", "target", "reason"),
    [
        (OPEN, "qnn", "every shape must be known, and the inputs x are open"),
        (OPEN, "static.toml", "vlmpass convert --passes 'set-dims{...}'"),
        ("g (double[2] x) => (double[2] y) { y = Relu(x) }", "types.toml", "takes no double"),
    ],
)
def test_what_check_finds_is_refused(tmp_path: Path, text: str, target: str, reason: str) -> None:
    known = {Path(each).name: each for each in profiles(tmp_path)}
    word, why = problem(model(tmp_path, text), known[target], tmp_path)
    assert word == "refused"
    assert reason in " ".join(why.split())


def test_open_axes_run_unless_something_empty_is_fed(tmp_path: Path) -> None:
    """Core ML takes no operand without elements: both say so, and what decides it."""
    source = model(tmp_path, OPEN)
    assert problem(source, "coreml", tmp_path) == ("agrees", "")
    said = "it is unsupported if empty(*), and an axis is open; vlmpass convert --passes 'set-dims"
    for arguments in (
        ("convert", source, tmp_path / "out.onnx", "--target", "coreml", "--no-verify"),
        ("check", source, "--target", "coreml"),
    ):
        code, text = told(*arguments)
        assert code == 0
        assert said in " ".join(text.split())
    assert problem(model(tmp_path, OPEN.replace("N", "0")), "coreml", tmp_path)[0] == "refused"


@pytest.mark.parametrize("target", [*names(), "types.toml"])
def test_functions_are_inlined_where_none_are_taken(tmp_path: Path, target: str) -> None:
    known = {Path(each).name: each for each in profiles(tmp_path)}
    assert problem(model(tmp_path, CALL), known[target], tmp_path) == ("agrees", "")


@pytest.mark.parametrize("layout", ["default", "single", "inline", "hf", "safetensors"])
def test_no_file_is_larger_than_the_target_reads(tmp_path: Path, layout: str) -> None:
    """A Constant node counts as an initializer does, and files of every layout."""
    node = onnx.helper.make_node(
        "Constant", [], ["y"], value=onnx.numpy_helper.from_array(np.ones((2, 999), np.float32))
    )
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (2, 999))
    graph = onnx.helper.make_graph([node], "g", [], [value])
    imports = [onnx.helper.make_opsetid("", 18)]
    made = onnx.helper.make_model(graph, ir_version=9, opset_imports=imports)
    path, out, small = tmp_path / "m.onnx", tmp_path / "out.onnx", tmp_path / "small.toml"
    onnx.save(made, path)
    small.write_text(SMALL, encoding="utf-8")
    code, text = told("convert", path, out, "--target", small, "--layout", layout, "--no-verify")
    if code == 0:
        assert told("check", out, "--target", small)[0] == 0
        assert max(each.stat().st_size for each in tmp_path.glob("out*")) <= 4000
    else:
        assert not out.exists()
        assert "a file has 4000 at most" in " ".join(text.split())
