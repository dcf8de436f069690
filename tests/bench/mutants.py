"""Small changes of the code, one at a time in a copy: which of them do the tests notice.

Run as `python tests/bench/mutants.py --package advisor/cost --number 40`. The first call measures
which tests execute which lines (`coverage`, half an hour for all tests); the answer is kept until
the files change, and `--tests` and `--quick` restrict it. Then each mutant meets the tests that
execute its line, nearest first, up to the first that fails: 1 to 10 seconds each. A test that
also fails without the mutant, or not twice with it, does not count. The working tree is only read.
Exit code 1 if a mutant survived.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from queue import Queue
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from coverage_map import CoverageMap  # the line above must come first
from mutant_copy import Copy
from mutant_trial import Trial, Verdict
from mutation import Mutant, changes_something, in_turn, mutants_of

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_PACKAGES: Final = ("advisor/cost", "advisor/choice", "profiles/data", "runner/training", "tui")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    more = {"action": "append", "metavar": "PATH"}
    parser.add_argument("--package", **more, help="folder or file to mutate; again for more")
    parser.add_argument("--exclude", **more, default=[], help="folder or file to leave alone")
    parser.add_argument("--at", metavar="FILE:LINE", help="every mutant of this line")
    parser.add_argument("--number", type=int, default=40, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", **more, help="files of tests to use (all)")
    parser.add_argument("--quick", action="store_true", help="without the tests marked slow")
    parser.add_argument(
        "--time-limit", type=float, default=300, help="seconds for a mutant's tests"
    )
    parser.add_argument("--jobs", type=int, default=1, help="copies that work side by side")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument("--map", type=Path, help="folder of the map (beside --json, or ~/.cache)")
    parser.add_argument("--map-only", action="store_true", help="measure, and mutate nothing")
    parser.add_argument("--json", type=Path, help="file for the result")
    asked = parser.parse_args()
    wanted = (*(asked.package or ()), *asked.exclude, *(asked.tests or ()))
    if missing := [path for path in wanted if not (ROOT / path).exists()]:
        parser.error(f"not in {ROOT}: {', '.join(missing)}")
    return asked


def chosen(package: str, asked: argparse.Namespace) -> list[Mutant]:
    """The sample of one package; its order depends on the seed alone."""
    place = ROOT / package
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    names = [str(file.relative_to(ROOT)) for file in files]
    kept = [name for name in names if not any(_is_in(name, one) for one in asked.exclude)]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in kept}
    every = [mutant for name in kept for mutant in mutants_of(name, texts[name])]
    if asked.at:
        order = [mutant for mutant in every if f"{mutant.file}:{mutant.line}" == asked.at]
    else:
        order = in_turn(every, asked.seed)
    real = (mutant for mutant in order if changes_something(mutant, texts[mutant.file]))
    return list(islice(real, asked.number))


def _is_in(name: str, place: str) -> bool:
    return name == place.rstrip("/") or name.startswith(place.rstrip("/") + "/")


@contextmanager
def copies(number: int) -> Iterator[Queue[Copy]]:
    """Copies of the project in a temporary folder, to be taken and given back."""
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        made = [Copy(ROOT, Path(folder) / str(index)) for index in range(number)]
        free: Queue[Copy] = Queue()
        for copy in made:
            free.put(copy)
        try:
            yield free
        finally:
            for copy in made:
                copy.close()


def measure(known: CoverageMap, test_files: list[str], free: Queue[Copy], jobs: int) -> None:
    """Bring the map up to date."""
    old = [file for file in test_files if not known.is_fresh(file)]

    def build(test_file: str) -> None:
        copy = free.get()
        try:
            known.build(copy, test_file)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(jobs) as pool:
        for number, (file, _) in enumerate(zip(old, pool.map(build, old), strict=True), 1):
            print(f"measured {number} of {len(old)}: {file}", file=sys.stderr, flush=True)
    known.load(test_files)
    for test in known.failed:
        print(f"left out, fails without a mutant: {test}", file=sys.stderr)


def judge(
    mutants: list[Mutant], known: CoverageMap, free: Queue[Copy], asked: argparse.Namespace
) -> Iterator[Verdict]:
    """Try them all, in their order; each verdict as soon as those before it are there."""
    trial = Trial(known, asked.time_limit)
    trial.prove(free, mutants)

    def one(mutant: Mutant) -> Verdict:
        copy = free.get()
        try:
            return trial.judge(copy, mutant)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(asked.jobs) as pool:
        yield from pool.map(one, mutants)


def report(verdicts: dict[str, list[Verdict]], asked: argparse.Namespace) -> int:
    """Print the rates and the survivors, write the JSON; how many survived."""
    print(
        f"\n{'package':<24}{'mutants':>8}{'caught':>8}{'survived':>10}{'rate':>8}{'median s':>10}"
    )
    rows = {}
    for package, found in verdicts.items():
        caught = sum(verdict.is_caught for verdict in found)
        seconds = sorted(verdict.seconds for verdict in found)
        rows[package] = {
            "mutants": len(found),
            "caught": caught,
            "survived": len(found) - caught,
            "rate": round(caught / max(len(found), 1), 3),
            "median_seconds": seconds[len(seconds) // 2] if seconds else 0.0,
        }
        number, *counts, rate, median = rows[package].values()
        print(f"{package:<24}{number:>8}{counts[0]:>8}{counts[1]:>10}{rate:>8.1%}{median:>10.1f}")
    for verdict in (v for found in verdicts.values() for v in found if not v.is_caught):
        print(verdict)
    if asked.json:
        every = [verdict.as_json() for found in verdicts.values() for verdict in found]
        result = {"seed": asked.seed, "packages": rows, "mutants": every}
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return sum(row["survived"] for row in rows.values())


def main() -> int:
    """Choose, measure, try, report."""
    asked = arguments()
    samples = {package: chosen(package, asked) for package in asked.package or _PACKAGES}
    if asked.list:
        print(*(mutant for sample in samples.values() for mutant in sample), sep="\n")
        return 0
    cached = asked.json.parent if asked.json else Path.home() / ".cache" / "tunedeck"
    known = CoverageMap(ROOT, asked.map or cached / "mutants-map", quick=asked.quick)
    every = sorted(str(f.relative_to(ROOT)) for f in (ROOT / "tests").glob("test_*.py"))
    every.remove("tests/test_mutants.py")  # they are about this bench
    verdicts: dict[str, list[Verdict]] = {package: [] for package in samples}
    with copies(asked.jobs) as free:
        measure(known, asked.tests or every, free, asked.jobs)
        if asked.map_only:
            return 0
        every_mutant = [mutant for sample in samples.values() for mutant in sample]
        packages = [package for package, sample in samples.items() for _ in sample]
        found = judge(every_mutant, known, free, asked)
        for package, verdict in zip(packages, found, strict=True):
            verdicts[package].append(verdict)
            print(verdict, flush=True)
    return int(report(verdicts, asked) > 0)


if __name__ == "__main__":
    sys.exit(main())
