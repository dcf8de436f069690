"""The shape of the code: no file imports itself by a detour, files and functions stay small.

Read from the syntax trees. Every import counts: those inside functions, those for types alone, and
modules that `import_module` loads by a literal name.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("tui", "runner", "advisor", "profiles")
MOST_LINES_OF_A_FILE = 350
MOST_LINES_OF_A_FUNCTION = 45

KNOWN_CIRCLES: dict[frozenset[str], str] = {}
"""Modules that may import each other in a circle, and why they still do."""
KNOWN_LARGE: dict[str, str] = {}
"""Files above the limit, and why they are still there."""

Graph = dict[str, dict[str, int]]
"""Module: the modules it imports, each with the line of the first import."""


def modules_under(root: Path) -> dict[str, Path]:
    """Every module of the four rooms with its file; a package goes by its own name."""
    found = {}
    for file in sorted(file for room in ROOMS for file in (root / room).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(tree: ast.Module, package: str) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of whatever is imported anywhere in a file of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from ((f"{base}.{name.name}", node.lineno) for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                (arg.value, node.lineno)
                for arg in node.args
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def graph_of(modules: dict[str, Path]) -> Graph:
    """What each module imports of the others; `from package import module` means the module."""
    graph: Graph = {}
    for module, file in modules.items():
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        targets = graph.setdefault(module, {})
        for name, line in imported(ast.parse(file.read_text()), package):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != module:
                targets.setdefault(target, line)
    return graph


def circles_of(graph: Graph) -> list[tuple[str, ...]]:
    """The shortest circle through each module that is in one, each circle once.

    A circle goes along the imports and begins with the module that the alphabet has first.
    """
    found = {circle for module in graph if (circle := shortest_way_back(graph, module))}
    return sorted({circle[(at := circle.index(min(circle))) :] + circle[:at] for circle in found})


def shortest_way_back(graph: Graph, start: str) -> tuple[str, ...]:
    """The modules on a shortest way of imports from this one to itself; empty if there is none."""
    ways, seen = deque([(start,)]), {start}
    while ways:
        way = ways.popleft()
        if start in graph[way[-1]]:
            return way
        following = sorted(graph[way[-1]].keys() - seen)
        ways += [(*way, target) for target in following]
        seen.update(following)
    return ()


def told(circle: tuple[str, ...], graph: Graph) -> str:
    """The circle with the file's line of each import."""
    steps = zip(circle, (*circle[1:], circle[0]), strict=True)
    return " -> ".join(f"{module}:{graph[module][target]}" for module, target in steps)


def large_functions(file: Path) -> Iterator[str]:
    """Functions above the limit, decorators left out and the docstring counted."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{file}:{node.lineno} {node.name}: {lines} lines"


def test_no_file_imports_itself_by_a_detour():
    """Neither at once, nor later inside a function, nor for types alone."""
    graph = graph_of(modules_under(ROOT))
    circles = circles_of(graph)

    new = [c for c in circles if not any(known.issuperset(c) for known in KNOWN_CIRCLES)]
    opened = [known for known in KNOWN_CIRCLES if not any(known.issuperset(c) for c in circles)]

    assert [told(circle, graph) for circle in new] == []
    assert opened == [], "opened: take them out of KNOWN_CIRCLES"


def test_no_file_is_larger_than_a_person_reads_at_once():
    """Also not one of those that are known, once it is small."""
    lines = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in modules_under(ROOT).values()
    }
    large = {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_FILE}

    new = {name: count for name, count in large.items() if name not in KNOWN_LARGE}
    small = set(KNOWN_LARGE) - set(large)

    assert new == {}
    assert small == set(), "small enough: take them out of KNOWN_LARGE"


def test_no_function_is_larger_than_a_screen():
    """Of all four rooms, methods and inner functions included."""
    files = modules_under(ROOT).values()

    assert [line for file in files for line in large_functions(file)] == []


@pytest.mark.parametrize(
    "back",
    [
        "import tui.a",
        "from tui import a",
        "from tui.a import thing",
        "from .a import thing",
        "from . import a",
        "def later():\n    from tui.a import thing",
        "if TYPE_CHECKING:\n    from tui.a import Thing",
        "def later():\n    return import_module('tui.a').thing",
    ],
)
def test_a_circle_is_found_however_it_is_closed(tmp_path, back):
    """With the line of each import."""
    for name, text in {
        "__init__": "",
        "a": "\nfrom tui import b",
        "b": f"'''Doc.'''\n{back}",
    }.items():
        (tmp_path / "tui").mkdir(exist_ok=True)
        (tmp_path / "tui" / f"{name}.py").write_text(text)
    graph = graph_of(modules_under(tmp_path))

    (circle,) = circles_of(graph)

    assert circle == ("tui.a", "tui.b")
    assert told(circle, graph) in {"tui.a:2 -> tui.b:2", "tui.a:2 -> tui.b:3"}


def test_every_circle_is_found_once():
    """Long ones and those that share a module; what only points down is none."""
    graph = {
        "a": {"b": 1, "e": 1},
        "b": {"c": 1},
        "c": {"a": 1, "d": 1},
        "d": {"c": 1},
        "e": {},
        "f": {"a": 1},
    }

    assert circles_of(graph) == [("a", "b", "c"), ("c", "d")]


def test_a_large_function_is_found(tmp_path):
    """From its first line to its last, wherever it stands; at the limit it is none."""
    lines = [f"        x = {n}" for n in range(MOST_LINES_OF_A_FUNCTION)]
    file = tmp_path / "x.py"
    long = ["class A:", "    @property", "    def long(self):", *lines]
    file.write_text("\n".join([*long, "    async def short(self):", *lines[1:]]))

    assert list(large_functions(file)) == [f"{file}:3 long: {MOST_LINES_OF_A_FUNCTION + 1} lines"]
