"""What a mutation does to a node of a syntax tree: exact edits of the text, formatting kept."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

_COMPARISONS: Final = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="} | {
    "in": "not in",
    "not in": "in",
    "is": "is not",
    "is not": "is",
}
_ARITHMETIC: Final = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*"} | {
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
}
_FUNCTIONS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LARGEST_COUNTED: Final = 16
"""Up to here a number is a count or an index, off by one; above it is a quantity, doubled."""
_DATA: Final = re.compile(r"[\w.:/%+*-]+", re.ASCII)
"""Text without a blank is a key, a name or a code; with one it is a message."""
SKIPPED_KEYWORDS: Final = {
    *("slots", "frozen", "strict", "timeout", "stacklevel", "maxsize", "encoding", "errors"),
    *("help", "show_default", "metavar", "doc", "style", "what", "why", "do", "where"),
}
"""Of calls: words for people, options of the language, patience."""


class Edit(NamedTuple):
    """Characters `start` to `end` of the text become `after`."""

    kind: str
    start: int
    end: int
    after: str


class _Token(NamedTuple):
    start: int
    end: int
    text: str


class Source:
    """A text with its tokens; positions are counted in characters from its beginning."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.splitlines(keepends=True)
        self._begins = [0]
        for line in self.lines:
            self._begins.append(self._begins[-1] + len(line))
        self.tokens = list(self._tokens())
        self._starts = [token.start for token in self.tokens]

    def _tokens(self) -> Iterator[_Token]:
        blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in blank and token.string:
                start, end = (self._begins[row - 1] + col for row, col in (token.start, token.end))
                yield _Token(start, end, token.string)

    def offset(self, line: int, column: int) -> int:
        """Of a position of the parser, whose columns count bytes."""
        before = self.lines[line - 1].encode()[:column]
        return self._begins[line - 1] + len(before.decode())

    def span(self, node: ast.expr | ast.stmt | ast.keyword | ast.pattern) -> tuple[int, int]:
        """Start and end of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.offset(node.lineno, node.col_offset),
            self.offset(node.end_lineno, node.end_col_offset),
        )

    def segment(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node."""
        return self.text[slice(*self.span(node))]

    def line_of(self, offset: int) -> int:
        """Number of the line, from 1, that holds a character."""
        return self.text.count("\n", 0, offset) + 1

    def token_at(self, offset: int) -> int:
        """Index of the first token that starts at `offset` or later."""
        return bisect_left(self._starts, offset)

    def between(self, left: ast.expr, right: ast.expr) -> list[_Token]:
        """Tokens between two nodes, without parentheses: the operator."""
        first, last = self.token_at(self.span(left)[1]), self.token_at(self.span(right)[0])
        return [token for token in self.tokens[first:last] if token.text not in "()"]


def _operator(
    source: Source, left: ast.expr, right: ast.expr, table: dict[str, str], kind: str
) -> Iterator[Edit]:
    found = source.between(left, right)
    text = " ".join(token.text for token in found)
    if text in table:
        yield Edit(kind, found[0].start, found[-1].end, table[text])


def _compare(source: Source, node: ast.Compare) -> Iterator[Edit]:
    operands = [node.left, *node.comparators]
    for left, right in pairwise(operands):
        yield from _operator(source, left, right, _COMPARISONS, "comparison")


def _bool_op(source: Source, node: ast.BoolOp) -> Iterator[Edit]:
    for left, right in pairwise(node.values):
        yield from _operator(source, left, right, {"and": "or", "or": "and"}, "and/or")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_type(node: ast.expr) -> bool:
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node).split(".")[-1]
    return name[:1].isupper() or name in {"int", "float", "str", "bool", "list", "dict", "tuple"}


def _bin_op(source: Source, node: ast.BinOp) -> Iterator[Edit]:
    pair = (node.left, node.right)
    if any(_is_text(side) for side in pair) or all(_is_type(side) for side in pair):
        return
    yield from _operator(source, *pair, _ARITHMETIC, "arithmetic")


def _aug_assign(source: Source, node: ast.AugAssign) -> Iterator[Edit]:
    table = {f"{old}=": f"{new}=" for old, new in _ARITHMETIC.items()}
    if not _is_text(node.value):
        yield from _operator(source, node.target, node.value, table, "arithmetic")
    yield Edit("dropped statement", *source.span(node), "pass")


def _unary_op(source: Source, node: ast.UnaryOp) -> Iterator[Edit]:
    start = source.span(node)[0]
    after = source.tokens[source.token_at(start) + 1].start
    if isinstance(node.op, ast.Not):
        yield Edit("dropped not", start, after, "")
    elif isinstance(node.op, ast.USub):
        yield Edit("dropped minus", start, after, "")


def _constant(source: Source, node: ast.Constant) -> Iterator[Edit]:
    span, value = source.span(node), node.value
    if isinstance(value, bool):
        yield Edit("boolean", *span, str(not value))
    elif isinstance(value, int):
        counted = value <= _LARGEST_COUNTED
        for other in (value + 1, value - 1) if counted else (2 * value,):
            yield Edit("number", *span, str(other) if other >= 0 else f"({other})")
    elif isinstance(value, float):
        yield Edit("number", *span, repr(2 * value or 1.0))
    elif isinstance(value, str) and (not value or _DATA.fullmatch(value)):
        text = source.segment(node)
        if text[:1] in "\"'" and text[:3] not in {'"""', "'''"} and "\n" not in text:
            yield Edit("string", *span, f"{text[:-1]}x{text[-1]}")


def _negated(source: Source, test: ast.expr) -> Iterator[Edit]:
    """The condition the other way round, unless another operator says exactly that."""
    turned = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    exact = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        turned = isinstance(test.ops[0], exact)
    if not turned:
        yield Edit("negated branch", *source.span(test), f"not ({source.segment(test)})")


def _swapped(source: Source, left: tuple[int, int], right: tuple[int, int]) -> Edit:
    """Two stretches of text in each other's place."""
    text = source.text
    after = text[slice(*right)] + text[left[1] : right[0]] + text[slice(*left)]
    return Edit("swapped branches", left[0], right[1], after)


def _block(source: Source, body: list[ast.stmt]) -> tuple[int, int]:
    decorators = getattr(body[0], "decorator_list", [])
    first = min((source.span(node)[0] - 1 for node in decorators), default=None)
    return (source.span(body[0])[0] if first is None else first), source.span(body[-1])[1]


def _if(source: Source, node: ast.If) -> Iterator[Edit]:
    is_elif = len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
    if node.orelse and not is_elif:
        yield _swapped(source, _block(source, node.body), _block(source, node.orelse))
    else:
        yield from _negated(source, node.test)


def _if_exp(source: Source, node: ast.IfExp) -> Iterator[Edit]:
    yield _swapped(source, source.span(node.body), source.span(node.orelse))


def _comprehension(source: Source, node: ast.comprehension) -> Iterator[Edit]:
    for test in node.ifs:
        yield from _negated(source, test)


def _keyword_end(source: Source, index: int) -> int:
    """Index of the token behind an argument that begins at token `index`: a comma or a bracket."""
    depth = 0
    while depth or source.tokens[index].text not in {",", ")"}:
        text = source.tokens[index].text
        depth += (text in {"(", "[", "{"}) - (text in {")", "]", "}"})
        index += 1
    return index


def _call(source: Source, node: ast.Call) -> Iterator[Edit]:
    if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        yield Edit("function", *source.span(node.func), _FUNCTIONS[node.func.id])
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in SKIPPED_KEYWORDS:
            continue
        first = source.token_at(source.span(keyword)[0])
        behind = _keyword_end(source, first)
        if source.tokens[first - 1].text == ",":
            start, end = source.tokens[first - 1].start, source.tokens[behind - 1].end
        else:
            start, end = source.tokens[first].start, source.tokens[behind].start
            if source.tokens[behind].text == ",":
                end = source.tokens[behind + 1].start
        yield Edit("dropped argument", start, end, "")


def _dropped(source: Source, node: ast.stmt) -> Iterator[Edit]:
    yield Edit("dropped statement", *source.span(node), "pass")


def _expr(source: Source, node: ast.Expr) -> Iterator[Edit]:
    value = node.value.value if isinstance(node.value, ast.Await) else node.value
    if isinstance(value, ast.Call):
        yield from _dropped(source, node)


def _assign(source: Source, node: ast.Assign) -> Iterator[Edit]:
    if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
        yield from _dropped(source, node)


def _return(source: Source, node: ast.Return) -> Iterator[Edit]:
    falsy = isinstance(node.value, ast.Constant) and not node.value.value
    if node.value is not None and not falsy:
        yield Edit("return None", *source.span(node.value), "None")


def _function(source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Edit]:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    gives_nothing = isinstance(node.returns, ast.Constant) and node.returns.value is None
    if gives_nothing and len(body) > 1:
        start = source.span(body[0])[0]
        indent = " " * (start - source.text.rindex("\n", 0, start) - 1)
        yield Edit("early return", start, start, f"return\n{indent}")


OPERATORS: Final[dict[type[ast.AST], Callable[..., Iterator[Edit]]]] = {
    ast.Assign: _assign,
    ast.AsyncFunctionDef: _function,
    ast.AugAssign: _aug_assign,
    ast.BinOp: _bin_op,
    ast.BoolOp: _bool_op,
    ast.Call: _call,
    ast.Compare: _compare,
    ast.Constant: _constant,
    ast.Continue: _dropped,
    ast.Delete: _dropped,
    ast.Expr: _expr,
    ast.FunctionDef: _function,
    ast.If: _if,
    ast.IfExp: _if_exp,
    ast.Raise: _dropped,
    ast.Return: _return,
    ast.UnaryOp: _unary_op,
    ast.comprehension: _comprehension,
}
"""By the kind of node; each takes the source and the node."""
