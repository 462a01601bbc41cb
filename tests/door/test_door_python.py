"""The library as Python sees it: every function takes the same models, and refuses what it cannot
take by name, with an error of ours.
"""

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from door_tools import listing, mlp_model

import vlmpass
from vlmpass.ir_tools.errors import ArgumentError, VlmpassError
from vlmpass.ir_tools.save import parse_size
from vlmpass.passes import PassManager, parse
from vlmpass.passes.pipeline.options import options_of
from vlmpass.passes.pipeline.registry import PASSES


class Named(os.PathLike):
    """A path that is neither text nor a Path."""

    def __init__(self, path) -> None:
        self.path = path

    def __fspath__(self):
        return self.path


class Odd:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __array__ = __eq__ = __len__ = __bool__ = __repr__
    __hash__ = None


ODD = {
    "None": None,
    "bytes": b"bytes",
    "int": 7,
    "negative": -1,
    "float": 1.5,
    "nan": float("nan"),
    "bool": True,
    "list": [1],
    "empty list": [],
    "dict": {"x": 1},
    "object": object(),
    "odd": Odd(),
    "empty": "",
    "missing": "nope.onnx",
    "null": "a\0b",
    "long": "x" * 5000,
    "folder": ".",
    "bytes path": Named(b"mlp.onnx"),
    "numpy array": np.array([1, 2]),
    "numpy int": np.int64(3),
    "numpy float": np.float32(2),
    "graph": onnx.GraphProto(),
    "empty model": onnx.ModelProto(),
    "type": int,
    "dtype": ir.DataType.FLOAT,
    "error": Exception(),
}
PIPELINE = vlmpass.Pipeline("infer")
MODEL, OUT = "mlp.onnx", "out.onnx"
FUNCTIONS = {
    "load": (vlmpass.load, {"source": MODEL}, "source base_dir"),
    "check": (vlmpass.check, {"source": MODEL}, "source"),
    "save": (
        vlmpass.save,
        {"model": MODEL, "path": OUT},
        "model path shard_size layout weights jobs progress",
    ),
    "verify": (
        vlmpass.verify,
        {"expected": MODEL, "actual": MODEL},
        "expected actual inputs shapes seed tolerance optimization as_is emulated on hard"
        " emulated_in norms restore allowance changes",
    ),
    "Pipeline": (
        vlmpass.Pipeline,
        {},
        "passes opset dtype target quant simplify fuse keep_io calibrate widen_io mend_shifts"
        " instruments",
    ),
    "run": (
        PIPELINE.run,
        {"model": MODEL},
        "model verify memory verify_seconds",
    ),
    "call": (PIPELINE, {"model": MODEL}, "model"),
    "convert": (
        PIPELINE.convert,
        {"source": MODEL, "path": OUT, "verify": False},
        "source path shard_size layout weights jobs verify memory verify_seconds force progress",
    ),
    "extract": (
        vlmpass.extract,
        {"source": MODEL, "path": OUT, "outputs": ["h"]},
        "source path inputs outputs scope shard_size layout weights jobs force",
    ),
    "split": (
        vlmpass.split,
        {"source": MODEL, "folder": "made", "budget": "3KB"},
        "source folder scopes layers budget share shard_size layout weights jobs force",
    ),
    "compose": (vlmpass.compose, {"parts": "parts", "path": OUT}, "parts path force"),
    "run_parts": (
        vlmpass.run_parts,
        {"parts": "parts", "inputs": {"x": np.ones((1, 32), np.float32)}},
        "parts inputs optimization",
    ),
    "bisect": (
        vlmpass.bisect,
        {"source": MODEL, "passes": "infer"},
        "source passes folder tolerance inputs seed check check_time force name",
    ),
    "reduce": (
        vlmpass.reduce,
        {"source": MODEL, "path": OUT, "check": lambda model: True},
        "source path says check_time force",
    ),
    "diff": (vlmpass.diff, {"a": MODEL, "b": MODEL}, "a b"),
    "slim": (
        vlmpass.slim,
        {"model": MODEL},
        "model output_model input_shapes dtype model_check save_as_external_data verbose",
    ),
    "simplify": (vlmpass.simplify, {"model": MODEL}, "model check_n overwrite_input_shapes"),
    "parse": (parse, {}, "text"),
    "parse_size": (parse_size, {}, "text"),
}
CASES = [(name, each) for name, (*_, names) in FUNCTIONS.items() for each in names.split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    mlp_model(folder, MODEL)
    vlmpass.split(folder / MODEL, folder / "parts", budget="3KB")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Let nothing be run: what is asked here is what is refused before that."""
    comparing = importlib.import_module("vlmpass.ir_tools.run.verify")
    monkeypatch.setattr(comparing.Comparison, "run", lambda *_: _Equal())


class _Equal:
    ok, findings, outputs = True, (), ()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_only_our_errors(folder, monkeypatch, name, argument):
    monkeypatch.chdir(folder)
    function, given, _ = FUNCTIONS[name]
    before = listing(folder)
    for what, odd in ODD.items():
        try:
            function(**{**given, argument: odd})
        except VlmpassError as error:
            text = str(error)
            assert text
            assert "\n" not in text.split("\n  ")[0]
            assert "object at 0x" not in text, what
        for made in set(listing(folder)) - set(before):
            (folder / made).unlink()
        for made in folder.iterdir():
            if made.is_dir() and made.name != "parts":
                shutil.rmtree(made)
        assert listing(folder) == before, what


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: vlmpass.load(7), "a int is not a model; give a path"),
        (lambda: vlmpass.load(b"mlp.onnx"), "bytes"),
        (lambda: vlmpass.check([1]), "a list is not a model"),
        (lambda: vlmpass.save("mlp.onnx", 7), "the output is no path but a int"),
        (lambda: vlmpass.save("mlp.onnx", "out/"), "out/ is a folder; name a file in it: out/mod"),
        (lambda: vlmpass.Pipeline("infer").convert("mlp.onnx", "out/"), "out/ is a folder"),
        (lambda: vlmpass.save("mlp.onnx", "out.onnx", jobs=1.5), "jobs takes an integer, not 1.5"),
        (lambda: vlmpass.save("mlp.onnx", "out.onnx", progress=3), "progress takes a function"),
        (lambda: vlmpass.Pipeline(opset=True), "opset takes an integer"),
        (lambda: vlmpass.Pipeline(opset=18.0), "opset takes an integer, not 18.0 (float)"),
        (lambda: vlmpass.Pipeline(dtype=np.float32), "dtype takes a text, not a type"),
        (lambda: vlmpass.Pipeline(simplify="yes"), "simplify takes True or False, not 'yes'"),
        (lambda: vlmpass.Pipeline(7), "passes takes pipeline text or a list of passes, not 7"),
        (lambda: vlmpass.Pipeline(["infer"]), "a list of passes takes PassBases"),
        (
            lambda: vlmpass.Pipeline("infer", instruments=[1]),
            "a list of instruments takes Instruments, not 1",
        ),
        (lambda: vlmpass.Pipeline("infer").run("mlp.onnx", verify=2), "verify takes True or"),
        (lambda: vlmpass.Pipeline("infer").run("mlp.onnx", memory=-1), "integer of 1 or more"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", seed="a"), "seed takes an integer"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", tolerance="a"), "tolerance takes a number"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", optimization="al"), "one of none, basic"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", inputs=[1]), "inputs takes arrays by name"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", inputs={"y": 1}), "lacks x and has y"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", inputs={"x": object()}), "'x' is no array"),
        (lambda: vlmpass.verify("mlp.onnx", "mlp.onnx", emulated="int8"), "float16 or bfloat16"),
        (lambda: vlmpass.split("mlp.onnx", "made", scopes="vpm"), "scopes takes a list of scopes"),
        (lambda: vlmpass.split("mlp.onnx", "made", scopes=[1]), "a list of scopes takes strs"),
        (lambda: vlmpass.extract("mlp.onnx", "out.onnx", outputs="h"), "outputs takes a list"),
        (lambda: vlmpass.extract("mlp.onnx", "out.onnx", inputs=7), "inputs takes a list"),
        (lambda: vlmpass.extract("mlp.onnx", "out.onnx", scope=7), "scope takes a text"),
        (lambda: vlmpass.bisect("mlp.onnx", "infer", check=3), "check takes a text, not 3"),
        (lambda: vlmpass.bisect("mlp.onnx", None), "passes takes pipeline text, not a NoneType"),
        (lambda: vlmpass.reduce("mlp.onnx", "out.onnx", check=3), "check takes a command or"),
    ],
)
def test_what_is_wrong_is_named(folder, monkeypatch, call, says):
    monkeypatch.chdir(folder)
    with pytest.raises(VlmpassError) as raised:
        call()
    assert says in str(raised.value)


@pytest.mark.parametrize("name", PASSES)
def test_options_of_passes(name):
    """Every option of every pass takes an odd value or refuses it."""
    options = options_of(PASSES[name])
    needed = {each.field: "os:path" for each in options if each.required}
    pairs = {"pairs": (("n", np.int64(3)),), "numbers": [1], "words": ["a"], "huge": 1 << 80}
    for option in options:
        for odd in (*ODD.values(), *pairs.values()):
            try:
                made = PASSES[name](**{**needed, option.field: odd})
            except VlmpassError:
                continue
            assert parse(str(made)) == (made,)


def test_a_pass_manager_takes_passes_and_a_model():
    for passes in (None, 3, "infer", [1], [None]):
        with pytest.raises(ArgumentError, match="passes"):
            PassManager(passes)
    for model in (None, "mlp.onnx", b"x", 3, onnx.ModelProto(), object()):
        with pytest.raises(ArgumentError, match="a pass manager takes an ir"):
            PassManager(parse("infer")).run(model)
    for opset in (18, np.int64(18), np.uint8(18)):
        assert str(PASSES["convert-opset"](to=opset)) == "convert-opset{to=18}"
    assert str(PASSES["set-dims"](dims={"n": np.int64(3)})) == "set-dims{n=3}"


def sources(folder: Path):
    """Every kind of model that a function takes."""
    path = folder / MODEL
    yield path
    yield str(path)
    yield Named(str(path))
    yield onnx.load(path)
    yield vlmpass.load(path)
    yield type("Program", (), {"model": vlmpass.load(path)})()


def test_every_function_takes_every_kind_of_model(folder, tmp_path):
    for number, source in enumerate(sources(folder)):
        assert isinstance(vlmpass.load(source), ir.Model)
        vlmpass.check(source)
        out = tmp_path / f"{number}.onnx"
        vlmpass.save(source, out)
        assert vlmpass.verify(source, out).ok
        assert vlmpass.Pipeline(opset=18)(source).after.facts.opset == 18
        report = vlmpass.Pipeline(opset=18).convert(source, out, verify=False)
        assert vlmpass.load(Named(str(out))).opset_imports[""] == 18
        assert report.model.opset_imports[""] == 18


def test_numbers_of_numpy_are_numbers(folder, tmp_path):
    path, out = folder / MODEL, tmp_path / "out.onnx"
    pipeline = vlmpass.Pipeline(opset=np.int64(18), simplify=np.bool_(True))
    pipeline.convert(
        path,
        out,
        shard_size=np.int32(10_000_000),
        jobs=np.uint8(2),
        verify=np.bool_(True),
        memory=np.int64(10**9),
        verify_seconds=np.float32(500),
    )
    assert vlmpass.load(out).opset_imports[""] == 18
    found = vlmpass.verify(
        path, out, inputs={"x": np.ones((2, 32))}, seed=np.int64(1), tolerance=np.float64(1e-3)
    )
    assert found.ok


def test_inputs_are_a_file_too(folder, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.ones((5, 32), np.float32))
    found = vlmpass.verify(folder / MODEL, folder / MODEL, inputs=tmp_path / "in.npz")
    assert found.outputs[0].expected == "float32[5,8]"


@pytest.mark.parametrize("written", [True, False])
def test_a_report_gives_a_proto(folder, tmp_path, written):
    pipeline = vlmpass.Pipeline(opset=18)
    if written:
        report = pipeline.convert(folder / MODEL, tmp_path / "out.onnx", verify=False)
    else:
        report = pipeline(folder / MODEL)
    proto = report.proto()
    assert isinstance(proto, onnx.ModelProto)
    onnx.checker.check_model(proto, full_check=True)
    expected = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(folder / MODEL).graph.initializer
    }
    assert {t.name for t in proto.graph.initializer} == set(expected)
    for tensor in proto.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), expected[tensor.name])


def test_public_names_are_in_dir():
    assert set(vlmpass.__all__) <= set(dir(vlmpass))
    for name in vlmpass.__all__:
        assert getattr(vlmpass, name) is not None
    assert issubclass(ArgumentError, VlmpassError)
