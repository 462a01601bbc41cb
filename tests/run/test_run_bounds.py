"""What running a model may take, and what a killed run leaves."""

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from run_models import mlp, text_model

from vlmpass.ir_tools.run import RunError, Runner, verify
from vlmpass.ir_tools.run.allowance import Allowance, default_memory
from vlmpass.ir_tools.system.memory import physical_memory
from vlmpass.ir_tools.worker.bounds import MEMORY_EXIT

BLOWS = """g (float[n, n] x) => (float[m, m] y) {
    k = Constant<value_ints = [4000, 4000]>()
    a = Tile(x, k)
    b = Concat<axis = 0>(a, a, a, a)
    y = ReduceMax<keepdims = 0>(b)
}"""
DEEP = """g (float[64, 64] x) => (float[64, 64] y) {
    trips = Constant<value_int = 100000000>()
    on = Constant<value = bool {1}>()
    y = Loop(trips, on, x) <
        body = b (int64 i, bool c, float[64, 64] v) => (bool d, float[64, 64] w) {
            d = Identity(c) w = MatMul(v, v)
        }
    >
}"""


@pytest.mark.parametrize("backend", ["onnxruntime", "reference"])
def test_a_model_that_takes_too_much_memory_is_stopped_and_says_so(backend):
    allowance = Allowance(memory=200_000_000)
    with Runner(text_model(BLOWS), backend=backend, allowance=allowance) as runner:
        with pytest.raises(RunError, match=r"stopped .* needs more than 0\.2 GB") as caught:
            runner.run({"x": np.ones((3, 3), np.float32)})
        assert caught.value.is_stop


def test_a_comparison_that_takes_too_much_memory_is_no_verdict():
    model = text_model(BLOWS)
    with pytest.raises(RunError, match=r"--memory"):
        verify(model, model, allowance=Allowance(memory=200_000_000))


def test_a_bound_leaves_room_for_what_a_small_model_takes():
    model = mlp(ir.DataType.FLOAT)
    assert verify(model, model, allowance=Allowance(memory=100_000_000)).ok


@pytest.mark.parametrize("seconds", [math.inf, 1e12])
def test_no_time_is_too_long(seconds, monkeypatch):
    """A thread that was to wait so long ended at once, and said so on standard error."""
    fell: list[object] = []
    monkeypatch.setattr(threading, "excepthook", fell.append)
    model = mlp(ir.DataType.FLOAT)
    assert verify(model, model, allowance=Allowance(until=time.monotonic() + seconds)).ok
    assert not fell


def test_time_is_a_bound():
    start = time.monotonic()
    bound = Allowance(until=start + 2)  # which the start alone takes on a busy machine
    stopped = pytest.raises(RunError, match="time")
    with stopped as caught, Runner(text_model(DEEP), allowance=bound) as runner:
        runner.run({"x": np.ones((64, 64), np.float32)})
    assert caught.value.is_stop


def test_the_default_is_derived_from_the_machine(monkeypatch):
    assert 1e9 <= default_memory() <= 4e9
    assert physical_memory() > 1e8
    for total, allowed in ((2e9, 1e9), (12e9, 3e9), (1e12, 4e9)):
        monkeypatch.setattr("vlmpass.ir_tools.run.allowance.physical_memory", lambda t=total: t)
        assert default_memory() == allowed


def test_where_the_kernel_holds_no_bound_a_thread_ends_the_process():
    program = (
        "from vlmpass.ir_tools.worker.bounds import watch_memory; watch_memory(100_000_000);"
        "import time; a = bytearray(300_000_000); time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == MEMORY_EXIT


def folders() -> set[str]:
    return {each.name for each in Path(tempfile.gettempdir()).glob("vlmpass-run-*")}


def test_the_next_run_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    program = (
        "import onnx_ir as ir, os, time; from vlmpass.ir_tools.run import Runner;"
        "m = ir.from_onnx_text('''<ir_version: 8, opset_import: [\"\": 17]>"
        " g (float[n] x) => (float[n] y) {{ y = Neg(x) }}''');"
        "runner = Runner(m); {}"
    )
    killed = program.format("os._exit(9)")
    subprocess.run([sys.executable, "-c", killed], timeout=60, check=False)
    left = folders()
    assert len(left) == 1
    for each in left:
        os.utime(tmp_path / each / "lock", (0, 0))
    subprocess.run([sys.executable, "-c", program.format("runner.close()")], timeout=60, check=True)
    assert not folders()


def test_what_another_process_still_uses_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Runner(mlp(ir.DataType.FLOAT)) as runner:
        os.utime(runner._folder.path / "lock", (0, 0))
        program = "from vlmpass.ir_tools.worker.folder import WorkFolder; WorkFolder().remove()"
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=True)
        assert folders() == {runner._folder.path.name}
        assert runner.run({"x": np.ones((2, 16), np.float32)})
    assert not folders()
