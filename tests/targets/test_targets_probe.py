"""Facts that the installed runtime gives, and predictions held to what it does."""

import random
import re
from importlib import metadata, util
from pathlib import Path

import pytest

from tests.targets import node_tests, web
from vlmpass.cli.app import run as main
from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.targets import probe, profile, refresh
from vlmpass.ir_tools.targets.found import profile_file
from vlmpass.ir_tools.targets.kernels import Kernels
from vlmpass.ir_tools.targets.operator_facts import operator_facts
from vlmpass.ir_tools.targets.profile_text import SETS, operators_text

PAGE = Path(__file__).parents[2] / "docs" / "targets.md"
SOME = ("Abs", "Add", "And", "Cast", "Constant", "If", "LayerNormalization", "RoiAlign", "Selu")
pytest.importorskip("onnxruntime")


def probed(some: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    monkeypatch.setattr(probe, "operators", lambda: some)
    monkeypatch.setattr(probe, "contrib", dict)
    sessions = probe.Sessions()
    try:
        kernels = Kernels.installed()
        known = {key: each for key, each in kernels.ranges.items() if key[0] == ""}
        return probe.facts(Kernels(known, kernels.versions), sessions, 26)
    finally:
        sessions.close()


def test_what_the_installed_wheel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probed(SOME, monkeypatch)
    assert found["And"][7] == ["T: bool", "T1: bool"] or found["And"][7] == ["native"]
    assert found["Abs"][13] == ["T: @real @signed @unsigned automatic float16"]
    assert 22 not in found["RoiAlign"], "an open range is for its first version alone"
    assert any("opset != 18" in line for line in found["Selu"][6]), "inlined at one opset alone"
    assert any("bfloat16" in line for line in found["LayerNormalization"][17])


@pytest.mark.skipif(
    f"onnxruntime {metadata.version('onnxruntime')}" != profile("ort-cpu").probed,
    reason="the profile is of another wheel",
)
def test_the_profile_is_what_the_probe_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections of a few operators, as the whole probe wrote them."""
    found = probed(("Abs", "Cast", "Selu", "RoiAlign", "Where", "TopK"), monkeypatch)
    known = profile("ort-cpu").operators
    text = operators_text(found)
    for name, versions in found.items():
        for version, lines in versions.items():
            assert operator_facts({str(version): lines}, SETS).sections[0].types == (
                known["", name].at(version).types
            ), text


def test_what_cannot_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PipelineError, match="nothing here can ask the runtime of tensorrt-11"):
        refresh.probe("tensorrt-11")
    assert main(["targets", "probe", "tensorrt-11"]) == 2
    assert "other profiles are written by hand" in capsys.readouterr().err


def found_limits() -> str:
    text = profile_file("ort-cpu").read_text(encoding="utf-8")
    return text.partition("[limits]")[2]


def test_what_is_written_by_hand_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = re.findall(r"^(\w+) = ", found_limits(), re.MULTILINE)
    lines = {name: {22: ["native"]} for name in limited} | {"Abs": {13: ["T: float"]}}
    monkeypatch.setattr(refresh, "facts", lambda *_: lines)
    monkeypatch.setattr(refresh, "newest", lambda _: (26, 13))
    found = refresh.probe("ort-cpu")
    assert 'Abs = { 13 = "T: float" }' in found.text
    assert "[limits]" not in found.text.partition("Abs =")[0]
    assert "LSTM = " in found.text.partition("[limits]")[2]
    assert "Abs" in found.changed
    assert "Add" in found.lost


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "openvino", "ort-web-wasm"])
def test_predictions_are_what_the_runtime_does(target: str) -> None:
    """Of a seeded sample; what does not agree is on the page."""
    if target == "openvino" and util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    if target == "ort-web-wasm" and not web.is_there():
        pytest.skip("Node.js and onnxruntime-web are not there: see tests/targets/web.py")
    chosen = random.Random(2026).sample(node_tests.cases(), 120)
    listed = set(re.findall(r"test_\w+", PAGE.read_text(encoding="utf-8")))
    apart = [each for each in node_tests.told(target, chosen) if not each.agrees]
    assert not [each for each in apart if each.case.name not in listed]
