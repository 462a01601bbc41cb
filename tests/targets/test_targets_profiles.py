"""Profiles of targets: what comes along, files of one's own, packages, and errors that point."""

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import onnx
import pytest
from onnx import parser

from vlmpass import Pipeline
from vlmpass.cli.app import run as main
from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.targets import found, profile, profiles
from vlmpass.ir_tools.targets.toml_profile import RUNTIMES

GOOD = """about = "an appliance"
source = "its manual"
[reads]
opset = [9, 17]
ir-version = 8
"""
MODEL = """<ir_version: 10, opset_import: ["" : 18]>
g (float[2,3] x) => (float[2,1] y) <int64[1] a = {1}> { y = ReduceMean(x, a) }"""


def written(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_what_comes_along_says_where_it_is_from() -> None:
    known = profiles()
    assert list(known) == sorted(known)
    assert "ort-cpu" in known
    for name, each in known.items():
        assert each.name == name
        assert each.source
        assert each.runtime in (None, *RUNTIMES)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = profile(written(tmp_path, GOOD))
    assert (mine.name, mine.lowest_opset, mine.opset, mine.ir_version) == ("mine", 9, 17, 8)
    assert mine.runtime is None


def test_a_file_may_have_more_bytes_than_versions_have_numbers(tmp_path: Path) -> None:
    mine = profile(written(tmp_path, GOOD + "file-size = 4_294_967_296\n"))
    assert mine.file_size == 1 << 32


def test_what_is_inherited_need_not_be_said(tmp_path: Path) -> None:
    first = written(tmp_path, GOOD, "first")
    lower = f"inherits = {json.dumps(first)}\nabout = 'lower'\n[reads]\nopset = [9, 13]"
    found_ = profile(written(tmp_path, lower))
    assert (found_.about, found_.source, found_.opset) == ("lower", "its manual", 13)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("about = \n", r"is not TOML: .*line 1"),
        (GOOD.replace("[9, 17]", "17"), r"reads\.opset of .* is 17; give \[lowest, highest\]"),
        (GOOD.replace("[9, 17]", "[17, 9]"), r"reads\.opset .*give \[lowest"),
        (GOOD.replace("[9, 17]", "[true, 9]"), r"reads\.opset .*give \[lowest"),
        (GOOD.replace("= 8", "= 0"), r"reads\.ir-version .* is 0; give a whole number"),
        (GOOD.replace("= 8", "= []"), r"reads\.ir-version .* is \[\]; give a whole"),
        (GOOD.replace("about", "abot"), r"has abot, which means nothing; did you mean about\?"),
        (GOOD.replace("[reads]", "[reeds]"), r"has reeds\.opset.*did you mean reads\.opset\?"),
        (GOOD.replace('"an appliance"', "3"), "about .* is 3; give one line of text"),
        (GOOD.replace("ir-version = 8", ""), "has no reads.ir-version; add it, a whole number"),
        ('runtime = "tensorrt"\n' + GOOD, 'runtime .* is \'tensorrt\'; give "onnxruntime", "none"'),
        ("about = " + "[" * 5000, "is not TOML: maximum recursion depth"),
        ("reads" + ".opset" * 5000 + " = 1", "is not TOML: maximum recursion depth"),
        (GOOD.replace("= 8", "= 8" + "0" * 5000), "is not TOML: Exceeds the limit"),
        (
            'inherits = "ort-gpu"\n' + GOOD,
            "no target ort-gpu; choose .*, or give a",
        ),
    ],
)
def test_what_is_wrong_is_pointed_at(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said) as caught:
        profile(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_an_heir_of_what_runs_here_need_not_run_here(tmp_path: Path) -> None:
    heir = tmp_path / "heir.toml"
    heir.write_text("inherits = 'ort-cpu'\nruntime = 'none'", encoding="utf-8")
    assert profile("ort-cpu").runtime == "onnxruntime"
    assert profile(str(heir)).runtime is None


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"gone\.toml cannot be read: No such file"):
        profile(str(tmp_path / "gone.toml"))
    (tmp_path / "odd.toml").write_bytes(b"about = '\xff'")
    with pytest.raises(PipelineError, match=r"odd\.toml is not TOML"):
        profile(str(tmp_path / "odd.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PipelineError, match=r"folder\.toml cannot be read: Is a directory"):
        profile(str(tmp_path / "folder.toml"))
    with pytest.raises(PipelineError, match="is no path: embedded null byte"):
        profile("a\0.toml")


def test_what_a_file_inherits_is_looked_for_beside_it(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", GOOD.replace("17", "15"), "base")
    written(tmp_path / "sub", "inherits = 'base.toml'", "middle")
    written(tmp_path, "inherits = 'sub/middle.toml'", "base")
    monkeypatch.chdir(tmp_path)
    assert profile("base.toml").opset == 15
    written(tmp_path / "sub", "inherits = '../sub/middle.toml'", "middle")
    with pytest.raises(PipelineError, match="inherits from itself"):
        profile("base.toml")


def test_a_circle_of_heirs(tmp_path: Path) -> None:
    one, other = (str(tmp_path / f"{name}.toml") for name in ("one", "other"))
    written(tmp_path, f"inherits = {json.dumps(other)}\n{GOOD}", "one")
    written(tmp_path, f"inherits = {json.dumps(one)}\n{GOOD}", "other")
    with pytest.raises(PipelineError, match="inherits from itself"):
        profile(one)


def test_packages_bring_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_targets").mkdir()
    (tmp_path / "my_targets" / "__init__.py").touch()
    written(tmp_path / "my_targets", GOOD, "appliance")
    entries = [EntryPoint("appliance", "my_targets", found.GROUP)]
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(found, "entry_points", lambda group: entries)
    assert profile("appliance").opset == 17
    assert {"appliance", "ort-cpu"} <= set(profiles())
    entries.append(EntryPoint("lost", "no_such_package", found.GROUP))
    with pytest.raises(PipelineError, match="lost is in the package no_such_package: No module"):
        profile("lost")
    written(tmp_path / "my_targets", "inherits = 'appliance.toml'", "heir")
    entries.append(EntryPoint("heir", "my_targets", found.GROUP))
    assert profile("heir").source == "its manual"
    sys.modules.pop("my_targets", None)


def test_a_conversion_keeps_within_what_a_target_reads(tmp_path: Path) -> None:
    source = parser.parse_model(MODEL)
    result = Pipeline(target=written(tmp_path, GOOD)).run(source, verify=False).model
    assert (result.opset_imports[""], result.ir_version) == (17, 8)
    higher = written(tmp_path, GOOD.replace("[9, 17]", "[20, 21]"), "higher")
    result = Pipeline(target=higher).run(source, verify=False).model
    assert result.opset_imports[""] == 20


def opset_within(folder: Path, reads: str, **asked: object) -> int:
    target = written(folder, GOOD.replace("[9, 17]", reads))
    result = Pipeline(target=target, **asked).run(parser.parse_model(MODEL), verify=False).model
    return result.opset_imports[""]


@pytest.mark.parametrize(
    ("reads", "opset"), [("[9, 17]", 17), ("[22, 23]", 22), ("[9, 23]", 21), ("[9, 20]", 20)]
)
def test_auto_is_an_opset_that_the_target_reads(tmp_path: Path, reads: str, opset: int) -> None:
    assert opset_within(tmp_path, reads, opset="auto") == opset


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"opset": "lowest"}, "17 at most, not 18; ask for opset 17"),
        ({"passes": "convert-opset{to=20}"}, "17 at most, not 20"),
        ({"passes": "infer"}, "17 at most, not 18"),
    ],
)
def test_what_it_does_not_read_is_refused_in_the_end(tmp_path: Path, asked, said: str) -> None:
    with pytest.raises(PipelineError, match=f"mine reads opset {said}"):
        opset_within(tmp_path, "[9, 17]", **asked)
    assert opset_within(tmp_path, "[18, 20]", **asked) in (18, 20)


def test_functions_are_within_what_a_target_reads_too(tmp_path: Path) -> None:
    source = parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 17, "f" : 1]>
        g (float[2,3] x) => (float[2,1] y) <int64[1] a = {1}> { y = f.m(x, a) }
        <domain: "f", opset_import: ["" : 18]> m (v, a) => (w) { w = ReduceMean(v, a) }"""
    )
    result = Pipeline(target=written(tmp_path, GOOD)).run(source, verify=False).model
    assert {each.opset_imports[""] for each in result.functions.values()} == {17}


def test_a_target_is_what_it_was_when_it_was_asked_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, GOOD)
    asked = Pipeline(target="mine.toml", opset=17)
    written(tmp_path, GOOD.replace("[9, 17]", "[9, 13]"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = asked.run(parser.parse_model(MODEL), verify=False).model
    assert result.opset_imports[""] == 17


@pytest.mark.parametrize(("opset", "said"), [(18, "17 at most"), (8, "9 at least")])
def test_an_opset_outside_is_refused(tmp_path: Path, opset: int, said: str) -> None:
    with pytest.raises(PipelineError, match=f"mine reads opset {said}, not {opset}; ask for opset"):
        Pipeline(target=written(tmp_path, GOOD), opset=opset)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    assert "ort-cpu" in capsys.readouterr().out
    assert main(["targets", written(tmp_path, GOOD), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["opset"] == 17
    assert main(["targets", "ort-cpu"]) == 0
    assert "onnxruntime loads every result" in capsys.readouterr().out
    assert main(["targets", "nope"]) == 2
    assert "there is no target 'nope'" in capsys.readouterr().err


def test_a_file_gives_the_result_its_name(tmp_path: Path, capsys) -> None:
    onnx.save(parser.parse_model(MODEL), tmp_path / "model.onnx")
    target = written(tmp_path, GOOD, "appliance")
    assert main(["convert", str(tmp_path / "model.onnx"), "--target", target, "--no-verify"]) == 0
    assert list(tmp_path.glob("*appliance*.onnx")), capsys.readouterr().out
