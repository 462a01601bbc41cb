"""No option exists on one side of the door only: command line and Python take the same."""

import inspect
from dataclasses import fields

import pytest
import typer
from door_tools import mlp_model

import vlmpass
from vlmpass.cli.app import app
from vlmpass.convert_options import Comparing, ConvertOptions, Writing
from vlmpass.intent import Intent
from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.options import options_of

ALL = {each.name: each for each in options_of(ConvertOptions)}
# What only one side has, and what the other one has for it.
OF_THE_COMMAND_LINE = {
    "source": "the model that `convert` takes",
    "output": "the path that `convert` takes",
    "json": "Report.to_json",
    "dry_run": "Pipeline.plan",
    "verify_each": "instruments=[VerifyEach()]",
    "dump": "instruments=[Dump(folder)]",
    "limit": "instruments=[Limit(count)]",
}
OF_PYTHON = {
    "instruments": "--verify-each, --dump and --limit",
    "progress": "the bar",
    "judge": "what other tools hold a result to",
    "executor": "objects of Python's",
}
WRONG = [
    {"opset": 99},
    {"opset": "newest"},
    {"dtype": "float8"},
    {"keep_io": True},
    {"widen_io": True},
    {"calibrate": "random"},
    {"dtype": "float16", "calibrate": "nowhere.npz"},
    {"target": "gpu"},
    {"target": "ort-cpu", "opset": 27},
    {"quant": "int4"},
    {"quant": "dequantize-linear", "opset": 17},
    {"fuse": "all"},
    {"sensitivity": "budget=1%"},
    {"sensitivity": "1%", "quantize": "int8"},
    {"sensitivity": "budget=100%", "quantize": "int8"},
    {"sensitivity": "budget=1%,budget=2%", "passes": "quantize-weights"},
    {"sensitivity": "budget=1%", "passes": "infer"},
    {"passes": "infr"},
    {"passes": "infer", "simplify": True},
    {"verify": False, "verify_seconds": 5.0},
    {"memory": "lots"},
    {"shard_size": "2XB"},
    {"layout": "hff"},
    {"weights": "kopy"},
    {"layout": "inline", "weights": "keep"},
    {"layout": "single", "shard_size": "1MB"},
]


def parameters(function):
    return {
        name: each
        for name, each in inspect.signature(function).parameters.items()
        if name != "self"
    }


def words(options):
    """Options as the command line spells them."""
    for name, value in options.items():
        word = ALL[name].word
        if isinstance(value, bool):
            yield f"--{word}" if value else f"--no-{word}"
        else:
            yield f"--{word}={value}"


def test_all_options_are_those_of_the_three_groups():
    groups = [name for group in (Intent, Comparing, Writing) for name in map(_name, fields(group))]
    assert list(ALL) == groups == list(map(_name, fields(ConvertOptions)))
    assert all(each.help.endswith(".") for each in ALL.values())


def _name(each):
    return each.name


def test_the_command_line_takes_them_all():
    command = typer.main.get_command(app).commands["convert"]
    found = {each.name: each for each in command.params if each.name != "help"}
    assert set(found) == set(ALL) | set(OF_THE_COMMAND_LINE)
    for name, each in ALL.items():
        assert found[name].opts == [f"--{each.word}"]
        assert found[name].default == each.default
        assert found[name].help == each.help


def test_python_takes_them_all():
    takes = parameters(vlmpass.Pipeline) | parameters(vlmpass.Pipeline.convert)
    assert set(takes) == set(ALL) | set(OF_PYTHON) | {"source", "path"}
    for group, function in ((Intent, vlmpass.Pipeline), (Writing, vlmpass.Pipeline.convert)):
        for each in fields(group):
            assert takes[each.name].default == each.default
            assert parameters(function)[each.name].annotation == each.type
    for function in (vlmpass.Pipeline.run, vlmpass.Pipeline.convert):
        for each in fields(Comparing):
            assert parameters(function)[each.name].annotation == each.type
    # A run in memory is not compared where nobody asks for it; there is nothing to take its place.
    assert parameters(vlmpass.Pipeline.run)["verify"].default is False


def test_python_shows_the_same_help():
    for function in (vlmpass.Pipeline, vlmpass.Pipeline.convert, vlmpass.Pipeline.run):
        text = " ".join(inspect.getdoc(function).split())
        shown = [each for name, each in ALL.items() if name in parameters(function)]
        assert all(f"{each.name}: {each.help}" in text for each in shown if each.name != "passes")
        assert "See `ConvertOptions`" not in text


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_both_refuse_the_same(door, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    path = mlp_model(tmp_path)
    code, _, err = door("convert", path, "out.onnx", *words(options))

    def convert():
        pipeline = vlmpass.Pipeline(**_those(options, vlmpass.Pipeline))
        pipeline.convert(path, "out.onnx", **_those(options, pipeline.convert))

    with pytest.raises(VlmpassError) as raised:
        convert()
    assert (code, err) == (2, f"vlmpass: error: {raised.value}\n")
    assert not (tmp_path / "out.onnx").exists()


def _those(options, function):
    return {name: value for name, value in options.items() if name in parameters(function)}
