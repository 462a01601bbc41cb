"""Saves at the same time, and the switch from the old output to the new one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from save_models import (
    compute,
    names,
    write_chain,
)
from save_scaled import LIMIT, needs_fork, scaled

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import commit, save


def test_concurrent_saves_to_one_output_leave_one_of_them(source, tmp_path):
    out = tmp_path / "o" / "m.onnx"
    expected = {float(f): compute_scaled(source, tmp_path, f) for f in (1, 2, 3, 4)}
    errors: list[BaseException] = []

    def run(factor: float) -> None:
        try:
            for _ in range(5):
                save(scaled(source, factor), out, layout="hf", shard_size=LIMIT)
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(factor,)) for factor in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    result = compute(out)
    assert any(np.array_equal(result, each) for each in expected.values())
    assert names(out.parent) == ["m.onnx", "m.onnx_data", "m.onnx_data_1"]


def compute_scaled(source: Path, tmp_path: Path, factor: float) -> np.ndarray:
    out = tmp_path / f"expected{factor}.onnx"
    save(scaled(source, factor), out, layout="inline")
    return compute(out)


def test_concurrent_saves_to_one_folder_do_not_disturb_each_other(source, tmp_path):
    results: dict[str, object] = {}

    def run(name: str) -> None:
        results[name] = save(scaled(source), tmp_path / "o" / name, shard_size=LIMIT)

    threads = [threading.Thread(target=run, args=(f"m{i}.onnx",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    for name in results:
        np.testing.assert_array_equal(compute(tmp_path / "o" / name), 16 * compute(source))
    assert len(names(tmp_path / "o")) == 18


@needs_fork
def test_a_folder_that_a_live_run_uses_is_left_alone(source, tmp_path):
    seen = []

    def progress(done: int, total: int) -> None:
        if not seen:
            (mine,) = (n for n in names(tmp_path / "o") if n.startswith(".vlmpass-"))
            seen.append(mine)
            save(load(source), tmp_path / "o" / "other.onnx")
            assert mine in names(tmp_path / "o")

    save(scaled(source), tmp_path / "o" / "m.onnx", progress=progress)
    assert seen
    assert not any(name.startswith(".vlmpass-") for name in names(tmp_path / "o"))


def test_what_looks_like_a_temporary_folder_but_is_not_stays(source, tmp_path):
    odd = tmp_path / "o" / ".vlmpass-odd.tmp"
    odd.mkdir()
    (odd / "mine.txt").write_text("mine")
    save(scaled(source), tmp_path / "o" / "m.onnx")
    assert (odd / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("reason", [OSError, PermissionError])
def test_without_hard_links_the_switch_still_works(tmp_path, monkeypatch, reason):
    def refuse(*_: object, **__: object) -> None:
        raise reason("no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = write_chain(tmp_path / "m.onnx")
    expected = compute(path)
    for _ in range(2):
        save(scaled(path), path, layout="hf", shard_size=LIMIT)
        expected = 16 * expected
        np.testing.assert_array_equal(compute(path), expected)
    assert names(tmp_path) == ["m.onnx", "m.onnx_data", "m.onnx_data_1"]


def test_a_switch_that_fails_half_way_leaves_the_new_output_whole(tmp_path, monkeypatch):
    path = write_chain(tmp_path / "m.onnx")
    save(scaled(path), path)
    expected = compute(path)
    real = os.link
    calls = []

    def fail_second(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) > 1:
            raise OSError(5, "Input/output error", str(args[1]))
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", fail_second)
    monkeypatch.setattr(commit, "_SMALL", -1)
    monkeypatch.setattr(commit, "_shares_blocks", lambda path, copy: False)
    with pytest.raises(VlmpassError, match=r"m\.onnx is complete, but .*; save it once more"):
        save(scaled(path), path)
    np.testing.assert_array_equal(compute(path), 16 * expected)
    monkeypatch.undo()
    save(scaled(path), path)
    np.testing.assert_array_equal(compute(path), 256 * expected)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
