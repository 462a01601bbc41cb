"""The command line's frame: the verbs, their help, and what is common to all."""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from typing import Annotated, Protocol, cast

import typer

import vlmpass
from vlmpass.cli import (
    bisect,
    check,
    completing,
    convert,
    demo,
    diff,
    inspect,
    opset,
    passes,
    reduce,
    rules,
    submodels,
    targets,
    verify,
)
from vlmpass.cli.console import write
from vlmpass.cli.failure import Failure, set_json, tell
from vlmpass.cli.verb import DONE, REFUSED, guarded, set_debugging

__all__ = ["app", "run"]

app = typer.Typer(
    name="vlmpass",
    help="Convert large ONNX models: right or refused.",
    epilog="Exit codes: 0 done, 1 findings, 2 the request or the input cannot be honoured, or"
    " standard output does not take the result; interrupted, 128 and the signal's number. A model"
    " that stands all the same is named.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for _name, _function, _summary in (
    ("convert", convert.convert, "Change opset, element type or layout; shards below 2 GB."),
    ("inspect", inspect.inspect, "Show inputs, operators, weights, files, modules, cost."),
    ("check", check.check, "Check structure, types and shapes, whatever the size."),
    ("verify", verify.verify, "Compare what two models compute."),
    ("diff", diff.diff, "Compare what two models are made of."),
    ("bisect", bisect.bisect, "Find the change of a pipeline that makes a model wrong."),
    ("reduce", reduce.reduce, "Find the smallest part that a command fails on."),
    ("extract", submodels.extract, "Cut a part out: between values, or a module."),
    ("split", submodels.split, "Cut up into parts that run one after the other."),
    ("compose", submodels.compose, "Join the parts of a model again."),
    ("passes", passes.passes, "List the passes, or show one."),
    ("rules", rules.rules, "List the rules, show one, or explain why it does not apply."),
    ("targets", targets.targets, "List what a model can be converted for, or show one."),
    ("opset", opset.opset, "Show an operator's versions and how each step is converted."),
    ("demo", demo.demo, "Do the main job on a model it makes itself."),
):
    app.command(_name, short_help=_summary)(_function)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"vlmpass {vlmpass.__version__}\n")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error was raised.")] = False,
) -> None:
    set_debugging(debug)


# Typer brings its own click or takes the installed one; the error that both derive from is here.
class _ClickError(Protocol):
    def format_message(self) -> str: ...


_UsageError: type[Exception] = next(
    each
    for each in typer.BadParameter.__mro__
    if each.__name__ == "ClickException" and issubclass(each, Exception)
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    answered = completing.asked(app) if arguments is None else None
    if answered is not None:
        return answered
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    set_debugging(False)
    set_json("--json" in options)
    if given and not {"-h", "--help", "--version"} & set(options):
        return _called(given)
    shown = io.StringIO()
    with redirect_stdout(shown):
        code = _called(given or ["--help"])
    return guarded(lambda: _written(shown.getvalue(), code))


def _written(text: str, code: int) -> int:
    write(text)
    return code


def _called(given: list[str]) -> int:
    command = typer.main.get_command(app)
    if (swallowed := _swallowed(command, given)) is not None:
        option, value = swallowed
        problem = f"'{option}' requires an argument, and {value} is an option"
        remedy = f"write {option}={value} if it is meant"
        return tell(
            Failure("UsageError", problem, remedy),
            REFUSED,
            f"vlmpass: error: {problem}; {remedy}",
        )
    try:  # without click's `main`, which takes a signal for an exit code
        with command.make_context("vlmpass", given) as context:
            command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    except _UsageError as error:
        problem, remedy = _explained(error)
        failure = Failure("UsageError", problem, remedy)
        return tell(failure, REFUSED, f"vlmpass: error: {problem}; {remedy}")
    return DONE


def _swallowed(command: object, given: list[str]) -> tuple[str, str] | None:
    """Return an option of a verb, and another one where its value should be."""
    verbs = getattr(command, "commands", {})
    verb = next((verbs[word] for word in given if word in verbs), None)
    params = verb.params if verb is not None else ()
    takes = {
        name: not getattr(param, "is_flag", True)
        for param in params
        if param.param_type_name == "option"
        for name in (*param.opts, *param.secondary_opts)
    }
    words = given[: given.index("--")] if "--" in given else given
    return next(((a, b) for a, b in pairwise(words) if takes.get(a) and b in takes), None)


def _explained(error: Exception) -> tuple[str, str]:
    """Return what is wrong with the usage, and the nearest right word where there is one."""
    context = getattr(error, "ctx", None)
    where = getattr(context, "command_path", "vlmpass")
    option = getattr(error, "option_name", None)
    if option is not None and context is not None:
        known = [each for param in context.command.params for each in param.opts]
        close = difflib.get_close_matches(option, known, 1, 0.6)
        hint = f"did you mean {close[0]}?" if close else f"see {where} --help"
        return f"{where} has no option {option}", hint
    text = cast(_ClickError, error).format_message()
    problem, _, suggestion = text.rstrip(".").partition(". ")
    hint = suggestion.replace("Did you", "did you") or f"see {where} --help"
    return f"{problem[:1].lower()}{problem[1:]}", hint
