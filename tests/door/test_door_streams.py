"""Streams that are not what a terminal is: other encodings, narrow, closed, full, left, signalled.

Whatever fails after a model is in place says that it stands; before that nothing is left.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import onnx
import pytest
from door_tools import child, demo_model, listing, mlp_model

from vlmpass.screens.characters import encodable, fitted, printable, shown_in

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")


def environment(**changes):
    return {**os.environ, "PYTHONUTF8": "0", **changes}


def shell(line, **options):
    """Run a line of bash in which $V is the command line."""
    line = line.replace("$V", f"{sys.executable} -m vlmpass")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, **options
    )


def test_a_character_that_an_encoding_lacks_has_an_ascii_form():
    assert encodable("a → b ≤ c · д", "ascii") == "a -> b <= c * \\u0434"
    assert encodable("a → b ≤ c · д", "cp1252") == "a -> b <= c · \\u0434"
    assert encodable("a → д", "utf-8") == "a → д"
    assert encodable("half \udc80", "utf-8") == "half \\udc80"
    assert encodable("→", "no-such-encoding") == "->"
    with shown_in("latin-1"):
        assert fitted("é → \x1b[31m") == "é -> \\x1b[31m"
    assert fitted("→") == "→"
    assert printable("a\nb\x9b") == "a\nb\\x9b"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_conversion_whatever_the_encoding(tmp_path, encoding):
    path = demo_model(tmp_path)
    wanted = ("convert", path, tmp_path / "out.onnx", "--opset", 18, "--simplify", "--no-verify")
    result = subprocess.run(
        [sys.executable, "-m", "vlmpass", *map(str, wanted)],
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode(encoding)
    assert "tiny.onnx ->" in text
    assert "full type check passed" in text


def test_a_narrow_pipe_keeps_its_width(tmp_path):
    path = demo_model(tmp_path)
    for verb in (("inspect",), ("convert", "--opset", 18, "--no-verify")):
        result = child(verb[0], path, *verb[1:], env=environment(COLUMNS="60"))
        assert result.returncode == 0, result.stderr
        lines = [line for line in result.stdout.splitlines() if str(tmp_path) not in line]
        assert max(map(len, lines)) <= 60  # but for paths, which are there to be copied


def test_names_are_no_markup_and_steer_no_terminal(door, tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Relu(x) }'
    )
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "[bold]n[/]"
    model.graph.node[0].name = "\x1b[31mred"
    model.graph.input[0].name = model.graph.node[0].input[0] = "[/]\x1b[2J"
    onnx.save(model, tmp_path / "m.onnx")
    for verb in (("inspect",), ("convert", "--simplify"), ("check",)):
        code, out, err = door(verb[0], tmp_path / "m.onnx", *verb[1:])
        assert code == 0, err
        assert "\x1b" not in out + err
    assert "[bold]n[/]" in door("inspect", tmp_path / "m.onnx")[1]


@LINUX
@pytest.mark.parametrize(("to", "says"), [(">&-", "is closed"), (">/dev/full", "No space left")])
def test_a_result_stands_though_its_report_has_no_place(tmp_path, to, says):
    path = mlp_model(tmp_path)
    out = tmp_path / "out.onnx"
    result = shell(f"$V convert {path} {out} --opset 18 --no-verify --json {to}")
    assert result.returncode == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("vlmpass: error: standard output ")
    assert says in first
    assert second == f"  {out} is complete and stands"
    onnx.checker.check_model(onnx.load(out))


@LINUX
def test_what_has_no_place_for_its_output_says_so():
    for verb in ("--help", "--version", "check nowhere.onnx"):
        result = shell(f"$V {verb} >/dev/full")
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert "nothing was written" not in result.stderr
        assert shell(f"$V {verb} >/dev/full 2>&1").returncode == 2
        assert shell(f"$V {verb} >&- 2>&-").returncode == 2


def test_a_closed_stream_does_not_hand_its_number_to_a_file(tmp_path):
    path = mlp_model(tmp_path)
    shell(f"$V convert {path} {tmp_path}/out.onnx --dtype float16 --no-verify <&- >&- 2>&-")
    assert shell(f"$V check {tmp_path}/out.onnx").returncode == 0


def test_the_exit_code_is_the_verdict_also_when_the_reader_has_gone(tmp_path):
    path = mlp_model(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.node[1].op_type = "Nonsense"
    path.write_bytes(model.SerializeToString())
    result = shell(f"$V check {path} | true; echo ${{PIPESTATUS[0]}}")
    assert (result.stdout, result.stderr) == ("1\n", "")


def test_a_failure_after_the_commit_says_what_stands(door, tmp_path, monkeypatch):
    path = mlp_model(tmp_path)
    out = tmp_path / "out.onnx"

    def fail(report):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("vlmpass.screens.conversion.report_screen", fail)
    code, _, err = door("convert", path, out, "--opset", 18, "--no-verify")
    assert code == 2
    assert f"{out} is complete and stands; please report it" in err
    monkeypatch.setattr("vlmpass.report.Report.to_json", fail)
    code, text, err = door("convert", path, out, "--opset", 18, "--no-verify", "--json")
    assert code == 2
    assert json.loads(text)["error"]["stands"] == [str(out)]
    assert "nothing was written" not in err


def test_an_interruption_after_the_commit_says_what_stands(door, tmp_path, monkeypatch):
    path = mlp_model(tmp_path)

    def interrupt(report):
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmpass.screens.conversion.report_screen", interrupt)
    code, _, err = door("convert", path, tmp_path / "out.onnx", "--opset", 18, "--no-verify")
    assert code == 130
    assert err == f"vlmpass: interrupted; {tmp_path / 'out.onnx'} is complete and stands\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("times", [1, 3])
def test_a_commit_ends_before_an_interruption_counts(tmp_path, times):
    path, out = mlp_model(tmp_path), tmp_path / "out.onnx"
    program = (
        "import os, signal, time\n"
        "from vlmpass.cli import main\n"
        "from vlmpass.ir_tools.save import saving\n"
        "commit = saving._commit\n"
        "def interrupted(staged):\n"
        f"    for _ in range({times}):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.05)\n"
        "    return commit(staged)\n"
        "saving._commit = interrupted\n"
        f"main(['convert', {str(path)!r}, {str(out)!r}, '--opset', '18', '--no-verify'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 130
    assert result.stderr == f"vlmpass: interrupted; {out} is complete and stands\n"
    onnx.checker.check_model(onnx.load(out))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_extension_is_imported_to_its_end_before_an_interruption_counts(tmp_path):
    """Compiled code that gets an exception from what it imports ends the process, or errs."""
    path, out = mlp_model(tmp_path), tmp_path / "out.onnx"
    program = (
        "import signal, sys\n"
        "from vlmpass import cli\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if cli._loads_extension(sys._getframe()):\n"
        "            sys.meta_path.remove(self)\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"cli.main(['convert', {str(path)!r}, {str(out)!r}, '--opset', '18'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 128 + signal.SIGTERM
    assert result.stderr == "vlmpass: interrupted; nothing was written\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_an_interrupted_process_says_is_true(tmp_path):
    """VLMPASS_KILLS sets how many are tried; the moments are drawn with a fixed seed."""
    path = mlp_model(tmp_path)
    out = tmp_path / "out.onnx"
    before = listing(tmp_path)
    draw = random.Random(5)
    for _ in range(int(os.environ.get("VLMPASS_KILLS", "10"))):
        number = draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process = subprocess.Popen(
            [sys.executable, "-m", "vlmpass", "convert", path, out, "--opset", "18"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(draw.uniform(0.15, 1.6))
        process.send_signal(number)
        err = process.communicate()[1]
        if process.returncode == -number:  # the interpreter was still on its way to our code
            assert listing(tmp_path) == before
            continue
        assert "Traceback" not in err
        if process.returncode == 0:
            assert err == ""
        else:
            assert process.returncode == 128 + number, err
            assert ("stands" in err) == out.exists(), err
            assert ("nothing was written" in err) != out.exists(), err
        if out.exists():
            onnx.checker.check_model(onnx.load(out))
            out.unlink()
        left = {name: data for name, data in listing(tmp_path).items() if name in before}
        assert left == before
        assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


@LINUX
def test_a_signal_that_is_ignored_stays_so(tmp_path):
    path = mlp_model(tmp_path)
    program = (
        "import os, signal, vlmpass.ir_tools.save.staged as staged; from vlmpass.cli import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "staged.check_written = lambda *given: os.kill(os.getpid(), signal.SIGHUP)\n"
        f"main(['convert', {str(path)!r}, '--opset', '18', '--no-verify'])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_dump_that_stands_is_named(door, tmp_path, monkeypatch):
    """A refusal or an interruption says which dumps there are; nothing else was written."""
    path = demo_model(tmp_path)
    passes = "unify-dtype,convert-opset{to=18},set-dims{nowhere=1}"
    asked = ("convert", path, tmp_path / "o.onnx", "--passes", passes, "--dump", tmp_path / "d")
    code, _, err = door(*asked)
    assert code == 2
    first, second = sorted((tmp_path / "d").iterdir())
    assert err.endswith(f"\n  {first} and {second} are complete and stand\n")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmpass.passes.dims.set_dims.SetDims.run", interrupt)
    code, _, err = door(*asked)
    assert code == 130
    assert "nothing was written" not in err
    assert not (tmp_path / "o.onnx").exists()


def test_many_refusals_are_grouped_and_debug_lists_them_all(door, tmp_path):
    nodes = "\n".join(f'["c{i}"] y{i} = mine.Op(x)' for i in range(30))
    outputs = ", ".join(f"float[n] y{i}" for i in range(30))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        g (float[n] x) => ({outputs}) {{ {nodes} }}"""
    )
    for node in model.graph.node:
        node.domain, node.op_type = "org.pytorch.aten", "ATen"
        node.attribute.append(onnx.helper.make_attribute("operator", "_upsample_bicubic2d_aa"))
    model.opset_import.append(onnx.helper.make_opsetid("org.pytorch.aten", 1))
    onnx.save(model, tmp_path / "m.onnx")
    asked = ("convert", tmp_path / "m.onnx", "--passes", "substitute", "--no-verify")
    code, _, err = door(*asked)
    assert code == 2
    assert "refused for 30 nodes" in err
    assert "more" in err
    assert "  vlmpass --debug lists every node\n" in err
    assert len(err.splitlines()) < 8
    full = door("--debug", *asked)[2]
    assert all(f"c{i}" in full for i in range(30))
