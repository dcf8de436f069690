"""The bench of mutants: each edit is exactly the one claimed, and verdicts mean what they say."""

from __future__ import annotations

import queue
import shutil
import textwrap
from pathlib import Path

import pytest
from coverage_map import CoverageMap
from mutant_copy import Copy, NotTheCopyError
from mutant_trial import Trial
from mutation import changes_something, in_turn, mutants_of

ROOT = Path(__file__).parent.parent


def edits(text, kind):
    """Before and after of every mutant of a kind, and that nothing else changes."""
    found = []
    for mutant in mutants_of("a.py", text):
        start, end = mutant.edit.start, mutant.edit.end
        assert mutant.apply(text) == text[:start] + mutant.after + text[end:]
        assert changes_something(mutant, text)
        if mutant.edit.kind == kind:
            found.append((mutant.before, mutant.after))
    return found


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("comparison", "a = b < c", [("<", "<=")]),
        ("comparison", "a = b  not   in  c", [("not   in", "in")]),
        ("comparison", "a = (b) is (c)", [("is", "is not")]),
        ("comparison", "a = b <= c == d", [("<=", "<"), ("==", "!=")]),
        ("arithmetic", "a = b + c * d", [("+", "-"), ("*", "/")]),
        ("arithmetic", "a += b", [("+=", "-=")]),
        ("arithmetic", "a = b // (  # why - not\n c)", [("//", "*")]),
        ("number", "a = b[3]", [("3", "4"), ("3", "2")]),
        ("number", "a = 1_024", [("1_024", "2048")]),
        ("number", "a = 0", [("0", "1"), ("0", "(-1)")]),
        ("number", "a = 0.25", [("0.25", "0.5")]),
        ("boolean", "a = f(b=True)", [("True", "False")]),
        ("string", "a = b['key']", [("'key'", "'keyx'")]),
        ("string", 'a = ""', [('""', '"x"')]),
        ("and/or", "a = b and c or d", [("and", "or"), ("or", "and")]),
        ("dropped not", "a = not (b)", [("not ", "")]),
        ("dropped minus", "a = b[-1]", [("-", "")]),
        ("function", "a = min(any(b))", [("min", "max"), ("any", "all")]),
        ("negated branch", "a = [b for b in c if b.d]", [("b.d", "not (b.d)")]),
        ("negated branch", "if b < c:\n  d()", [("b < c", "not (b < c)")]),
        ("negated branch", "if b == c:\n  d()", []),
        ("swapped branches", "a = b if c else d", [("b if c else d", "d if c else b")]),
        ("dropped statement", "f(a)", [("f(a)", "pass")]),
        ("dropped statement", "a.b = c\nd = e", [("a.b = c", "pass")]),
        ("dropped statement", "for a in b:\n  continue", [("continue", "pass")]),
        ("dropped statement", "raise E('no')", [("raise E('no')", "pass")]),
        ("dropped argument", "a = f(b, c=(d, e))", [(", c=(d, e)", "")]),
        ("dropped argument", "a = f(c=d, *e)", [("c=d, ", "")]),
        ("dropped argument", "a = f(c=d)", [("c=d", "")]),
        ("return None", "def f():\n  return a", [("a", "None")]),
        ("return None", "def f():\n  return False", []),
        ("early return", "def f() -> None:\n  '''F.'''\n  a()\n  b()", [("", "return\n  ")]),
        ("early return", "def f() -> int:\n  a()\n  return b", []),
    ],
)
def test_an_operator_makes_exactly_this_edit(kind, text, expected):
    """Kinds, texts, and all edits of the kind."""
    assert edits(text, kind) == expected


def test_the_branches_of_a_condition_change_places_with_their_comments():
    """Neither the condition nor the indentation changes."""
    text = "def f():\n    if a:\n        b()  # one\n    else:\n        c()\n        d()\n"

    (mutant,) = (m for m in mutants_of("a.py", text) if m.edit.kind == "swapped branches")

    assert (
        mutant.apply(text)
        == "def f():\n    if a:\n        c()\n        d()  # one\n    else:\n        b()\n"
    )
    assert mutant.line == 2


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""',
        "def f(a: Literal['b'] = c) -> 'd': ...",
        "a: Final[Literal['b']] = c",
        "if TYPE_CHECKING:\n  f(1)",
        "if __name__ == '__main__':\n  f(1)",
        "__all__ = ['a']",
        "__slots__ = ('a',)",
        "@dataclass(frozen=True, slots=True)\nclass A: ...",
        "assert a == 1",
        "log.debug('a')",
        "a = 1  # noqa: PLR2004",
        "a = 'a message'",
        "a = f'{b + 1}'",
        "T = TypeVar('T', bound=int)",
        "for a in zip(b, c, strict=True):\n  break",
        "@click.option('--a b', help='word')\ndef f(): ...",
    ],
)
def test_what_is_not_behaviour_is_left_alone(text):
    """Types, documentation, messages."""
    assert mutants_of("a.py", text) == []


def test_a_mutant_is_told_inside_of_its_line():
    """Which of several equal signs it is can be read."""
    told = [str(m) for m in mutants_of("a.py", "a = b\nc = (d + e) + f\n") if m.before == "+"]

    assert told == [
        "a.py:2: arithmetic: c = (d {+ -> -} e) + f",
        "a.py:2: arithmetic: c = (d + e) {+ -> -} f",
    ]


def test_the_words_of_an_error_are_left_alone_and_its_code_is_not():
    """`raise UserError("what", why=…, code=77)`."""
    text = "raise UserError('what', why='x' + y, code=77)"

    changed = {(mutant.edit.kind, mutant.before) for mutant in mutants_of("a.py", text)}

    assert ("number", "77") in changed
    assert {before for kind, before in changed if kind == "string"} == set()
    assert {before for kind, before in changed if kind == "dropped argument"} == {", code=77"}


def test_positions_count_characters_not_bytes():
    """The parser counts bytes."""
    text = "a = 'é→', b < c"

    assert edits(text, "comparison") == [("<", "<=")]


def test_a_mutant_knows_its_line_its_statement_and_when_it_is_executed():
    """Of an argument its own line, not that of the comma before it."""
    text = "A = {\n  'b': 1,\n}\ndef f(a=2):\n  return g(\n    a,\n    b=c,\n  )\n"
    found = {(m.edit.kind, m.before.strip(", \n")): m for m in mutants_of("a.py", text)}

    key, default = found["string", "'b'"], found["number", "2"]
    dropped = found["dropped argument", "b=c"]
    assert (key.line, key.statement, key.at_import) == (2, (1, 3), True)
    assert (default.line, default.at_import) == (4, True)
    assert (dropped.line, dropped.statement, dropped.at_import) == (7, (5, 8), False)


@pytest.mark.parametrize("file", ["tui/pages/data.py", "profiles/data/csv_rows.py"])
def test_mutants_of_real_code_compile_and_change_the_line_they_name(file):
    """All other lines of a one-line edit are as they were."""
    text = (ROOT / file).read_text()
    found = mutants_of(file, text)

    assert len(found) > 50
    for mutant in found:
        assert text[mutant.edit.start : mutant.edit.end] == mutant.before
        assert changes_something(mutant, text), mutant
        lines, mutated = text.splitlines(), mutant.apply(text).splitlines()
        if len(lines) == len(mutated):
            other = {
                n for n, pair in enumerate(zip(lines, mutated, strict=True), 1) if len({*pair}) > 1
            }
            assert mutant.line - 1 <= min(other) <= mutant.edit.after.count("\n") + max(other)


def test_the_order_depends_on_the_seed_alone_and_takes_the_kinds_in_turn():
    """No kind rules; a line is mutated once."""
    file = "tui/pages/data.py"
    found = mutants_of(file, (ROOT / file).read_text())

    first, again, other = in_turn(found, 1), in_turn(found[::-1], 1), in_turn(found, 2)

    assert first == again
    assert first != other
    kinds = {mutant.edit.kind for mutant in first}
    assert {mutant.edit.kind for mutant in first[: len(kinds)]} == kinds
    lines = [mutant.line for mutant in first]
    assert len(lines) == len(set(lines))


PROJECT = {
    "advisor/sums.py": """
        def twice(value):
            return 2 * value
        DOUBLED = twice(4)
        FACTOR = 3
        NAME = "abc"
        def total(values):
            found = 0
            for value in values:
                found += value
            return found * FACTOR
        def unused(value):
            return value + 1
        def waits(times):
            while times > 0:
                times -= 1
            return times
        def reported(value):
            return value - 1
        def least(value):
            return 5 if value <= 5 else value
        """,
    "tests/test_sums.py": """
        import subprocess, sys, pytest
        from advisor import sums
        @pytest.fixture(scope="module")
        def made():
            return sums.waits(2)
        def test_total():
            assert sums.total([1, 2]) == 9
        def test_nothing():
            sums.total([])
        @pytest.mark.parametrize("n", [0, 1])
        def test_made(made, n):
            assert made == 0
        def test_command():
            code = "from advisor import sums; print(sums.reported(3))"
            done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True)
            assert done.stdout == b"2\\n"
        @pytest.mark.parametrize("name", [sums.NAME])
        def test_name(name):
            assert name == "abc"
        def test_least():
            assert (sums.least(2), sums.least(9)) == (5, 9)
        def test_doubled():
            assert sums.DOUBLED == 8
        def test_fails():
            assert False
        """,
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib']",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A small project with the four rooms, and its map."""
    pytest.importorskip("coverage")
    folder = tmp_path_factory.mktemp("project")
    root = folder / "root"
    for name in ("tui", "runner", "advisor", "profiles"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("")
    (root / "tests" / "support").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "support" / "forked_tests.py", root / "tests" / "support")
    for name, text in PROJECT.items():
        (root / name).write_text(textwrap.dedent(text))
    copy = Copy(root, folder / "work", libraries=())
    known = CoverageMap(root, folder / "map", quick=False)
    known.build(copy, "tests/test_sums.py")
    known.load(["tests/test_sums.py"])
    yield root, copy, known
    copy.close()


def verdict_of(project, kind, before, line_text, time_limit=60):
    """The verdict on one mutant of the small project."""
    root, copy, known = project
    text = (root / "advisor" / "sums.py").read_text()
    mutants = mutants_of("advisor/sums.py", text)
    lines = text.splitlines()
    (mutant, *_) = (
        m
        for m in mutants
        if (m.edit.kind, m.before) == (kind, before) and line_text in lines[m.line - 1]
    )
    return Trial(known, time_limit).judge(copy, mutant)


def names(tests):
    return [test.name.split("::")[1] for test in tests]


def test_a_mutant_is_caught_by_a_test_that_executes_it_and_the_copy_is_put_back(project):
    """Then the next mutant stands alone."""
    root, copy, _ = project

    found = verdict_of(project, "arithmetic", "+=", "found += value")

    assert (found.result, found.test) == ("failed", "tests/test_sums.py::test_total")
    file = "advisor/sums.py"
    assert (copy.tree / file).read_text() == (root / file).read_text()


@pytest.mark.long
def test_a_mutant_in_a_process_that_a_test_starts_is_caught(project):
    """The process imports the copy, and the map knows what it executed."""
    found = verdict_of(project, "arithmetic", "-", "return value - 1")

    assert (found.result, found.num_tests) == ("failed", 1)
    assert found.test.endswith("test_command")


def test_a_mutant_that_no_test_notices_survives(project):
    """After all tests that execute its line; not after the others."""
    found = verdict_of(project, "comparison", "<=", "return 5 if")

    assert (found.result, found.num_ran, found.num_tests) == ("survived", 1, 1)
    assert not found.is_caught


def test_a_mutant_that_no_test_executes_has_not_been_caught(project):
    """It counts like a survivor, and says why."""
    found = verdict_of(project, "arithmetic", "+", "return value + 1")

    assert (found.result, found.num_tests, found.is_caught) == ("not executed", 0, False)


@pytest.mark.long
def test_a_mutant_that_never_ends_is_caught_as_timed_out(project, monkeypatch):
    """With the fixture in the test's account."""
    monkeypatch.setattr("mutant_trial._MORE_SECONDS", 1.0)

    found = verdict_of(project, "arithmetic", "-=", "times -= 1")

    assert (found.result, found.is_caught) == ("timed out", True)
    assert "test_made" in found.test


@pytest.mark.long
def test_what_is_executed_at_import_is_tried_by_whoever_uses_the_file(project):
    """First those that execute a line of it."""
    found = verdict_of(project, "number", "3", "FACTOR = 3")

    assert (found.result, found.test) == ("failed", "tests/test_sums.py::test_total")


@pytest.mark.long
def test_a_function_that_runs_at_import_is_tried_like_what_it_makes(project):
    """No test executes its line, and one uses its result."""
    found = verdict_of(project, "arithmetic", "*", "return 2 * value")

    assert (found.result, found.test) == ("failed", "tests/test_sums.py::test_doubled")


@pytest.mark.long
def test_a_case_that_is_named_by_what_is_mutated_is_found_again(project):
    """Its name changes with the mutant; it runs all the same."""
    found = verdict_of(project, "string", '"abc"', "NAME =")

    assert (found.result, found.test) == ("failed", "tests/test_sums.py::test_name[abcx]")


@pytest.mark.long
def test_a_mutant_gets_no_more_time_than_it_was_given(project):
    """Tests that had no time left did not notice it, and are not counted."""
    found = verdict_of(project, "arithmetic", "+=", "found += value", time_limit=0)

    assert (found.result, found.num_ran, found.num_tests) == ("survived", 0, 1)


def test_tests_that_share_a_fixture_share_the_lines_it_executes(project):
    """It runs once, in the first of them."""
    root, _, known = project
    text = (root / "advisor" / "sums.py").read_text()
    (mutant,) = (m for m in mutants_of("advisor/sums.py", text) if m.before == "-=")

    assert set(names(known.tests_for(mutant))) == {"test_made[0]", "test_made[1]"}


def test_a_test_that_fails_without_a_mutant_is_left_out(project):
    """It would catch everything."""
    _, _, known = project

    assert known.failed == ["tests/test_sums.py::test_fails"]


def test_the_map_is_good_until_a_file_that_was_executed_changes(project):
    """Of the code and of the tests; not of others."""
    root, _, known = project
    file = "tests/test_sums.py"
    assert known.is_fresh(file)

    (root / "advisor" / "others.py").write_text("")
    assert known.is_fresh(file)

    fresh = CoverageMap(root, known._folder, quick=True)
    assert not fresh.is_fresh(file), "another choice of tests has its own entries"


@pytest.mark.long
def test_a_copy_that_is_not_what_tests_import_is_refused(project, tmp_path):
    """A `.pth` that names another tree first makes every mutant survive."""
    root, _, known = project
    good = Copy(root, tmp_path / "good", libraries=())
    bad = Copy(root, tmp_path / "bad", libraries=())
    (path,) = (tmp_path / "bad").rglob("copy.pth")
    path.write_text(path.read_text().replace(str(bad.tree), str(root)))
    mutants = mutants_of("advisor/sums.py", (root / "advisor" / "sums.py").read_text())

    for one in (good, bad):
        free = queue.Queue()
        free.put(one)
        if one is good:
            Trial(known, 60).prove(free, mutants)
        else:
            with pytest.raises(NotTheCopyError, match="import"):
                Trial(known, 60).prove(free, mutants)
        one.close()
