"""Command lines drawn at random from the verbs and options that there are, valid and hostile.

Whatever is asked, an exit code is 0, 1 or 2, a refusal is one clear line, nothing is written on the
way to it, and what is said of the outputs is true. `python tests/door/door_commands.py 20000` tries
more than CI does.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import onnx
import typer
from door_furnish import furnish
from door_words import BAD, BAD_OUTS, ENCODINGS, FAULTY, FOLDERS, GOOD, HOSTILE, MODELS, NAMES, OUTS

import vlmpass
from vlmpass.cli import app

FINDING = {"check", "verify", "diff", "bisect"}
_SLOW = ("verify", "demo", "bisect", "reduce")


@dataclass(frozen=True)
class Command:
    """A command line and the stream that it is given.

    Attributes:
        words: Without the program's name.
        encoding: Of standard output.
        broken: Whether standard output takes nothing.
    """

    words: tuple[str, ...]
    encoding: str = "utf-8"
    broken: bool = False

    def __str__(self) -> str:
        words = " ".join(
            word if "\0" not in word else repr(word) for word in map(shlex.quote, self.words)
        )
        tail = " >/dev/full" if self.broken else ""
        return f"PYTHONIOENCODING={self.encoding} vlmpass {words}{tail}"


@dataclass
class Commands:
    """Draws command lines.

    Attributes:
        draw: Where chance comes from.
        slow: Share of those verbs that start a runtime.
    """

    draw: random.Random
    slow: float = 0.01
    verbs: dict[str, list[typer.core.TyperOption]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        group = typer.main.get_command(app.app)
        self.verbs = {
            name: [each for each in command.params if each.param_type_name == "option"]
            for name, command in group.commands.items()  # type: ignore[attr-defined]
        }

    def one(self) -> Command:
        """Return a command line; what it asks for is right about as often as not."""
        draw = self.draw
        fast = [name for name in self.verbs if name not in _SLOW]
        verb = draw.choice(_SLOW if draw.random() < self.slow else fast)
        if draw.random() < 0.5:
            verb = "convert"
        right = draw.random() < 0.4
        words = [verb, *self._operands(verb, right)]
        options = self.verbs[verb]
        for option in draw.sample(options, min(len(options), draw.choice((0, 1, 1, 2, 3)))):
            place = draw.randrange(1, len(words) + 1) if draw.random() < 0.2 else len(words)
            words[place:place] = self._option(option, right)
        if verb == "convert" and "--verify" not in words:
            words.append("--no-verify")
        if not right and draw.random() < 0.1:
            self._spoil(words)
        return Command(tuple(words), draw.choice(ENCODINGS), draw.random() < 0.05)

    def _operands(self, verb: str, right: bool) -> list[str]:
        draw = self.draw
        model = draw.choice(MODELS if right or draw.random() < 0.5 else FAULTY)
        if verb in NAMES:
            words = [draw.choice(NAMES[verb])] if draw.random() < 0.8 else []
            if words == ["explain"]:
                words += [draw.choice(NAMES["rules"]), model][: draw.choice((0, 1, 2, 2, 2))]
            return words
        if verb == "demo":
            return ["one.onnx/x"]
        if verb in ("verify", "diff"):
            return [model, draw.choice(MODELS)]
        if verb == "split":
            return [model, draw.choice(FOLDERS)]
        if verb in ("extract", "compose", "reduce"):
            given = draw.choice(FOLDERS) if verb == "compose" else model
            return [given, draw.choice(OUTS if right or draw.random() < 0.7 else BAD_OUTS)]
        if verb == "convert" and draw.random() < 0.8:
            return [model, draw.choice(OUTS if right or draw.random() < 0.7 else BAD_OUTS)]
        return [model]

    def _option(self, option: typer.core.TyperOption, right: bool) -> list[str]:
        draw, name = self.draw, str(option.name)
        word = draw.choice([*option.opts, *option.secondary_opts])
        if option.is_flag:
            return [] if word == "--verify" and draw.random() > self.slow else [word]
        good = right or draw.random() < 0.5
        values = GOOD.get(name, ("1",)) if good else (*BAD.get(name, ()), *HOSTILE)
        value = draw.choice(values)
        return [f"{word}={value}"] if draw.random() < 0.2 else [word, value]

    def _spoil(self, words: list[str]) -> None:
        """Leave out, double, misspell or add a word."""
        draw = self.draw
        place = draw.randrange(len(words))
        way = draw.randrange(4)
        if way == 0:
            del words[place]
        elif way == 1:
            words.insert(place, words[place])
        elif way == 2:
            words[place] = words[place][:-1]
        else:
            words.insert(
                place, draw.choice(("--", "-h", "--help", "--nope", "-", "x", "--version"))
            )


class Full(io.RawIOBase):
    """A device without room."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


@dataclass
class Trial:
    """Runs command lines in a folder and holds what they do to what they say.

    Attributes:
        folder: Furnished; put back as it was after each.
    """

    folder: Path
    kept: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = self._state()

    def _state(self) -> dict[str, bytes]:
        files = (each for each in self.folder.rglob("*") if each.is_file())
        return {each.relative_to(self.folder).as_posix(): each.read_bytes() for each in files}

    def findings(self, command: Command) -> list[str]:
        """Run a command line; return what is wrong with what it did."""
        raw = io.BufferedWriter(Full()) if command.broken else io.BytesIO()
        out = io.TextIOWrapper(raw, encoding=command.encoding)
        err = io.TextIOWrapper(io.BytesIO(), encoding=command.encoding)
        stdin = io.TextIOWrapper(io.BytesIO((self.folder / "one.onnx").read_bytes()))
        try:
            with (
                contextlib.chdir(self.folder),
                patch("sys.stdin", stdin),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                code = app.run(command.words)
        except BaseException as error:  # noqa: BLE001 - whatever gets out is a finding
            self._restore(self._state())
            return [f"{type(error).__name__} got out: {error}"]
        told = _Told(command, code, _text(out), _text(err), self.kept, self._state())
        found = list(told.findings())
        self._restore(told.after)
        return found

    def _restore(self, now: dict[str, bytes]) -> None:
        for name in now.keys() - self.kept.keys():
            (self.folder / name).unlink()
        for name, data in self.kept.items():
            if now.get(name) != data:
                (self.folder / name).write_bytes(data)


def _text(stream: io.TextIOWrapper) -> str:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    raw = stream.buffer
    if not isinstance(raw, io.BytesIO):
        return ""
    return raw.getvalue().decode(stream.encoding, "surrogateescape")  # a model may be among it


@dataclass(frozen=True)
class _Told:
    command: Command
    code: int
    out: str
    err: str
    before: dict[str, bytes]
    after: dict[str, bytes]

    def findings(self) -> Iterator[str]:
        if self.code not in (0, 1, 2):
            yield f"exit code {self.code}"
        if self.code == 1 and not {*self.command.words[:1]} & FINDING:
            yield "exit code 1 of a verb that has no findings"
        for text in (self.out, self.err):
            for word in ("Traceback", "vlmpass: defect", " object at 0x", "vlmpass-run-", "\x1b"):
                if word in text:
                    yield f"{word!r} is shown"
        yield from self._refused() if self.code == 2 else self._done()
        yield from self._stands()

    @property
    def _json(self) -> bool:
        words = self.command.words
        return "--json" in (words[: words.index("--")] if "--" in words else words)

    def _refused(self) -> Iterator[str]:
        first, *rest = self.err.rstrip("\n").split("\n")
        if not first.startswith("vlmpass: error: "):
            yield f"a refusal without its line: {first[:80]!r}"
        if not all(line.startswith("  ") for line in rest):
            yield f"a refusal of several lines: {self.err[:200]!r}"
        if len(self.err) > 3000 or len(first) > 1000:
            yield f"a refusal of {len(self.err)} characters"
        if first.rstrip().endswith((":", "None", ";", "error")) or "Error: " in first:
            yield f"no clear line: {first!r}"
        if self._json and not self.command.broken:
            yield from self._json_error()
        elif self.out:
            yield "a refusal on standard output"

    def _json_error(self) -> Iterator[str]:
        try:
            data = json.loads(self.out)
            if not (data["error"]["problem"] and data["exit_code"] == 2):
                yield "a JSON error without a problem"
        except (ValueError, KeyError, TypeError):
            yield f"no JSON error: {self.out[:80]!r}"

    def _done(self) -> Iterator[str]:
        notes = all(line.startswith("vlmpass: note: ") for line in self.err.splitlines())
        if not notes and "-" not in self.command.words:
            yield f"standard error of a success: {self.err[:80]!r}"
        if not self.out:
            yield "a success that says nothing"
        helped = {"-h", "--help", "--version"} & set(self.command.words)
        if self._json and not helped:
            try:
                json.loads(self.out)
            except ValueError:
                yield f"no JSON: {self.out[:80]!r}"

    def _stands(self) -> Iterator[str]:
        """What is said of the outputs is so."""
        changed = {name for name in self.after if self.after[name] != self.before.get(name)}
        gone = self.before.keys() - self.after.keys()
        outs = set(self.command.words)
        litter = {name for name in changed if "/." in f"/{name}"}
        if litter:
            yield f"left behind: {sorted(litter)}"
        if self.code != 0 and changed and "stands" not in self.err:
            yield f"written by a refusal: {sorted(changed)[:3]}"
        if "stands" in self.err and not changed and not outs & self.after.keys():
            yield "nothing stands"
        if self.code != 0 and gone:
            yield f"removed by a refusal: {sorted(gone)}"
        if {"mlp.onnx", "mlp.onnx.data", "in.npz"} & (changed | gone):
            yield "a source is changed"
        if "notes.onnx" in changed and "--force" not in outs:
            yield "what is no model is replaced"
        for name in changed:
            if name.endswith(".onnx"):
                yield from self._loads(name)

    def _loads(self, name: str) -> Iterator[str]:
        try:
            proto = onnx.load_model_from_string(self.after[name])
            nodes = proto.graph.node or name.endswith("weights.onnx")  # a store of split
            if not nodes or not proto.opset_import:
                yield f"{name} is empty"
        except Exception as error:  # noqa: BLE001 - protobuf's error has no public class
            yield f"{name} is no model: {error}"


def trials(
    folder: Path, number: int, seed: int, slow: float = 0.01
) -> Iterator[tuple[Command, str]]:
    """Yield what is wrong, with the command line that shows it."""
    commands, trial = Commands(random.Random(seed), slow), Trial(folder)
    for _ in range(number):
        command = commands.one()
        for finding in trial.findings(command):
            yield command, finding


def main(number: int, seed: int) -> int:
    """Try many; print what is found."""
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        for command, finding in trials(Path(folder), number, seed):
            found += 1
            print(f"{finding}\n    {command}", flush=True)
    print(f"{number} command lines from seed {seed}, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    assert vlmpass.__version__
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
