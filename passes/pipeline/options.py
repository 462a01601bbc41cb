"""Options of a pass: the fields of its dataclass, as they are written in a pipeline.

A field's annotation is the option's type and the string under it its documentation, so that no pass
parses, checks or describes its options itself.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from vlmpass.passes.pipeline.kinds import BadValueError, Kind, kind_of, write_word

__all__ = ["Option", "options_of", "summary_of"]


@dataclass(frozen=True)
class Option:
    """One option of a pass.

    Attributes:
        name: As written in a pipeline, such as ``keep-io``.
        field: The dataclass field, such as ``keep_io``.
        kind: Its type.
        required: Whether it has no default.
        default: The default, None for a required one.
        free: Whether it collects options of any name (a field of ``tuple[tuple[str, T], ...]``).
        owner: The pass class.
    """

    name: str
    field: str
    kind: Kind
    required: bool
    default: object
    free: bool
    owner: type

    @property
    def doc(self) -> str:
        """The docstring under the field."""
        return _docs_of(self.owner).get(self.field, "")

    def accept(self, value: object) -> object:
        """Return a Python value in the form the field holds it.

        Raises:
            BadValueError: It is none of the option's kind.
        """
        if not self.free:
            return self.kind.accept(value)
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, (list, tuple)):
            raise BadValueError
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise BadValueError
        named = dict(pairs)
        if len(named) < len(pairs) or not all(isinstance(name, str) for name in named):
            raise BadValueError
        return tuple((name, self.kind.accept(item)) for name, item in named.items())

    def write(self, value: object, declared: Sequence[str]) -> Iterator[str]:
        """Yield ``name=value`` texts; free names that a declared option has are quoted."""
        if not self.free:
            yield f"{self.name}={self.kind.write(value)}"
            return
        assert isinstance(value, tuple)
        for name, item in value:
            yield f"{write_word(name, quote=name in declared)}={self.kind.write(item)}"


def _free_item(annotation: object) -> object | None:
    """Return T of ``tuple[tuple[str, T], ...]``, None for any other annotation."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is not tuple or len(args) != 2 or args[1] is not Ellipsis:
        return None
    inner = typing.get_args(args[0])
    if typing.get_origin(args[0]) is tuple and len(inner) == 2 and inner[0] is str:
        return typing.cast(object, inner[1])
    return None


def _field_docs(cls: type) -> dict[str, str]:
    """Return the string under each annotated name of a class body, by name."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, SyntaxError):
        return {}  # no source file: the options have no docs, and nothing else is lost
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    docs: dict[str, str] = {}
    for field, doc in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
            and isinstance(doc.value.value, str)
        ):
            docs[field.target.id] = inspect.cleandoc(doc.value.value)
    return docs


@cache
def _docs_of(cls: type) -> dict[str, str]:
    """Return the docstrings under the fields of a pass class; its source is read for that."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs.update(_field_docs(base))
    return docs


@cache
def options_of(cls: type) -> tuple[Option, ...]:
    """Return the options of a pass class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    options = []
    for field in dataclasses.fields(cls):
        item = _free_item(hints[field.name])
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = default is dataclasses.MISSING and item is None
        if default is dataclasses.MISSING:
            default = None if required else ()
        options.append(
            Option(
                name=field.name.rstrip("_").replace("_", "-"),
                field=field.name,
                kind=kind_of(hints[field.name] if item is None else item),
                required=required,
                default=default,
                free=item is not None,
                owner=cls,
            )
        )
    return tuple(options)


def summary_of(cls: type) -> str:
    """Return the first line of a pass's docstring."""
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
