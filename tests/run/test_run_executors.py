"""Segments that an executor runs compute what they compute here, whatever happens to a worker."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from run_models import EXPORTS, mlp, text_model

from tests.executors import Breaking
from vlmpass import Pipeline
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import RunError, generate_inputs, participants, verify
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.executors import perform
from vlmpass.ir_tools.run.ranges import magnitudes
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.system.executor import running_on

DECODER = EXPORTS / "decoder.float32.ts17.onnx"


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


def outputs(model: ir.Model, executor: Executor | None, runs: int = 3) -> list[dict[str, Any]]:
    """Run a model in some three segments; the arrays stay when the runner is closed."""
    feeds = [generate_inputs(model, seed=seed) for seed in range(runs)]
    with (
        running_on(executor),
        SegmentRunner(model, budget=weight_bytes(model) // 3) as runner,
    ):
        assert len(runner.segments) >= 3
        made = runner.run_all(feeds)
        assert runner.peak_rss > 0
        return [{name: np.array(value) for name, value in each.items()} for each in made]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    pairs = list(zip(one, other, strict=True))
    assert all(list(a) == list(b) for a, b in pairs)
    return all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_processes_compute_the_same_though_the_pool_breaks(after: int) -> None:
    model = load(DECODER)
    expected = outputs(model, None)
    with Breaking(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.after = after
        assert same(outputs(model, executor), expected)
        assert executor.submitted > 3


def test_a_task_done_twice_and_at_once_does_no_harm() -> None:
    class Twice(ThreadPoolExecutor):
        def submit(self, function: Any, *given: Any, **more: Any) -> Future[Any]:
            super().submit(function, *given, **more)
            return super().submit(function, *given, **more)

    model = load(DECODER)
    with Twice(2) as executor:
        assert same(outputs(model, executor, 2), outputs(model, None, 2))


def test_neither_weights_nor_activations_travel_and_many_runs_share_tasks() -> None:
    sizes: list[int] = []

    class Weighing(ThreadPoolExecutor):
        def submit(self, function: Any, task: Any, **more: Any) -> Future[Any]:
            assert function is perform
            sizes.append(len(pickle.dumps(task)) // len(task.runs))
            return super().submit(function, task, **more)

    model = mlp(ir.DataType.FLOAT)
    with Weighing(1) as executor, running_on(executor), SegmentRunner(model) as runner:
        feeds = [{"x": np.full((2000, 16), seed, np.float32)} for seed in range(20)]
        made = runner.run_all(feeds)
    with SegmentRunner(model) as runner:
        expected = [dict(each) for each in runner.run_all(feeds)]
        assert len(made) == len(expected) == 20
    assert len(sizes) == 16
    assert max(sizes) < 4000


def test_what_a_runtime_refuses_or_takes_too_long_over_is_told_as_here() -> None:
    odd = text_model("g (float[2] x) => (float[2] y) { y = com.microsoft.Odd(x) }")
    with ThreadPoolExecutor(1) as executor, running_on(executor):
        with pytest.raises(RunError, match="Odd"), SegmentRunner(odd) as runner:
            runner.run({"x": np.float32([1, 2])})
        late = Allowance(None, 0.0)
        plain = mlp(ir.DataType.FLOAT)
        with (
            pytest.raises(RunError, match="longer than it may"),
            SegmentRunner(plain, allowance=late) as runner,
        ):
            runner.run({"x": np.ones((1, 16), np.float32)})


def test_a_comparison_and_what_is_measured_are_those_made_here(monkeypatch) -> None:
    monkeypatch.setattr(participants, "ONE_SESSION", 1000)
    good, other = mlp(ir.DataType.FLOAT), mlp(ir.DataType.FLOAT, scale=1.1)
    feed = generate_inputs(good)
    expected = magnitudes(good, [feed], budget=1)
    with ThreadPoolExecutor(2) as executor, running_on(executor):
        assert magnitudes(good, [feed], budget=1) == expected
        found = verify(good, mlp(ir.DataType.FLOAT))
        assert found.ok
        assert found.max_rel == 0
        assert not verify(good, other).ok


def test_a_conversion_calibrates_and_compares_through_its_executor(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(participants, "ONE_SESSION", 1000)
    pipeline = Pipeline(dtype="float16", calibrate="random")
    tasks: list[object] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, function: Any, *given: Any, **more: Any) -> Future[Any]:
            tasks.append(function)
            return super().submit(function, *given, **more)

    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    pipeline.convert(DECODER, tmp_path / "here" / "m.onnx", verify=True)
    with Counting(2) as executor:
        report = pipeline.convert(
            DECODER, tmp_path / "there" / "m.onnx", verify=True, executor=executor
        )
    assert report.checked.numbers is not None
    assert perform in tasks
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()


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
def test_a_cluster_computes_the_same_though_a_worker_is_killed(cluster: Any) -> None:
    model = load(DECODER)
    expected = outputs(model, None)
    assert same(outputs(model, cluster.get_executor()), expected)
    victims = list(cluster.run(os.getpid).values())
    executor = cluster.get_executor()
    submit, submitted = executor.submit, []

    def killing(*given: Any, **more: Any) -> Future[Any]:
        submitted.append(given)
        future: Future[Any] = submit(*given, **more)
        if len(submitted) == 5:
            os.kill(victims[0], signal.SIGKILL)
        return future

    executor.submit = killing
    assert same(outputs(model, executor), expected)
