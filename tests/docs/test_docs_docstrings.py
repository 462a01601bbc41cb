"""Docstrings say what the code has: parameters, errors and fields, none missing, none made up."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, TypeGuard

import onnx_ir as ir
import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("ir_tools", "rewriter_rules", "passes", "vlmpass")
MANY = 3
"""Parameters from which on a list of them is due."""

IN_FORMULAS = {"rule", "unlisted", "adapter", "expansion"}
"""Decorators of functions whose parameters are captures or fixed; the formula speaks of them."""

PROPERTIES = {"property", "cached_property"}

OF_PYTHON = {"ValueError", "TypeError", "KeyError"}
"""Errors of Python that a function which raises them itself must own to, as to ours."""

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"


def section(node: ast.AST, title: str) -> list[str] | None:
    """Return the names that a section of a docstring lists; None if it has no such section."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    lines = (ast.get_docstring(node) or "").split("\n")
    if f"{title}:" not in lines:
        return None
    names = []
    for line in lines[lines.index(f"{title}:") + 1 :]:
        if line and not line.startswith(" "):
            break
        entry = re.match(r"    ([\w*.]+(?:, [\w*.]+)*):", line)
        names += [name.lstrip("*") for name in entry[1].split(", ")] if entry else []
    return names


def parameters(function: Function) -> list[ast.arg]:
    """The parameters that a caller passes."""
    given = function.args
    own = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    own += [each for each in (given.vararg, given.kwarg) if each]
    return own[own[:1] != [] and own[0].arg in ("self", "cls") :]


def decorators(node: Function | ast.ClassDef) -> set[str]:
    """The last names of what decorates a definition."""
    bare = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    return {ast.unparse(each).rpartition(".")[2] for each in bare}


def raised(function: Function) -> set[str]:
    """The classes of errors that the statements of a function itself raise."""
    found, within = set(), list(ast.iter_child_nodes(function))
    while within:
        node = within.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        within += ast.iter_child_nodes(node)
        if isinstance(node, ast.Raise) and node.exc is not None:
            error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found.add(ast.unparse(error).rpartition(".")[2])
    return found


@dataclass(frozen=True, eq=False)
class Source:
    """The definitions of some files, exported or not."""

    trees: dict[str, ast.Module]

    @cached_property
    def classes(self) -> dict[str, list[ast.ClassDef]]:
        """Every class, by name."""
        found = defaultdict(list)
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(node)
        return found

    def exported(self) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
        """Every exported function and public method: its place, itself, its class."""
        for path, tree in self.trees.items():
            names = exported_names(tree)
            for node in tree.body:
                if getattr(node, "name", None) not in names:
                    continue
                if isinstance(node, ast.FunctionDef):
                    yield f"{path}: {node.name}", node, None
                if isinstance(node, ast.ClassDef):
                    for each in node.body:
                        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                            yield f"{path}: {node.name}.{each.name}", each, node

    def everything(self) -> Iterator[tuple[str, Function | ast.ClassDef]]:
        """Every function and class, with its place."""
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    yield f"{path}: {node.name}", node

    def ancestors(self, of: ast.ClassDef) -> Iterator[ast.ClassDef]:
        """The classes that a class derives from, as far as they are ours."""
        for base in of.bases:
            for each in self.classes.get(ast.unparse(base).partition("[")[0], ()):
                yield each
                yield from self.ancestors(each)

    def overridden(self, method: Function, of: ast.ClassDef | None) -> Iterator[Function]:
        """The methods that a method overrides."""
        for each in self.ancestors(of) if of else ():
            for node in each.body:
                if isinstance(node, ast.FunctionDef) and node.name == method.name:
                    yield node

    @cached_property
    def errors(self) -> set[str]:
        """The errors that a function which raises them itself must own to."""
        return OF_PYTHON | {
            name
            for name, found in self.classes.items()
            for each in found
            if not name.startswith("_")
            and any(_is_error(b) for cls in (each, *self.ancestors(each)) for b in cls.bases)
        }

    def fields(self, of: ast.ClassDef) -> set[str]:
        """The fields and properties that a class has, its bases' included."""
        family = (of, *self.ancestors(of))
        bases = [ast.unparse(base) for cls in family for base in cls.bases]
        foreign = [getattr(ir, base.removeprefix("ir."), object) for base in bases]
        found = {name for each in foreign for name in dir(each)}
        found |= {name for each in foreign for name in vars(each).get("__annotations__", ())}
        for node in (each for cls in family for each in ast.walk(cls)):
            if isinstance(node, ast.FunctionDef) and decorators(node) & PROPERTIES:
                found.add(node.name)
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {ast.unparse(each).removeprefix("self.") for each in targets}
        return found


def _is_error(base: ast.expr) -> bool:
    found = getattr(builtins, ast.unparse(base), None)
    return isinstance(found, type) and issubclass(found, BaseException)


def exported_names(tree: ast.Module) -> set[str]:
    """What a module's ``__all__`` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if ast.unparse(target) == "__all__":
                return {ast.literal_eval(each) for each in node.value.elts}
    return set()


def without_args(source: Source) -> list[str]:
    """Exported functions of many parameters that do not list them."""
    return [
        place
        for place, function, of in source.exported()
        if len(parameters(function)) >= MANY
        and section(function, "Args") is None
        and not decorators(function) & {*IN_FORMULAS, "overload"}
        and not any(ast.get_docstring(each) for each in source.overridden(function, of))
        and not _carries_help(function)
    ]


def _carries_help(function: Function) -> bool:
    """Say whether this is a verb, whose parameters bring their own help."""
    own = parameters(function)[: -1 if "takes_options" in decorators(function) else None]
    annotations = [ast.unparse(each.annotation) for each in own if each.annotation]
    helped = all("help=" in text or re.fullmatch(r"_?[A-Z]\w*", text) for text in annotations)
    return "verb" in decorators(function) and helped


def false_args(source: Source) -> list[str]:
    """What an Args section lists that is no parameter, and what it leaves out."""
    found = []
    for place, node in source.everything():
        listed = section(node, "Args")
        if listed is None:
            continue
        inits: list[ast.stmt] = []
        if isinstance(node, ast.ClassDef):
            inits = [each for each in node.body if getattr(each, "name", "") == "__init__"]
            real = [each.arg for init in inits for each in parameters(init)]
            real = real or [
                ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)
            ]
        else:
            real = [each.arg for each in parameters(node)]
        # What a dataclass is made of takes the fields of its bases, too.
        taken = source.fields(node) if isinstance(node, ast.ClassDef) and not inits else set(real)
        found += [f"{place}: lists {name}" for name in listed if name not in taken]
        found += [f"{place}: leaves out {name}" for name in real if name not in listed]
    return found


def without_raises(source: Source) -> list[str]:
    """Exported functions that raise what they do not say; a verb ends with its exit code."""
    found = []
    for place, function, of in source.exported():
        texts = (function, *source.overridden(function, of))
        told = [name for each in texts for name in section(each, "Raises") or ()]
        if not decorators(function) & {"verb", *IN_FORMULAS}:
            untold = raised(function) & source.errors - set(told)
            found += [f"{place}: {name}" for name in sorted(untold)]
    return found


def false_raises(source: Source) -> list[str]:
    """What a Raises section lists that is no error."""
    return [
        f"{place}: {name}"
        for place, node in source.everything()
        for name in section(node, "Raises") or ()
        if name not in source.errors and not _is_error(ast.Name(name))
    ]


def false_attributes(source: Source) -> list[str]:
    """What an Attributes section lists that the class has not, and public fields it leaves out."""
    found = []
    for place, node in source.everything():
        listed = section(node, "Attributes")
        if listed is None or not isinstance(node, ast.ClassDef):
            continue
        has, own = source.fields(node), []
        if not node.name.startswith("_"):
            own = [ast.unparse(each.target) for each in node.body if _is_field(each)]
        found += [f"{place}: lists {name}" for name in listed if name not in has]
        found += [f"{place}: leaves out {name}" for name in own if name not in listed]
    return found


def _is_field(node: ast.stmt) -> TypeGuard[ast.AnnAssign]:
    """Say whether this is a public field of an instance."""
    if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
        return False
    return not ast.unparse(node.target).startswith("_")


CHECKS = [without_args, false_args, without_raises, false_raises, false_attributes]


@pytest.fixture(scope="module")
def source() -> Source:
    paths = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
    return Source(
        {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in paths}
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_docstrings_say_what_the_code_has(check, source):
    assert check(source) == []


GOOD = '''
__all__ = ["Both", "Late", "OurError", "convert", "join"]

class OurError(Exception):
    """Ours."""

class Both:
    """Two things.

    Attributes:
        one: The first.
        two: The second.
    """

    one: int
    two: int

    def see(self, a, b, c):
        """See three.

        Args:
            a, b: Two.
            c: Another.

        Raises:
            OurError: There is none.
        """
        raise OurError("none")

class Late(Both):
    """Two things, later."""

    def see(self, a, b, c):
        """See three at once."""
        raise OurError("none")

@app.verb
def convert(a: Annotated[int, Opt(help="One.")], b: Annotated[int, Opt(help="Two.")], c: Many):
    """Convert."""
    raise OurError("none")

def join(a, *b, c=1):
    """Join.

    Args:
        a: The first.
        *b: More.
        c: Goes between,
            and so: it is long.

    Returns:
        text: All of it.

    Raises:
        ValueError: There are none.
    """
    def inner(a, b, c):
        raise KeyError
    raise ValueError("none")
'''

PLANTED = [
    ("without_args", "    Args:\n        a: The", "    Given:\n        a: The"),
    ("without_args", "        Args:\n            a, b", "        Given:\n            a, b"),
    ("without_args", "class Late(Both)", "class Late"),
    ("without_args", 'Opt(help="Two.")', "Opt()"),
    ("without_args", "@app.verb", "@app.other"),
    ("false_args", "        c: Goes", "        d: Goes"),
    ("false_args", "        a: The first.\n        *b", "        *b"),
    ("false_args", "a, *b, c=1", "a, *b, c=1, **d"),
    ("false_args", "a, b: Two", "a, e: Two"),
    ("without_raises", "        ValueError: There", "        TypeError: There"),
    ("without_raises", "            OurError: There", "            KeyError: There"),
    ("without_raises", "    raise ValueError", "    raise OurError"),
    ("without_raises", "class Late(Both)", "class Late"),
    ("false_raises", "        ValueError: There", "        ValueErrors: There"),
    ("false_attributes", "        two: The second", "        three: The third"),
    ("false_attributes", "        two: The second.\n", ""),
    ("false_attributes", "    two: int\n", ""),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_good_docstrings_pass(check):
    assert check(Source({"good.py": ast.parse(GOOD)})) == []


@pytest.mark.parametrize(("name", "old", "new"), PLANTED)
def test_planted_fault_is_found(name, old, new):
    assert GOOD.count(old) == 1
    found = globals()[name](Source({"bad.py": ast.parse(GOOD.replace(old, new))}))
    assert found
