"""Pipeline text to passes and back: `parse(render(passes)) == passes`, and errors point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.kinds import BadValueError, Text
from vlmpass.passes.pipeline.named import nearest, read_named
from vlmpass.passes.pipeline.options import Option, options_of
from vlmpass.passes.pipeline.registry import PASSES
from vlmpass.passes.pipeline.syntax import OptionText, PassText, Span, point

__all__ = ["parse", "render"]


def render(passes: Iterable[Pass]) -> str:
    """Return the pipeline text of passes: names, and the options that differ from the defaults."""
    return ",".join(str(each) for each in passes)


def parse(text: str, registry: Mapping[str, type[Pass]] = PASSES) -> tuple[Pass, ...]:
    """Return the passes that a pipeline text names.

    Args:
        text: Such as ``infer,unify-dtype{to=float32 from=[bfloat16]},convert-opset{to=18}``.
        registry: Pass classes by name.

    Raises:
        ArgumentError: It is no text.
        PipelineError: Wrong grammar, unknown pass or option, wrong or missing value; the message
            shows the place and, where there is one, the nearest right word.
    """
    return tuple(_build(text, written, registry) for written in read_named(text, registry))


def _build(text: str, written: PassText, registry: Mapping[str, type[Pass]]) -> Pass:
    try:
        cls = registry[written.name]
    except PipelineError as error:
        raise point(text, written.span, str(error)) from error.__cause__
    options = options_of(cls)
    values: dict[str, object] = {}
    spans: dict[str, Span] = {}
    for each in written.options:
        option = _find(text, each, written.name, options)
        value = _value(text, each, written.name, option)
        if option.free:
            free = values.setdefault(option.field, ())
            assert isinstance(free, tuple)
            taken = each.name.text in (name for name, _ in free)
            values[option.field] = (*free, (each.name.text, value))
        else:
            taken = option.field in values
            values[option.field] = value
        if taken:
            raise point(text, _word(each.name), f"option '{each.name.text}' is given twice")
        spans[option.name] = each.span
    missing = [each for each in options if each.required and each.field not in values]
    if missing:
        raise point(text, written.span, _needs(written.name, missing))
    try:
        return cls(**values)
    except OptionError as error:
        raise point(text, spans.get(error.option, written.span), str(error)) from None


def _find(text: str, each: OptionText, pass_name: str, options: Sequence[Option]) -> Option:
    free = next((option for option in options if option.free), None)
    declared = {option.name: option for option in options if not option.free}
    if free is not None and (each.name.quoted or each.name.text not in declared):
        return free
    if each.name.text in declared:
        return declared[each.name.text]
    takes = f"it takes {', '.join(declared)}" if declared else "it takes no options"
    hint = nearest(each.name.text, declared) or takes
    raise point(text, _word(each.name), f"{pass_name} has no option '{each.name.text}'; {hint}")


def _value(text: str, each: OptionText, pass_name: str, option: Option) -> object:
    try:
        return option.kind.read(each.value)
    except BadValueError:
        words = [each.value] if isinstance(each.value, Text) else each.value
        bad = next((word for word in words if not _reads(option, word)), None)
        span = each.span if bad is None else _word(bad)
        hint = nearest(bad.text, option.kind.choices) if bad is not None else None
        raise point(
            text,
            span,
            f"option '{each.name.text}' of {pass_name} takes {option.kind.says}; "
            + (hint or f"write {each.name.text}={option.kind.example}"),
        ) from None


def _reads(option: Option, word: Text) -> bool:
    try:
        option.kind.read(word)
    except BadValueError:
        return False
    return True


def _needs(pass_name: str, missing: Sequence[Option]) -> str:
    names = " and ".join(f"'{option.name}'" for option in missing)
    example = " ".join(f"{option.name}={option.kind.example}" for option in missing)
    plural = "options" if len(missing) > 1 else "option"
    return f"{pass_name} needs {plural} {names}; write {pass_name}{{{example}}}"


def _word(word: Text) -> Span:
    return Span(word.start, word.stop)
