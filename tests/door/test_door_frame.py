"""The frame: help, streams, exit codes, import weight, interruptions and defects."""

import json
import signal
import subprocess
import sys

import pytest
from door_tools import child, listing, mlp_model

import vlmpass

VERBS = (
    "convert", "inspect", "check", "verify", "extract", "split", "compose", "diff", "bisect",
    "reduce", "passes", "rules", "demo",
)  # fmt: skip
HEAVY = ("onnx", "onnx_ir", "numpy", "onnxruntime", "ml_dtypes", "sympy", "rich")


def loaded_after(*arguments):
    """Heavy packages that a call of the command line has imported at its end."""
    program = (
        "import sys\n"
        "from vlmpass.cli.app import run\n"
        f"code = run({list(arguments)!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return result.stderr.strip()


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("convert", "--help"), ("demo", "-h"), ("convrt",)]
)
def test_help_and_usage_errors_import_nothing_heavy(arguments):
    assert loaded_after(*arguments).splitlines()[-1].startswith("[] ")


def test_importing_the_package_imports_nothing_heavy():
    program = f"import sys, vlmpass; print([n for n in {HEAVY!r} if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_public_names_are_there():
    for name in vlmpass.__all__:
        assert getattr(vlmpass, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vlmpass.nonsense


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(door, verb):
    code, out, err = door(verb, "--help")
    assert code == 0
    assert out.startswith(f"Usage: vlmpass {verb}")
    assert err == ""


def test_the_help_lists_the_verbs_and_exit_codes(door):
    code, out, _ = door()
    assert code == 0
    assert "Exit codes: 0 done, 1 findings, 2" in out
    for verb in VERBS:
        assert f"\n  {verb}" in out


def test_the_version(door):
    assert door("--version") == (0, f"vlmpass {vlmpass.__version__}\n", "")


def test_python_m_and_the_streams(tmp_path):
    path = mlp_model(tmp_path)
    result = child("check", path, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"path": str(path), "ok": True, "finding": None}
    assert result.stderr == ""
    result = child("check", tmp_path / "none.onnx")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    path = mlp_model(tmp_path)
    program = (
        f"{sys.executable} -m vlmpass inspect {path} --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert result.stdout.startswith("{")


def test_an_interruption_is_130_and_leaves_nothing(door, tmp_path, monkeypatch):
    path = mlp_model(tmp_path)
    before = listing(tmp_path)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmpass.ir_tools.save.staged.check_written", interrupt)
    code, out, err = door("convert", path, "--opset", 18)
    assert (code, out) == (130, "")
    assert err == "vlmpass: interrupted; nothing was written\n"
    assert listing(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_behind(tmp_path, number, code):
    path = mlp_model(tmp_path)
    before = listing(tmp_path)
    program = (
        "import os, signal, vlmpass.ir_tools.save.staged as staged\n"
        "from vlmpass.cli import main\n"
        f"staged.check_written = lambda *given: os.kill(os.getpid(), {int(number)})\n"
        f"main(['convert', {str(path)!r}, '--opset', '18'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == code
    assert result.stderr == "vlmpass: interrupted; nothing was written\n"
    assert listing(tmp_path) == before


def test_a_defect_is_reported_as_one(door, tmp_path, monkeypatch):
    path = mlp_model(tmp_path)

    def fail(model):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("vlmpass.ir_tools.check.check", fail)
    code, out, err = door("check", path)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first == "vlmpass: defect: ZeroDivisionError: by zero"
    assert "please report it" in second
    assert "vlmpass --debug" in second
    _, _, err = door("--debug", "check", path)
    assert "Traceback" in err
    assert door("check", path)[2].count("Traceback") == 0


def test_debug_shows_where_an_error_was_raised(door, tmp_path):
    code, _, err = door("--debug", "check", tmp_path / "none.onnx")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("vlmpass: error: ")
