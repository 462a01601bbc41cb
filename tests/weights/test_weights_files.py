"""Reading files: a bound on descriptors, changes that are noticed, threads and processes."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights import StoredWeight, cast, columns, release_files, rows, transpose
from vlmpass.ir_tools.weights import files as weight_files
from vlmpass.ir_tools.weights.files import POOL, FilePool, Runs, Stamp

D = ir.DataType


def weight_of(path, array):
    array.tofile(path)
    return StoredWeight(
        path.name, 0, None, D.FLOAT, shape=ir.Shape(array.shape), name="w", base_dir=path.parent
    )


@pytest.fixture
def weight(tmp_path):
    return weight_of(tmp_path / "w.bin", np.arange(600, dtype=np.float32).reshape(30, 20))


def test_few_descriptors_for_many_files(tmp_path):
    pool = FilePool(limit=4)
    for i in range(50):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(bytes([i] * 10))
        buffer = bytearray(10)
        pool.read_into(str(path), Stamp.of(path.stat()), Runs(0, 10), memoryview(buffer))
        assert buffer == bytes([i] * 10)
        assert len(pool) <= 4
    pool.release()
    assert len(pool) == 0


def test_files_in_use_are_never_closed(tmp_path):
    pool = FilePool(limit=2)
    paths = [tmp_path / f"{i}.bin" for i in range(40)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 50_000)
    stamps = [Stamp.of(path.stat()) for path in paths]

    def read(i):
        buffer = bytearray(50_000)
        pool.read_into(str(paths[i]), stamps[i], Runs(0, 10_000, 10_000), memoryview(buffer))
        if i % 7 == 0:
            pool.release()
        return buffer == bytes([i]) * 50_000

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, list(range(40)) * 20))
    pool.release()
    assert len(pool) == 0


@pytest.mark.parametrize("without", [(), ("preadv",)])
def test_runs_at_equal_distance(tmp_path, monkeypatch, without):
    for name in without:
        monkeypatch.delattr(os, name)
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(range(100)))
    buffer = bytearray(12)
    runs = Runs(5, 3, 10)
    FilePool().read_into(str(path), Stamp.of(path.stat()), runs, memoryview(buffer))
    assert list(buffer) == [5, 6, 7, 15, 16, 17, 25, 26, 27, 35, 36, 37]


def test_short_reads_go_on(tmp_path, monkeypatch):
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(range(100)))
    whole = weight_files._Handle.read_into
    monkeypatch.setattr(
        weight_files._Handle, "read_into", lambda self, at, buffer: whole(self, at, buffer[:2])
    )
    buffer = bytearray(15)
    FilePool().read_into(str(path), Stamp.of(path.stat()), Runs(1, 5, 20), memoryview(buffer))
    assert list(buffer) == [*range(1, 6), *range(21, 26), *range(41, 46)]


def test_without_preadv_threads_do_not_disturb_each_other(weight, monkeypatch):
    monkeypatch.delattr(os, "preadv")
    release_files()
    turned = transpose(weight, [1, 0])
    with ThreadPoolExecutor(8) as threads:
        arrays = list(threads.map(lambda _: turned.numpy(), range(40)))
    expected = np.arange(600, dtype=np.float32).reshape(30, 20).T
    assert all((array == expected).all() for array in arrays)


def test_a_changed_file_is_refused(weight, tmp_path):
    path = tmp_path / "w.bin"
    assert weight.numpy().sum() > 0
    os.utime(path, ns=(1, 1))  # as after writing in place
    with pytest.raises(ModelError, match=r"w\.bin has changed since .*; load it anew"):
        weight.numpy()


def test_a_replaced_file_is_refused_and_its_successor_read(weight, tmp_path):
    old = weight.numpy()
    (tmp_path / "new.bin").write_bytes(b"\0" * 2400)
    (tmp_path / "new.bin").replace(tmp_path / "w.bin")
    new = StoredWeight(
        "w.bin", 0, None, D.FLOAT, shape=ir.Shape([30, 20]), name="w", base_dir=tmp_path
    )
    assert not new.numpy().any()
    assert old.any()
    release_files()
    with pytest.raises(ModelError, match="has changed"):
        weight.numpy()


def test_a_file_cut_or_gone_is_refused(weight, tmp_path):
    weight.numpy()
    os.truncate(tmp_path / "w.bin", 100)
    with pytest.raises(ModelError, match="has changed"):
        list(weight.chunks())
    (tmp_path / "w.bin").unlink()
    release_files()
    with pytest.raises(ModelError, match="has gone"):
        weight.read(((0, 1), (0, 1)))


def test_the_file_is_checked_when_a_weight_is_made(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"12345678")

    def make(location="w.bin", offset=0, length=None, n=2):
        return StoredWeight(
            location, offset, length, D.FLOAT, shape=ir.Shape([n]), name="w", base_dir=tmp_path
        )

    make()
    with pytest.raises(ModelError, match="No such file"):
        make(location="v.bin")
    with pytest.raises(ModelError, match=r"bytes 4 to 12 of .* which has 8"):
        make(offset=4)
    with pytest.raises(ModelError, match="8 bytes, but says that its data are 4"):
        make(length=4)
    assert make(offset=8, n=0).numpy().shape == (0,)


def test_pickles_and_copies(weight):
    for one in (weight, columns(cast(weight, D.BFLOAT16), 3, 7)):
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
            assert again.expression == one.expression
            assert (again.name, again.shape, again.dtype) == (one.name, one.shape, one.dtype)
            assert again.tobytes() == one.tobytes()


def _evaluate(weight):
    return weight.tobytes()


@pytest.mark.parametrize(
    "method",
    [
        "spawn",
        pytest.param(
            "fork", marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
        ),
    ],
)
def test_processes(weight, method):
    lazy = transpose(cast(rows(weight, 3, 20), D.FLOAT16), [1, 0])
    expected = lazy.tobytes()
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as processes:
        assert list(processes.map(_evaluate, [lazy] * 4)) == [expected] * 4
    assert lazy.tobytes() == expected


def test_threads_share_weights(weight):
    lazy = transpose(cast(weight, D.BFLOAT16), [1, 0])
    expected = lazy.tobytes()
    with ThreadPoolExecutor(8) as threads:
        assert all(data == expected for data in threads.map(lambda _: lazy.tobytes(), range(64)))
    assert len(POOL) <= 32


def _peak_mb(tmp_path, code):
    """Run code in a process of its own; return how many MB its peak RSS grew."""
    program = (
        textwrap.dedent("""
        import resource
        import numpy as np
        import onnx_ir as ir
        from vlmpass.ir_tools.weights import *
        D = ir.DataType
        def weight(dtype, shape):
            return StoredWeight("big.bin", 0, None, dtype, shape=ir.Shape(shape), name="w")
        def drain(weight):
            assert sum(len(chunk) for chunk in weight.chunks(Tally())) == weight.nbytes
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
    """)
        + textwrap.dedent(code)
        + "\nprint((peak() - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.fixture
def sparse_file(tmp_path):
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(1 << 29)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage")
@pytest.mark.parametrize(
    "code",
    [
        "drain(weight(D.FLOAT, [8192, 16384]))",
        "w = weight(D.BFLOAT16, [16384, 16384])\n"
        "drain(cast(cast(cast(cast(w, D.FLOAT), D.FLOAT16), D.DOUBLE), D.FLOAT8E4M3FN))",
        "drain(scale(weight(D.FLOAT, [8192, 16384]), np.ones(16384)))",
        "drain(columns(weight(D.FLOAT, [8192, 16384]), 1, 9000))",
        "drain(cast(transpose(weight(D.FLOAT16, [16384, 16384]), [1, 0]), D.FLOAT))",
        "w = transpose(weight(D.FLOAT, [151936, 883]), [1, 0])\n"
        "assert sum(len(piece) for _, piece in w.pieces()) == w.nbytes",
        "drain(concat([weight(D.INT4, [1 << 12, 1 << 16])] * 2, 1))",
    ],
    ids=["stored", "casts", "scale", "columns", "transpose", "pieces", "concat"],
)
def test_memory_is_bounded(sparse_file, code):
    assert _peak_mb(sparse_file, code) < 64


@pytest.mark.skipif(sys.platform == "win32", reason="no setrlimit")
def test_thousands_of_files_with_few_descriptors(tmp_path):
    code = """
        import os
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        total = 0
        for i in range(2000):
            with open(f"{i}.bin", "wb") as file:
                file.write(np.full(4, i, np.float32).tobytes())
        weights = [
            StoredWeight(f"{i}.bin", 0, 16, D.FLOAT, shape=ir.Shape([4]), name="w")
            for i in range(2000)
        ]
        for i, w in enumerate(weights):
            assert (w.numpy() == i).all()
    """
    _peak_mb(tmp_path, code)
