"""A command decides: by what it ends with, in time, and always by the same."""

import os
import time

import onnx_ir as ir
import psutil
import pytest

from vlmpass.ir_tools.errors import PipelineError, VerifyError
from vlmpass.ir_tools.parts.outside_check import OutsideCheck, outside_check

MODEL = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float x) => (float x) { }')
SHELL = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")


@SHELL
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("sh -c 'exit 3' {}", "ends with code 3"),
        ("sh -c 'echo one; echo two >&2; exit 1' {}", "ends with code 1: two"),
        ("sh -c 'kill -SEGV $$' {}", "is ended by SIGSEGV"),
        ("sh -c 'echo almost; kill -USR1 $$' {}", "is ended by SIGUSR1: almost"),
        ("sh -c 'sleep 300' {}", "takes more than 0.2 s"),
        ("test ! -e {}", "ends with code 1"),
    ],
)
def test_how_a_command_fails_is_told(command, told):
    check = OutsideCheck(command, seconds=0.2 if "sleep" in command else 60)
    assert check.fails(MODEL)
    assert check.told == told
    assert check.fails(MODEL)


def test_what_is_in_order_does_not_fail():
    check = OutsideCheck("test -s {}")
    assert not check.fails(MODEL)
    assert check.told == ""


@SHELL
def test_what_hangs_is_ended_with_all_that_it_started(tmp_path):
    number = tmp_path / "number"
    check = OutsideCheck(f"sh -c 'sleep 300 & echo $! > {number}; wait' {{}}", seconds=0.5)
    start = time.monotonic()
    assert check.fails(MODEL)
    assert time.monotonic() - start < 60
    child = int(number.read_text())
    for _ in range(100):
        try:
            if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
                return  # ended, and nobody's any more
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)
    raise AssertionError("it runs on")


@SHELL
def test_another_failure_than_the_first_does_not_count(tmp_path):
    turn = tmp_path / "turn"
    turn.write_text("exit 3")
    check = OutsideCheck(f"sh {turn} {{}}", seconds=0.5)
    assert check.fails(MODEL)
    for text in ("exit 4", "kill -SEGV $$", "kill -USR1 $$", "sleep 300", "exit 0"):
        turn.write_text(text)
        assert not check.fails(MODEL), text
        assert check.told == "ends with code 3", text
    turn.write_text("exit 3")
    assert check.fails(MODEL)
    said = OutsideCheck(f"sh {turn} {{}}", says="no kernel")
    assert not said.fails(MODEL)
    turn.write_text("echo no kernel for it; exit 5")
    assert said.fails(MODEL)


@SHELL
def test_what_cannot_be_run_is_no_failure_of_the_model(tmp_path):
    for command, told in (
        ("sh -c 'exit 127' {}", "ends with code 127"),
        ("sh -c 'no-such-program' {}", "not found"),
        (f"sh -c {tmp_path} {{}}", "cannot be run"),
    ):
        with pytest.raises(VerifyError, match=told):
            OutsideCheck(command).fails(MODEL)
    with pytest.raises(PipelineError, match="no time"):
        outside_check("true {}", 0)
    with pytest.raises(PipelineError, match="cannot be read"):
        outside_check("sh -c 'half {}", None)
