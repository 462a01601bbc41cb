"""Random command lines: what is asked for is done or refused, and what is said is so.

VLMPASS_COMMANDS sets how many are tried.
"""

import errno
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from door_commands import Commands, trials
from door_furnish import furnish

import vlmpass.cli.app
import vlmpass.cli.console
import vlmpass.cli.failure
import vlmpass.cli.verb
from vlmpass import pipeline, running
from vlmpass.ir_tools.errors import PipelineError, SaveError
from vlmpass.ir_tools.save import saving
from vlmpass.ir_tools.system import paths
from vlmpass.report import Report

NUMBER = int(os.environ.get("VLMPASS_COMMANDS", "150"))
SEED = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    furnish(folder)
    return folder


def test_whatever_is_asked(folder):
    found = [
        f"{finding}\n    {command}" for command, finding in trials(folder, NUMBER, SEED, slow=0.004)
    ]
    assert not found, "\n".join(found)


def test_every_option_of_every_verb_is_drawn():
    commands = Commands(random.Random(0), slow=0.5)
    words = {word.partition("=")[0] for _ in range(3000) for word in commands.one().words}
    for options in commands.verbs.values():
        for option in options:
            assert words & {*option.opts, *option.secondary_opts}, option.name


def test_the_same_seed_draws_the_same():
    once, again = (Commands(random.Random(7)) for _ in range(2))
    assert [once.one() for _ in range(50)] == [again.one() for _ in range(50)]


# What a careless change could do, each planted in the product.


def _told(change):
    """Say another thing than `tell` says."""
    real = vlmpass.cli.failure.tell

    def tell(failure, code, text):
        return change(real, failure, code, text)

    return [(module, "tell", tell) for module in (vlmpass.cli.app, vlmpass.cli.verb)]


def _wrapped(module, name, change):
    real = getattr(module, name)
    return [(module, name, lambda *args, **given: change(real, *args, **given))]


def _after(action):
    def change(real, *args, **given):
        made = real(*args, **given)
        action(*args, **given)
        return made

    return change


def _after_commit(action):
    @contextmanager
    def change(real, *args, **given):
        with real(*args, **given) as output:
            yield output
        action(*args, **given)

    return change


def _raises(error):
    def change(real, *args, **given):
        raise error

    return change


def _litter(*args, **given):
    Path(".vlmpass-left.tmp").write_text("left")


def _early_write(real, path, *args):
    Path("early.onnx").write_bytes(b"")
    return real(path, *args)


def _opened(real, path):
    Path(path).open("rb").close()
    return real(path)


def _wrong_result(model, path, **given):
    Path(path).write_bytes(b"")


def _touch_source(model, path, **given):
    Path("mlp.onnx.data").write_bytes(b"other")


def _silent(text):
    """Write nothing."""


def _loud(text):
    sys.stdout.write("debugging\n")


CLI, CONSOLE, VERB = vlmpass.cli.app, vlmpass.cli.console, vlmpass.cli.verb
FAULTS = {
    "encodings are not minded": [(CONSOLE, "encodable", lambda text, encoding: text)],
    "controls are shown": [(CONSOLE, "printable", lambda text: text)],
    "an exit code of its own": _told(lambda real, *args: real(*args) + 1),
    "a refusal counts as done": _told(lambda real, *args: real(*args) * 0),
    "a finding of a verb without": _told(lambda real, *args: real(*args) // 2),
    "told twice": _told(lambda real, *args: (real(*args), real(*args))[0]),
    "told in no clear line": _told(lambda real, f, code, text: real(f, code, text[16:])),
    "told without a problem": _told(lambda real, f, code, text: real(f, code, text[:16])),
    "told on standard output": _told(
        lambda real, f, code, text: (sys.stdout.write(text), real(f, code, text))[1]
    ),
    "a refusal without end": _told(
        lambda real, f, code, text: real(f, code, text + ", and so on" * 400)
    ),
    "a traceback": _told(
        lambda real, f, code, text: real(f, code, f"{text}\n  Traceback (most recent call last)")
    ),
    "errors are not JSON": [(vlmpass.cli.failure, "show_json", _silent)],
    "results are not JSON": [
        (sys.modules[f"vlmpass.cli.{verb}"], "show_json", lambda data: CONSOLE.write(str(data)))
        for verb in ("convert", "check", "inspect", "passes", "rules", "opset")
    ],
    "results are not shown": [
        (sys.modules[f"vlmpass.cli.{verb}"], "show", _silent)
        for verb in ("convert", "check", "inspect", "passes", "rules", "opset")
    ],
    "leftover output": _wrapped(CONSOLE, "write", _after(_loud)),
    "a missing file is opened": _wrapped(paths, "model_file", _opened),
    "what is no model is replaced": [(pipeline, "refuse_foreign", lambda path, force: None)],
    "written before it is judged": _wrapped(pipeline, "output_file", _early_write),
    "litter": _wrapped(saving, "drafted", _after_commit(_litter))
    + _wrapped(pipeline, "drafted", _after_commit(_litter)),
    "an empty result": _wrapped(pipeline, "drafted", _after_commit(_wrong_result)),
    "a source is changed": _wrapped(pipeline, "drafted", _after_commit(_touch_source)),
    "a raw error": _wrapped(running, "parse", _raises(KeyError("to"))),
    "an error of a package as ours": _wrapped(
        running, "parse", _raises(PipelineError("ValueError: bad"))
    ),
    "an error without a text": _wrapped(running, "parse", _raises(PipelineError(""))),
    "an object is shown": _wrapped(running, "parse", _raises(SaveError(f"bad {object()}"))),
    "what stands is not said": [(VERB, "standing", lambda stands: "nothing was written")],
    "a commit is not noted": [(saving, "note_commit", lambda path: None)],
    "a full disk gets out": [
        (CONSOLE, "deliver", lambda put: put(sys.stdout) and sys.stdout.flush()),
        (VERB, "_told", lambda error, stands: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full"))),
    ],
    "a report that fails": [(Report, "__rich__", _raises(AttributeError("no 'x'")))],
}


# Where a fault shows early.
SEEDS = {
    "controls are shown": 3,
    "what is no model is replaced": 7,
    "what stands is not said": 2,
    "a commit is not noted": 2,
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(folder, name, monkeypatch):
    for place, attribute, planted in FAULTS[name]:
        monkeypatch.setattr(place, attribute, planted)
    assert next(trials(folder, 300, SEEDS.get(name, SEED), slow=0), None) is not None


def test_enough_faults_are_planted():
    assert len(FAULTS) >= 20
