"""Pipeline text: what it means, that it round-trips, and where its errors point."""

from __future__ import annotations

import contextlib
import math
from textwrap import dedent

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pass_models import PASSES, Everything, Nothing

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.passes import parse, render
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.options import options_of, summary_of

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
everything = st.builds(
    Everything,
    count=st.integers(0, 10**12),
    scale=st.floats(allow_nan=False),
    label=words,
    keep_io=st.booleans(),
    mode=st.sampled_from(["fast", "exact"]),
    items=st.lists(words, max_size=3).map(tuple),
    sizes=st.lists(st.integers(), max_size=3).map(tuple),
    limit=st.none() | words,
    to=st.integers() | st.sampled_from(["lowest", "auto"]),
    class_=words,
    others=st.dictionaries(words, st.integers() | words, max_size=3),
)
pipelines = st.lists(everything | st.builds(Nothing), max_size=4).map(tuple)


@given(pipelines)
def test_text_round_trips(passes: tuple[Pass, ...]) -> None:
    text = render(passes)
    assert parse(text, PASSES) == passes
    assert render(parse(text, PASSES)) == text


@given(st.text(alphabet='ab{}[]=," \n\\e', max_size=20))
def test_any_text_is_parsed_or_refused_with_a_caret(text: str) -> None:
    with contextlib.suppress(PipelineError):
        parse(text, PASSES)
        return
    with pytest.raises(PipelineError, match=r"\n +\^+$"):
        parse(text, PASSES)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (" nothing , nothing\n", "nothing,nothing"),
        ("nothing{}", "nothing"),
        ("everything{count=1}", "everything{count=1}"),
        ("everything{count = 1, scale=1 mode=fast keep-io=true}", "everything{count=1}"),
        ("everything{count=1 items=[a b , c]}", "everything{count=1 items=[a,b,c]}"),
        ("everything{count=1 items=b}", "everything{count=1 items=[b]}"),
        ('everything{count=1 limit="none"}', 'everything{count=1 limit="none"}'),
        ("everything{count=1 limit=none}", "everything{count=1}"),
        ("everything{count=1 to=auto}", "everything{count=1 to=auto}"),
        ("everything{count=1 scale=1e-3}", "everything{count=1 scale=0.001}"),
        ("everything{count=1 class=a.b:C}", "everything{count=1 class=a.b:C}"),
        ("everything{count=1 batch=2 name=x}", "everything{count=1 batch=2 name=x}"),
        ('everything{count=1 "count"=3}', 'everything{count=1 "count"=3}'),
        ('everything{count=1 x="3"}', 'everything{count=1 x="3"}'),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert render(parse(text, PASSES)) == canonical


def test_values_arrive_as_python_values() -> None:
    (found,) = parse('everything{count=3 scale=-inf limit="2GB" to=lowest a=1 b=c}', PASSES)
    assert isinstance(found, Everything)
    assert (found.count, found.scale, found.limit, found.to) == (3, -math.inf, "2GB", "lowest")
    assert found.others == (("a", 1), ("b", "c"))


ERRORS = [
    (
        "nothing,evrything{count=1}",
        """\
        no pass named 'evrything'; did you mean 'everything'?
          nothing,evrything{count=1}
                  ^^^^^^^^^""",
    ),
    (
        "no_thing",
        """\
        no pass named 'no_thing'; did you mean 'nothing'?
          no_thing
          ^^^^^^^^""",
    ),
    (
        "xyzzy",
        """\
        no pass named 'xyzzy'; `vlmpass passes` lists them all
          xyzzy
          ^^^^^""",
    ),
    (
        "scribble{fial=true}",
        """\
        scribble has no option 'fial'; did you mean 'fail'?
          scribble{fial=true}
                   ^^^^""",
    ),
    (
        "scribble{zzz=1}",
        """\
        scribble has no option 'zzz'; it takes fail
          scribble{zzz=1}
                   ^^^""",
    ),
    (
        "nothing{zzz=1}",
        """\
        nothing has no option 'zzz'; it takes no options
          nothing{zzz=1}
                  ^^^""",
    ),
    (
        "everything{count=many}",
        """\
        option 'count' of everything takes an integer; write count=18
          everything{count=many}
                           ^^^^""",
    ),
    (
        "everything{count=[1]}",
        """\
        option 'count' of everything takes an integer; write count=18
          everything{count=[1]}
                           ^^^""",
    ),
    (
        'everything{count="1"}',
        """\
        option 'count' of everything takes an integer; write count=18
          everything{count="1"}
                           ^^^""",
    ),
    (
        "everything{count=1 mode=exakt}",
        """\
        option 'mode' of everything takes one of fast, exact; did you mean 'exact'?
          everything{count=1 mode=exakt}
                                  ^^^^^""",
    ),
    (
        "everything{count=1 sizes=[1 b 3]}",
        """\
        option 'sizes' of everything takes a list, each item an integer; write sizes=[18]
          everything{count=1 sizes=[1 b 3]}
                                      ^""",
    ),
    (
        "everything{count=1 to=lowst}",
        """\
        option 'to' of everything takes an integer or one of lowest, auto; did you mean 'lowest'?
          everything{count=1 to=lowst}
                                ^^^^^""",
    ),
    (
        "everything{count=1 scale=nan}",
        """\
        option 'scale' of everything takes a number; write scale=1e-3
          everything{count=1 scale=nan}
                                   ^^^""",
    ),
    (
        "everything{scale=2}",
        """\
        everything needs option 'count'; write everything{count=18}
          everything{scale=2}
          ^^^^^^^^^^""",
    ),
    (
        "everything{count=1 count=2}",
        """\
        option 'count' is given twice
          everything{count=1 count=2}
                             ^^^^^""",
    ),
    (
        "everything{a=1 a=2 count=1}",
        """\
        option 'a' is given twice
          everything{a=1 a=2 count=1}
                         ^""",
    ),
    (
        "everything{count=-1}",
        """\
        option 'count': -1 is below zero; write 0 or more
          everything{count=-1}
                           ^^""",
    ),
    (
        "nothing nothing",
        """\
        ',' or the end is expected here, but found 'nothing'
          nothing nothing
                  ^^^^^^^""",
    ),
    (
        "nothing,",
        """\
        the name of a pass is expected here, but the text ends
          nothing,
                  ^""",
    ),
    (
        ",nothing",
        """\
        the name of a pass is expected here, but found ','
          ,nothing
          ^""",
    ),
    (
        "scribble{fail",
        """\
        '=' and a value for option 'fail' is expected here, but the text ends
          scribble{fail
                       ^""",
    ),
    (
        "scribble{fail=true",
        """\
        an option or '}' is expected here, but the text ends
          scribble{fail=true
                            ^""",
    ),
    (
        'everything{label="abc}',
        """\
        this string does not end or is no JSON string (Unterminated string starting at)
          everything{label="abc}
                           ^^^^^""",
    ),
    (
        "nothing,\n\n  scribble{fail=yes},\nnothing",
        """\
        option 'fail' of scribble takes true or false; write fail=true
            scribble{fail=yes},
                          ^^^""",
    ),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_error_points(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse(text, PASSES)
    assert str(caught.value) == dedent(message)


def test_a_long_line_is_cut_around_the_caret() -> None:
    text = ",".join(["nothing"] * 40 + ["nothin"] + ["nothing"] * 40)
    with pytest.raises(PipelineError) as caught:
        parse(text, PASSES)
    _, line, carets = str(caught.value).splitlines()
    assert len(line) < 110
    assert line[carets.index("^") : carets.rindex("^") + 1] == "nothin"


def test_python_values_are_checked_and_normalised() -> None:
    found = Everything(1, scale=2, items=["x"], others={"a": 1})  # type: ignore[arg-type]
    assert (found.scale, found.items, found.others) == (2.0, ("x",), (("a", 1),))
    assert str(found) == "everything{count=1 scale=2.0 items=[x] a=1}"
    with pytest.raises(OptionError, match=r"option 'keep-io': .* takes true or false .* not 'no'"):
        Everything(1, keep_io="no")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'count'"):
        Everything(True)


def test_options_say_what_they_are() -> None:
    options = {option.name: option for option in options_of(Everything)}
    assert options["count"].required
    assert options["count"].doc == "How many."
    assert options["keep-io"].default is True
    assert options["mode"].kind.choices == ("fast", "exact")
    assert options["others"].free
    assert "class" in options
    assert summary_of(Everything) == "Hold one option of every type."


def test_a_pass_runs_in_an_onnx_ir_pipeline() -> None:
    onnx_ir_pass = ir.passes.Sequential(Nothing(), *parse("remove-unused"))
    model = ir.from_onnx_text(
        "<ir_version: 8, opset_import: ['' : 17]>".replace("'", '"')
        + ("g (float[2] x) => (float[2] y) { y = Relu(x)  z = Neg(x) }")
    )
    assert onnx_ir_pass(model).modified
    assert [node.op_type for node in model.graph] == ["Relu"]
