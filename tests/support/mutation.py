"""Small meaningful changes of one Python source text, each an exact edit: formatting is kept.

What cannot change behaviour, or only words for people, is left alone: annotations, docstrings,
messages, logging, names for the type checker, options of dataclasses, lines with a `# noqa`.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mutation_edits import OPERATORS, SKIPPED_KEYWORDS, Edit, Source

_SKIPPED_NAMES: Final = {"__all__", "__slots__", "__match_args__"}
_SKIPPED_CALLS: Final = {
    *("dataclass", "lru_cache", "cache", "overload", "TypeVar", "NewType", "ParamSpec"),
    *("warn", "debug", "info", "warning", "getLogger", "namedtuple"),
}
_TYPED: Final = ("annotation", "returns")
_MESSAGES: Final = {"UserError", "echo"}
"""Calls whose text is for people; their numbers are behaviour."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit of a file, and the lines that a test must execute to be able to notice it."""

    file: str
    line: int
    statement: tuple[int, int]
    """First and last line of the statement, of a compound one of its header."""
    at_import: bool
    """Outside of every function: executed once a process, whoever imports first."""
    edit: Edit
    before: str
    around: tuple[str, str]
    """The rest of the first and of the last line that the edit touches."""

    def apply(self, text: str) -> str:
        """The mutated text."""
        return text[: self.edit.start] + self.edit.after + text[self.edit.end :]

    @property
    def after(self) -> str:
        """What stands where `before` stood."""
        return self.edit.after

    def __str__(self) -> str:
        """`file:line: kind: text {before -> after} text`, each part shortened to one line."""
        left, right = self.around
        change = f"{{{_short(self.before)} -> {_short(self.after)}}}"
        line = f"{_short(left.lstrip()[::-1], 40)[::-1]}{change}{_short(right, 30)}"
        return f"{self.file}:{self.line}: {self.edit.kind}: {line}"


def _short(text: str, width: int = 60) -> str:
    line = re.sub(r"\s+", " ", text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def mutants_of(file: str, text: str) -> list[Mutant]:
    """Every mutant of a file, in the order of the text."""
    source = Source(text)
    found = [
        _mutant(file, source, site, edit)
        for site in _sites(ast.parse(text))
        for edit in OPERATORS[type(site.node)](source, site.node)
    ]
    kept = [mutant for mutant in found if "# noqa" not in source.lines[mutant.line - 1]]
    return sorted(kept, key=lambda mutant: mutant.edit[1:3])


def _mutant(file: str, source: Source, site: _Site, edit: Edit) -> Mutant:
    before = source.text[edit.start : edit.end]
    lead = len(before) - len(before.lstrip(", \n"))  # a dropped argument begins with its comma
    line = site.node.lineno if isinstance(site.node, ast.If) else source.line_of(edit.start + lead)
    first, last = site.statement
    statement = site.statement if first <= line <= last else (line, line)
    left = source.text[source.text.rfind("\n", 0, edit.start) + 1 : edit.start]
    right = source.text[edit.end :].split("\n", maxsplit=1)[0]
    return Mutant(file, line, statement, site.at_import, edit, before, (left, right))


def changes_something(mutant: Mutant, text: str) -> bool:
    """Whether the mutated text compiles and is another program."""
    mutated = mutant.apply(text)
    try:
        compile(mutated, mutant.file, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(text))


def in_turn(mutants: list[Mutant], seed: int) -> list[Mutant]:
    """An order that depends on the seed alone: kinds in turn, so that none rules; one a line."""
    shuffled = sorted(mutants, key=lambda mutant: (mutant.file, mutant.edit[1:]))
    random.Random(seed).shuffle(shuffled)  # noqa: S311  # a sample, not a secret
    kinds = list(dict.fromkeys(mutant.edit.kind for mutant in shuffled))
    left = {kind: iter([one for one in shuffled if one.edit.kind == kind]) for kind in kinds}
    order: dict[tuple[str, int], Mutant] = {}
    while left:
        for kind in list(left):
            fresh = (one for one in left[kind] if (one.file, one.line) not in order)
            mutant = next(fresh, None)
            if mutant is None:
                del left[kind]
            else:
                order[mutant.file, mutant.line] = mutant
    return list(order.values())


@dataclass(frozen=True, slots=True)
class _Site:
    node: ast.AST
    statement: tuple[int, int]
    at_import: bool


def _sites(tree: ast.Module) -> Iterator[_Site]:
    """Nodes that an operator knows, without those that say nothing about behaviour."""
    for statement in tree.body:
        yield from _walk(statement, _Site(statement, (1, 1), at_import=True), in_message=False)


def _walk(node: ast.AST, around: _Site, *, in_message: bool) -> Iterator[_Site]:
    if _says_nothing(node) or (in_message and _is_text(node)):
        return
    statement = _header(node) if isinstance(node, ast.stmt) else around.statement
    here = _Site(node, statement, around.at_import)
    if type(node) in OPERATORS:
        yield here
    in_message = in_message or isinstance(node, ast.Raise) or _called(node) in _MESSAGES
    for name, value in ast.iter_fields(node):
        if name in _TYPED or (name == "decorator_list" and isinstance(node, ast.ClassDef)):
            continue
        inside = name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        below = _Site(node, statement, here.at_import and not inside)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, below, in_message=in_message)


def _header(node: ast.stmt) -> tuple[int, int]:
    """First and last line of a statement, of a compound one without the blocks in it."""
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    last = max(node.lineno, first.lineno - 1) if isinstance(first, ast.stmt) else node.end_lineno
    return node.lineno, last or node.lineno


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _called(node: ast.AST) -> str:
    """Last part of the name that is called, or ""."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _says_nothing(node: ast.AST) -> bool:
    """Whether all that stands in a node is for readers or for the type checker."""
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.Import() | ast.ImportFrom():
            return True  # positions inside of an f-string are exact from Python 3.12 on only
        case ast.Expr(value=ast.Constant()) | ast.Subscript(value=ast.Name(id="Literal")):
            return True  # a docstring, a type
        case ast.keyword(arg=name):
            return name in SKIPPED_KEYWORDS
        case ast.If(test=test):
            return any(name in ast.unparse(test) for name in ("TYPE_CHECKING", "__main__"))
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in _SKIPPED_NAMES
    return _called(node.value if isinstance(node, ast.Expr) else node) in _SKIPPED_CALLS
