"""Which tests execute a line, in processes that they start too; kept until a file changes.

The map has one entry a file of tests, measured in a process of its own. An entry holds the data of
`coverage`, whose contexts are numbers, and what the numbers mean: a test, or a shared fixture and
the tests that ask for it. It is good as long as every file that the tests executed is the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from mutant_copy import ROOMS, Copy
from mutation import Mutant

_SETTINGS: Final = """[run]
data_file = {data}
parallel = true
include =
{include}
omit = */forked_tests.py
context = ${{MUTANTS_CONTEXT-}}
core = ctrace
patch = fork, _exit
"""
_QUICK_SECONDS: Final = 1.0
"""Longer tests come after all quicker ones that are as near."""


@dataclass(frozen=True, slots=True)
class Test:
    """A test as it ran unmutated."""

    name: str
    """Its node id: `tests/test_x.py::test_y[z]`."""
    seconds: float
    """Under `coverage`: more than it takes without."""
    num_lines: int
    """Of the four rooms that it executes."""


class Entry:
    """What is known of one file of tests."""

    def __init__(self, folder: Path) -> None:
        from coverage import CoverageData

        kept = json.loads((folder / "tests.json").read_text())
        self.tree: str = kept["tree"]
        self.tests = {name: Test(name, *numbers) for name, numbers in kept["tests"].items()}
        self.failed: list[str] = kept["failed"]
        self._served: dict[str, list[str]] = kept["contexts"]
        self._data = CoverageData(str(folder / "lines"))
        self._data.read()
        self._by_line = cache(self._lines_of)

    def _lines_of(self, file: str) -> dict[int, set[str]]:
        found = self._data.contexts_by_lineno(f"{self.tree}/{file}")
        return {line: self._tests_in(contexts) for line, contexts in found.items()}

    def _tests_in(self, contexts: list[str]) -> set[str]:
        """The empty name stands for what no test executes: what runs while they are imported.

        Static and dynamic context are joined by a bar; the fixture of a test has its own.
        """
        numbers = {number for context in contexts for number in context.split("|") if number}
        served = (self._served.get(number, ()) for number in numbers)
        tests = {test for tests in served for test in tests if test in self.tests}
        return tests | ({""} if "" in contexts else set())

    def noticing(self, mutant: Mutant) -> tuple[set[str], set[str]]:
        """Tests that execute the line; tests that may use what was executed at import."""
        by_line = self._by_line(mutant.file)
        first, last = mutant.statement
        lines = [mutant.line] if mutant.line in by_line else range(first, last + 1)
        tests = set().union(*(by_line.get(line, set()) for line in lines))
        if not mutant.at_import and "" not in tests:
            return tests, set()
        near: set[str] = set().union(*by_line.values()) - {""}
        return near, set(self.tests) if by_line else set()


class CoverageMap:
    """The entries of some files of tests."""

    def __init__(self, root: Path, folder: Path, *, quick: bool) -> None:
        self._root, self._folder = root, folder
        self._marks = ("-m", "not slow") if quick else ()
        self._suffix = "-quick" if quick else ""
        self.entries: list[Entry] = []

    def _place(self, test_file: str) -> Path:
        return self._folder / f"{Path(test_file).stem}{self._suffix}"

    def is_fresh(self, test_file: str) -> bool:
        """Whether an entry is there and every file that its tests executed is as it was."""
        try:
            hashes = json.loads((self._place(test_file) / "tests.json").read_text())["hashes"]
        except (OSError, ValueError, KeyError):
            return False
        return all(_hash(self._root / file) == value for file, value in hashes.items())

    def build(self, copy: Copy, test_file: str) -> None:
        """Measure one file of tests, in a copy; replaces its entry."""
        place = self._place(test_file)
        raw = place.with_name(f"{place.name}.new")
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
        patterns = "\n".join(f"    {copy.tree}/{name}/*" for name in (*ROOMS, "tests"))
        settings = raw / "settings.ini"
        settings.write_text(_SETTINGS.format(data=raw / "raw", include=patterns))
        records = copy.measure(test_file, settings, *self._marks)
        described = _describe(records, _combine(raw), copy.tree, test_file)
        (raw / "tests.json").write_text(json.dumps(described))
        shutil.rmtree(place, ignore_errors=True)
        raw.rename(place)

    def load(self, test_files: list[str]) -> None:
        """Read the entries of these files of tests."""
        self.entries = [Entry(self._place(file)) for file in test_files]

    @property
    def failed(self) -> list[str]:
        """Tests that fail unmutated: they say nothing, and are left out."""
        return [test for entry in self.entries for test in entry.failed]

    def tests_for(self, mutant: Mutant) -> list[Test]:
        """Tests that can notice a mutant, nearest first.

        What is executed at import serves whoever uses it afterwards: the tests that execute
        another line of the file come before all others of a file of tests that imports it.
        """
        ranked: list[tuple[tuple[bool, bool, int, bool, int, float], Test]] = []
        for entry in self.entries:
            near, far = entry.noticing(mutant)
            for name in near | far:
                test = entry.tests[name]
                distance = _distance(mutant.file, name)
                place = (distance > 0, name not in near, distance, test.seconds > _QUICK_SECONDS)
                key = (*place, test.num_lines, test.seconds)
                ranked.append((key, test))
        return [test for _, test in sorted(ranked, key=lambda one: (one[0], one[1].name))]


def _distance(file: str, test: str) -> int:
    """0: the test is named after the module; 1: after a part of its path; 2: neither."""
    subject = Path(test.split("::", maxsplit=1)[0]).stem.removeprefix("test_")
    *folders, module = Path(file).with_suffix("").parts
    if subject == module:
        return 0
    near = {module, *folders} & set(subject.split("_")) or set(module.split("_")) & {subject}
    return 1 if near else 2


def _combine(raw: Path) -> Any:
    """One set of data out of the files that the processes left."""
    import coverage

    combined = coverage.Coverage(data_file=str(raw / "lines"), config_file=False, messages=False)
    combined.combine([str(path) for path in raw.glob("raw.*")], strict=True)
    combined.save()
    return combined.get_data()


def _describe(
    records: list[dict[str, Any]], data: Any, tree: Path, test_file: str
) -> dict[str, Any]:
    """What `tests.json` holds."""
    served: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for number in record.get("contexts", ()):
            served[number].append(record["of"])
    num_lines: dict[str, int] = defaultdict(int)
    files = {str(Path(file).relative_to(tree)): file for file in data.measured_files()}
    for name, file in files.items():
        for contexts in (
            data.contexts_by_lineno(file).values() if not name.startswith("tests") else ()
        ):
            for test in {t for c in contexts for n in c.split("|") for t in served.get(n, ())}:
                num_lines[test] += 1
    done = [record for record in records if "test" in record]
    passed = [record for record in done if not record["failed"]]
    return {
        "tree": str(tree),
        "tests": {one["test"]: (one["seconds"], num_lines[one["test"]]) for one in passed},
        "failed": [one["test"] for one in done if one["failed"]],
        "contexts": served,
        "hashes": {name: _hash(tree / name) for name in sorted({*files, test_file})},
    }


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
