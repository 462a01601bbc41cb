"""A killed, interrupted or failed save leaves the old or the new output whole, and no litter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from save_models import (
    WIDTH,
    chain,
    compute,
    contents,
    external,
    model_of,
    names,
    write_chain,
)
from save_scaled import LIMIT, needs_fork, scaled

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import as_weight, scale

HERE = Path(__file__).parent


def write_constant_chain(path: Path, factor: float = 1.0, layers: int = 3) -> Path:
    """Write a chain in which all elements of weight i are (i + 1) * factor."""
    arrays = [np.full((WIDTH, WIDTH), factor * (i + 1), np.float32) for i in range(layers)]
    data = f"{path.name}.data"
    (path.parent / data).write_bytes(b"".join(array.tobytes() for array in arrays))
    tensors = [external(f"w{i}", w, data, i * w.nbytes) for i, w in enumerate(arrays)]
    path.write_bytes(model_of(chain(layers), tensors).SerializeToString())
    return path


def crash(tmp_path, *, in_place, old, options, moments=0, seed=0, links=False):
    """Run `save_crash` on a folder that holds a source and perhaps an old output."""
    start = tmp_path / "start"
    start.mkdir()
    source = write_constant_chain(start / "src.onnx")
    output = source if in_place else start / "out.onnx"
    if old and not in_place:
        # The old output is worth 0.5 of the source, the new one 2.
        model = load(source)
        for value in model.graph.initializers.values():
            value.const_value = scale(as_weight(value.const_value), np.array(0.5, np.float32))
        save(model, output, **old)
    elif old:
        save(load(source), output, weights="copy", **old)
    (start / "foreign.txt").write_text("mine")
    job = {
        "start": str(start), "folder": str(tmp_path / "work"), "source": source.name,
        "output": output.name, "options": options, "moments": moments, "seed": seed,
        "links": links,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(HERE / "save_crash.py"), json.dumps(job)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return names(start), json.loads(done.stdout)


def check_states(before, found, in_place, old):
    new = 2.0
    was = 1.0 if in_place else (0.5 if old else None)
    final = found[-1]["names"] if found[-1]["ended"] else found[-1]["next"]["names"]
    for state in found:
        assert state["value"] in (was, new), state
        assert sum(name.startswith(".vlmpass-") for name in state["names"]) <= 1, state
        if "next" in state:
            again = 2 * state["value"] if in_place else new
            assert state["next"]["value"] == again, state
            assert state["next"]["names"] == final, state
    assert "foreign.txt" in final
    assert not any(name.startswith(".vlmpass-") for name in final)
    return before


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["beside", "in-place"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"layout": "default"}),
        ({"layout": "default"}, {"layout": "default"}),
        ({"layout": "hf", "shard_size": LIMIT}, {"layout": "hf", "shard_size": LIMIT}),
        ({"layout": "hf"}, {"layout": "default", "shard_size": LIMIT}),
        ({"layout": "inline"}, {"layout": "single"}),
        ({"layout": "default"}, {"layout": "inline"}),
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "nothing",
)
def test_killed_before_every_change_it_makes(tmp_path, in_place, old, new):
    options = {"weights": "copy", "jobs": 1, **new}
    before, found = crash(tmp_path, in_place=in_place, old=old, options=options)
    assert len(found) > 8
    assert found[-1]["ended"]
    assert {state["value"] for state in found} >= {2.0}
    assert all(state["onnx"] for state in found)
    check_states(before, found, in_place, old)


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("layout", ["default", "hf"])
def test_killed_where_large_data_have_two_names_for_a_moment(tmp_path, layout):
    options = {"weights": "copy", "jobs": 1, "layout": layout}
    before, found = crash(
        tmp_path, in_place=True, old={"layout": layout}, options=options, links=True
    )
    check_states(before, found, True, {"layout": layout})
    refused = [state for state in found if not state["onnx"]]
    assert refused
    assert all(state["value"] == 2.0 and state["next"]["onnx"] for state in refused)


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["beside", "in-place"])
@pytest.mark.parametrize("layout", ["default", "hf"])
def test_killed_at_twenty_random_moments(tmp_path, in_place, layout):
    options = {"weights": "copy", "layout": layout}
    old = {"layout": layout, "shard_size": LIMIT}
    before, found = crash(
        tmp_path, in_place=in_place, old=old, options=options, moments=20, seed=len(layout)
    )
    assert len(found) == 20
    check_states(before, found, in_place, old)


@pytest.mark.parametrize("old", [False, True])
def test_an_exception_while_writing_leaves_nothing(source, tmp_path, old):
    out = tmp_path / "o" / "m.onnx"
    if old:
        save(load(source), out)
    before = contents(out.parent)

    class Stop(BaseException):
        pass

    def progress(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        save(scaled(source), out, progress=progress)
    assert contents(out.parent) == before


class Failing(ir.Tensor):
    """A tensor whose evaluation fails."""

    def numpy(self):
        raise RuntimeError("no such luck")


@pytest.mark.parametrize("old", [False, True])
def test_a_weight_that_cannot_be_evaluated_leaves_nothing(source, tmp_path, old):
    out = tmp_path / "o" / "m.onnx"
    if old:
        save(load(source), out)
    before = contents(out.parent)
    model = scaled(source)
    model.graph.initializers["w2"].const_value = Failing(np.ones((WIDTH, WIDTH), np.float32))
    with pytest.raises(RuntimeError, match="no such luck"):
        save(model, out)
    assert contents(out.parent) == before


def interrupted(tmp_path, source, body: str) -> subprocess.CompletedProcess[str]:
    """Run a save in a process with its main thread free for Ctrl-C."""
    script = f"""
import os, signal, sys, threading, time
import numpy as np, onnx_ir as ir
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.save import saving
out = {str(tmp_path / "o" / "m.onnx")!r}
model = load({str(source)!r})
{body}
"""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_a_weight_is_computed(source, tmp_path):
    save(load(source), tmp_path / "o" / "m.onnx")
    before = contents(tmp_path / "o")
    done = interrupted(
        tmp_path,
        source,
        """
class Slow(ir.Tensor):
    def numpy(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        return super().numpy()
model.graph.initializers["w1"].const_value = Slow(np.ones((32, 32), np.float32), name="w1")
save(model, out)
""",
    )
    assert "KeyboardInterrupt" in done.stderr
    assert contents(tmp_path / "o") == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_in_the_commit_waits_for_its_end(source, tmp_path):
    save(load(source), tmp_path / "o" / "m.onnx")
    done = interrupted(
        tmp_path,
        source,
        """
from vlmpass.ir_tools.weights import as_weight, scale
for value in model.graph.initializers.values():
    value.const_value = scale(as_weight(value.const_value), np.array(2, np.float32))
put = saving.put_in_place
def slowly(*args):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    put(*args)
saving.put_in_place = slowly
save(model, out)
""",
    )
    assert "KeyboardInterrupt" in done.stderr
    assert names(tmp_path / "o") == ["m.onnx", "m.onnx.data"]
    np.testing.assert_array_equal(compute(tmp_path / "o" / "m.onnx"), 16 * compute(source))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_write_error_names_the_file(source, tmp_path):
    done = interrupted(
        tmp_path,
        source,
        """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
try:
    save(model, out)
except Exception as error:
    print(type(error).__name__, error)
""",
    )
    assert done.stdout.startswith("SaveError m.onnx.data cannot be written: File too large; free")
    assert names(tmp_path / "o") == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_too_little_space_is_noticed_before_anything_is_written(small_disk, tmp_path):
    source = write_chain(tmp_path / "big.onnx", 20)
    with pytest.raises(SaveError, match=r"needs 84.* kB and .*disk has 65.* left; free space"):
        save(load(source), small_disk / "m.onnx")
    assert names(small_disk) == []


@pytest.mark.parametrize("reserve", [True, False])
def test_a_disk_that_fills_up_meanwhile(small_disk, tmp_path, monkeypatch, reserve):
    source = write_chain(tmp_path / "big.onnx", 20)
    old = save(load(write_chain(tmp_path / "old.onnx", 2)), small_disk / "m.onnx")
    before = contents(small_disk)
    # Room enough when asked, none any more when it is needed.
    monkeypatch.setattr("vlmpass.ir_tools.save.prepare.check_space", lambda folder, nbytes: None)
    if not reserve:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with pytest.raises(
        SaveError, match=r"m\.onnx\.data cannot be written: No space left on device"
    ):
        save(load(source), small_disk / "m.onnx")
    assert contents(small_disk) == before
    assert len(old.files) == 2
