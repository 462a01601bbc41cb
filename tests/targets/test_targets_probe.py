"""Facts that the installed runtime gives, and predictions held to what it does."""

import random
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import onnx_ir as ir
import pytest

from tests.targets import node_tests
from vlmpass.cli.app import run as main
from vlmpass.ir_tools.errors import PipelineError, VerifyError
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.system.runtime import require_runtime
from vlmpass.ir_tools.targets import Context, Support, Verdict, probe, profile, refresh, why_not
from vlmpass.ir_tools.targets.conditions import NodeView, condition
from vlmpass.ir_tools.targets.found import profile_file
from vlmpass.ir_tools.targets.installed import newer
from vlmpass.ir_tools.targets.kernels import Kernels
from vlmpass.ir_tools.targets.operator_facts import operator_facts
from vlmpass.ir_tools.targets.profile_text import SETS, operators_text
from vlmpass.ir_tools.targets.refresh_tried import Tried, differences, heir_text, types_apart
from vlmpass.ir_tools.targets.type_trials import TypeCase, type_cases
from vlmpass.suits import suits

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
    limited = re.findall(r'^"?([\w.]+)"? = ', found_limits(), re.MULTILINE)
    assert "com.microsoft.GroupQueryAttention" in limited
    lines = {name: {1 if "." in name else 22: ["native"]} for name in limited}
    lines |= {"Abs": {13: ["T: float"]}}
    monkeypatch.setattr(refresh, "facts", lambda *_: lines)
    monkeypatch.setattr(refresh, "newest", lambda _: (26, 13))
    found = refresh.probe("ort-cpu")
    assert 'Abs = { 13 = "T: float" }' in found.text
    assert "[limits]" not in found.text.partition("Abs =")[0]
    assert "LSTM = " in found.text.partition("[limits]")[2]
    assert "Abs" in found.changed
    assert "Add" in found.lost


def require(target: str) -> None:
    try:
        require_runtime(refresh.PROBED[target])
    except VerifyError as error:
        pytest.skip(f"{error}; {error.remedy}")


@pytest.mark.parametrize(("target", "sample"), [("openvino", 6), ("ort-web-wasm", 12), ("iree", 1)])
def test_a_runtime_without_a_registry_is_asked_by_tests(target: str, sample: int) -> None:
    require(target)
    found = refresh.probe(target, sample, 7)
    assert 0 < found.sessions <= sample
    assert found.wheel.split()[1][0].isdigit()
    listed = PAGE.read_text(encoding="utf-8")
    assert not [each for each in found.apart if each.partition(":")[0] not in listed]
    assert refresh._read(found.text).probed == found.wheel


def one(operator: str, runs: bool, outcome: str, name: str = "test_one") -> Tried:
    support = Support.NATIVE if runs else Support.UNSUPPORTED
    verdict = Verdict(support, "openvino", operator, 13, "has or has not", "")
    return Tried(name, operator, 13, verdict, outcome, "")


def test_what_differs_is_an_heir_that_says_so(tmp_path: Path) -> None:
    """An operator that none of its tests ran is lost; one of two is no news of the operator."""
    found = [
        one("Abs", True, "refused"),
        one("Add", True, "refused"),
        one("Add", True, "right"),
        one("SequenceMap", False, "right"),
        one("Mul", True, "right"),
    ]
    runs, lost = differences(found)
    assert (runs, lost) == ({"SequenceMap": [13]}, {"Abs": [13]})
    (tmp_path / "new.toml").write_text(heir_text(profile("openvino"), "openvino 9.0", runs, lost))
    heir = profile(str(tmp_path / "new.toml"))
    assert heir.probed == "openvino 9.0"
    (limit,) = heir.operators["", "Abs"].at(13).limits[-1:]
    assert limit.support is Support.UNSUPPORTED
    assert heir.operators["", "SequenceMap"].at(13) is not None
    assert heir.operators["", "Mul"] == profile("openvino").operators["", "Mul"]
    assert [each.name for each in found if not each.agrees] == ["test_one"] * 3


def in_type(operator: str, parameter: str, kind: str, outcome: str, others: str = "") -> Tried:
    version = in_force("", operator, 17).version
    verdict = Verdict(Support.NATIVE, "openvino", operator, version, "has a kernel", "")
    bound = tuple(tuple(each.split("=")) for each in others.split())
    case = TypeCase("test_one", b"", [], [], parameter, kind, bound)
    return Tried("test_one", operator, version, verdict, outcome, "", case)


def test_types_that_do_not_run_are_limits_with_all_types_they_were_found_with(
    tmp_path: Path,
) -> None:
    """A type is no limit where another parameter has another type than it was tried with."""
    found = [
        one("Add", True, "right"),
        in_type("Add", "T", "uint16", "refused"),
        in_type("Add", "T", "int16", "refused"),
        in_type("Add", "T", "int8", "wrong"),
        in_type("Add", "T", "double", "right"),
        in_type("Pow", "T", "double", "refused", "T1=float"),
    ]
    assert differences(found) == ({}, {})
    types = types_apart(found)
    assert types["Add", 14] == ["unsupported if type(T) = int16 uint16", "wrong if type(T) = int8"]
    heir_file = tmp_path / "new.toml"
    heir_file.write_text(heir_text(profile("openvino"), "openvino 9.0", {}, {}, types))

    def said(text: str) -> Support:
        model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}')
        return why_not(model.graph[0], Context.of(model, profile(str(heir_file)))).support

    add = "g ({0}[2] x) => ({0}[2] y) {{ y = Add(x, x) }}"
    kinds = ("int16", "int8", "double")
    expected = [Support.UNSUPPORTED, Support.WRONG, Support.NATIVE]
    assert [said(add.format(kind)) for kind in kinds] == expected
    power = "g (double[2] x, {0}[2] y) => (double[2] z) {{ z = Pow(x, y) }}"
    assert said(power.format("float")) is Support.UNSUPPORTED
    assert said(power.format("double")) is Support.NATIVE


def test_tests_in_other_types_are_what_onnx_computes() -> None:
    """Each is held to ONNX Runtime's CPU, and none is one that onnx has."""
    plain = [each for each in node_tests.cases() if each.is_plain]
    made = node_tests.in_types()
    again = type_cases(random.Random(1).sample(plain, len(plain)))
    assert [each.model for each in made] == [each.model for each in again]
    assert len(made) > 900
    assert not {each.model for each in made} & {each.model for each in plain}
    chosen = random.Random(13).sample(made, 60)
    listed = PAGE.read_text(encoding="utf-8")
    apart = [each for each in node_tests.told("ort-cpu", chosen) if not each.agrees]
    assert not [each for each in apart if each.case.name not in listed]


@pytest.mark.parametrize(
    ("types", "runs"),
    [
        (("float", "float"), True),
        (("double", "double"), True),
        (("float16", "float"), True),
        (("double", "float"), False),
        (("float", "double"), False),
    ],
)
def test_types_that_no_kernel_has_together(types: tuple[str, str], runs: bool) -> None:
    """As sessions find it for GridSample, whose kernels are of one type each."""
    text = "g ({0}[1,1,2,2] x, {1}[1,2,2,2] i) => ({0}[1,1,2,2] y) {{ y = GridSample(x, i) }}"
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 20]> ' + text.format(*types))
    assert why_not(model.graph[0], Context.of(model, profile("ort-cpu"))).runs == runs
    sessions = probe.Sessions()
    try:
        assert (sessions.why_not(model) is None) == runs
    finally:
        sessions.close()


def test_types_of_operands_are_compared() -> None:
    compare = condition("type(Q) != type(V)")
    text = "g ({}[1,2,2,4] q, {}[1,2,2,4] v) => (float[1,2,2,4] y) {{ y = Attention(q, q, v) }}"

    def holds(*types: str) -> bool | None:
        head = '<ir_version: 10, opset_import: ["": 23]> '
        node = ir.from_onnx_text(head + text.format(*types)).graph[0]
        return compare.holds(NodeView(node, in_force("", "Attention", 23), 23, 10))

    assert [holds("float", "float"), holds("float", "double")] == [False, True]
    given = condition("type(attn_mask) != type(Q)")
    node = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 23]> ' + text.format("float", "float")
    ).graph[0]
    assert given.holds(NodeView(node, in_force("", "Attention", 23), 23, 10)) is False, "left out"
    node.inputs[2].type = None
    assert compare.holds(NodeView(node, in_force("", "Attention", 23), 23, 10)) is None


def test_a_newer_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    target = replace(profile("ort-cpu"), probed="onnxruntime 1.9.0")
    assert "the profile is of 1.9.0: vlmpass targets probe ort-cpu" in newer(target)
    assert newer(replace(target, probed="onnxruntime 999.0")) == ""
    assert newer(replace(target, probed="nobody's 1.0")) == ""
    assert newer(replace(target, probed=None)) == ""
    monkeypatch.setattr("vlmpass.suits.newer", lambda _: "a newer one is there")
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
    )
    (found,) = suits(model, [profile("onnx-standard")], Allowance(), {})
    assert found.newer == found.data["newer"] == "a newer one is there"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "count"), [("ort-cpu", 120), ("openvino", 120), ("ort-web-wasm", 120), ("iree", 4)]
)
def test_predictions_are_what_the_runtime_does(target: str, count: int) -> None:
    """Of a seeded sample; what does not agree is on the page."""
    require(target)
    chosen = random.Random(2026).sample(node_tests.cases(), count)
    listed = set(re.findall(r"test_\w+", PAGE.read_text(encoding="utf-8")))
    apart = [each for each in node_tests.told(target, chosen) if not each.agrees]
    assert not [each for each in apart if each.case.name not in listed]
