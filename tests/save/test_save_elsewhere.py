"""Data files that an executor writes are those written here, whatever becomes of its workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from save_models import names, write_chain

from tests.executors import Breaking
from vlmpass import Pipeline
from vlmpass.ir_tools.errors import ArgumentError, SaveError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import SaveReport, save
from vlmpass.ir_tools.save.elsewhere import perform
from vlmpass.ir_tools.weights import as_weight, cast, concat, transpose

LAYERS = 24


def changed(source: Path) -> ir.Model:
    """A model of stored weights, casts that lose something, and expressions over two files."""
    model = load(source)
    for number, value in enumerate(model.graph.initializers.values()):
        weight = as_weight(value.const_value)
        if number % 4 == 1:
            weight = cast(cast(weight, ir.DataType.FLOAT16), ir.DataType.FLOAT)
        elif number % 4 == 2:
            half = concat([weight, weight], 0)
            weight = transpose(transpose(half, [1, 0]), [1, 0])
        value.const_value, value.shape = weight, weight.shape
    return model


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, bytes]]:
    """A source, and what is made of it without an executor; a task is a weight or two."""
    monkeypatch.setattr("vlmpass.ir_tools.save.tasks._TASK_BYTES", 4096)
    source = write_chain(tmp_path / "in.onnx", LAYERS, scale=1e5)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    report = save(changed(source), tmp_path / "here" / "m.onnx", shard_size=60_000)
    assert report.tallies
    return source, written(tmp_path / "here")


def by(executor: Executor, source: Path, **more: Any) -> tuple[SaveReport, dict[str, bytes]]:
    path = source.parent / "there" / "m.onnx"
    report = save(changed(source), path, shard_size=60_000, executor=executor, **more)
    return report, written(path.parent)


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def test_processes_write_the_same_bytes(here):
    source, expected = here
    calls: list[tuple[int, int]] = []
    with pool() as executor:
        report, found = by(executor, source, progress=lambda *done: calls.append(done))
    assert found == expected
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1]
    assert report.tallies == save(changed(source), source.parent / "again.onnx").tallies


@pytest.mark.parametrize("after", [1, 3, 7])
def test_what_a_broken_pool_left_is_written_here(here, after):
    source, expected = here
    with Breaking(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.after = after
        assert by(executor, source)[1] == expected


def test_what_a_worker_refuses_is_refused(here):
    source, _ = here
    with pool() as executor:
        model = changed(source)
        data = source.with_name("in.onnx.data")
        data.write_bytes(data.read_bytes() + b"more")
        with pytest.raises(SaveError, match="has changed since") as raised:
            save(model, source.parent / "there" / "m.onnx", executor=executor)
    assert raised.value.remedy
    assert names(source.parent / "there") == []


def test_a_task_done_twice_and_at_once_does_no_harm(here):
    source, expected = here

    class Twice(ThreadPoolExecutor):
        def submit(self, function: Any, *given: Any, **more: Any) -> Future[Any]:
            super().submit(function, *given, **more)
            return super().submit(function, *given, **more)

    with Twice(4) as executor:
        assert by(executor, source)[1] == expected


def test_a_task_travels_as_what_to_do_and_not_as_bytes(here):
    import pickle

    source, _ = here
    sizes = []

    class Weighing(ThreadPoolExecutor):
        def submit(self, function: Any, task: Any, **more: Any) -> Future[Any]:
            assert function is perform
            sizes.append((len(pickle.dumps(task)), sum(each.nbytes for _, each in task.contents)))
            return super().submit(function, task, **more)

    with Weighing(1) as executor:
        by(executor, source)
    assert all(pickled < 2000 < nbytes for pickled, nbytes in sizes)


def test_no_executor_is_told_at_once(tmp_path):
    source = write_chain(tmp_path / "in.onnx")
    with pytest.raises(ArgumentError, match=r"executor takes a concurrent\.futures\.Executor"):
        Pipeline(opset=18).convert(source, tmp_path / "out.onnx", executor=2)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.skipif(sys.platform == "win32", reason="kill")
def test_a_cluster_writes_the_same_bytes_though_a_worker_is_killed(here, cluster):
    source, expected = here
    assert by(cluster.get_executor(), source)[1] == expected
    victims = list(cluster.run(os.getpid).values())
    for path in (source.parent / "there").iterdir():
        path.unlink()

    def kill_one(done: int, total: int) -> None:
        if victims and 0 < done < total // 2:
            os.kill(victims.pop(), signal.SIGKILL)
            victims.clear()

    assert by(cluster.get_executor(), source, progress=kill_one)[1] == expected
    assert not victims


def test_a_conversion_takes_an_executor(tmp_path):
    source = write_chain(tmp_path / "in.onnx", LAYERS)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    pipeline = Pipeline(dtype="float16")
    pipeline.convert(source, tmp_path / "here" / "m.onnx", verify=False)
    with pool() as executor:
        path = tmp_path / "there" / "m.onnx"
        pipeline.convert(source, path, verify=False, executor=executor)
    assert written(tmp_path / "here") == written(tmp_path / "there")
