"""Whether the tests notice a mutant, and which: batches of the nearest, up to a sure failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Queue
from typing import Any, Final

from coverage_map import CoverageMap, Test
from mutant_copy import Copy, NotTheCopyError, Outcome
from mutation import Mutant

_FIRST_BATCH: Final = 8
_GROWTH: Final = 3
"""The nearest tests notice most; of those that follow, fewer starts of pytest are worth more."""
_SLOWER: Final = 3.0
_MORE_SECONDS: Final = 30.0
"""A batch that takes this many times as long as it did, and this much more, hangs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests said to a mutant."""

    mutant: Mutant
    result: str
    """"failed", "timed out", "died", "not importable": caught. "survived", "not executed"."""
    test: str
    """The first that noticed it, or ""."""
    num_ran: int
    num_tests: int
    """That execute the mutated line."""
    seconds: float

    @property
    def is_caught(self) -> bool:
        """Whether a test noticed it."""
        return self.result not in {"survived", "not executed"}

    def __str__(self) -> str:
        """One line: what, where, and by which test or by how many not."""
        if self.is_caught:
            return f"caught   {self.mutant} ({self.result}: {self.test}; {self.seconds:.1f} s)"
        ran = f"{self.num_ran} of {self.num_tests} tests; {self.seconds:.1f} s"
        return f"SURVIVED {self.mutant} ({ran})"

    def as_json(self) -> dict[str, Any]:
        """For the machine-readable result."""
        mutant = self.mutant
        return {
            "file": mutant.file,
            "line": mutant.line,
            "kind": mutant.edit.kind,
            "before": mutant.before,
            "after": mutant.after,
            "caught": self.is_caught,
            "result": self.result,
            "test": self.test,
            "seconds": round(self.seconds, 2),
            "num_ran": self.num_ran,
            "num_tests": self.num_tests,
        }


class Trial:
    """Tries mutants in copies; several threads may, each with a copy of its own."""

    def __init__(self, known: CoverageMap, time_limit: float) -> None:
        self._known, self._time_limit = known, time_limit
        self._sound: dict[str, bool] = {}
        self._lock = threading.Lock()

    def prove(self, free: Queue[Copy], mutants: list[Mutant]) -> None:
        """Raise NotTheCopyError unless, in every copy, processes and tests see a canary."""
        near = (
            (mutant.file, tests) for mutant in mutants if (tests := self._known.tests_for(mutant))
        )
        file, tests = next(near, ("", []))
        if not tests:
            raise NotTheCopyError("no test executes any of the mutants")
        for copy in [free.get() for _ in range(free.qsize())]:
            copy.prove(file)
            self._prove_tests(copy, file, tests[0].name)
            free.put(copy)

    def _prove_tests(self, copy: Copy, file: str, test: str) -> None:
        with copy.canary(file):
            outcome = copy.run([test], self._time_limit)
        if not outcome.fault:
            raise NotTheCopyError(f"{test} passes although {file} raises when it is imported")

    def judge(self, copy: Copy, mutant: Mutant) -> Verdict:
        """Write the mutant into the copy, ask its tests, and put the file back."""
        tests = self._known.tests_for(mutant)
        began = time.monotonic()
        copy.write(mutant.file, mutant.apply(copy.text(mutant.file)))
        try:
            num_ran, outcome = self._ask(copy, mutant, tests, began + self._time_limit)
        finally:
            copy.restore(mutant.file)
        result = outcome.fault or ("survived" if tests else "not executed")
        seconds = time.monotonic() - began
        return Verdict(mutant, result, outcome.failed, num_ran, len(tests), seconds)

    def _ask(
        self, copy: Copy, mutant: Mutant, tests: list[Test], end: float
    ) -> tuple[int, Outcome]:
        """How many tests ran, and the failure that counts, or an outcome without one."""
        num_ran = 0
        for batch in _batches(tests):
            left = {test.name: test for test in batch}
            while left and (seconds := end - time.monotonic()) > 0:
                outcome = copy.run(_by_file(list(left)), _limit(left.values()), seconds)
                if outcome.fault and self._is_sure(copy, mutant, outcome):
                    return num_ran + len(outcome.passed) + 1, outcome
                ran = _ran(outcome, set(left))
                num_ran += len(ran)
                # What a run without a fault leaves, the mutant has made vanish, or time is over
                left = {n: t for n, t in left.items() if n not in ran} if outcome.fault else {}
        return num_ran, Outcome(())

    def _is_sure(self, copy: Copy, mutant: Mutant, outcome: Outcome) -> bool:
        """Whether the failure comes again with the mutant, and not without it."""
        test, limit = outcome.failed, self._time_limit
        if not test:
            return True  # what cannot be imported cannot be imported twice
        if outcome.fault == "failed" and not copy.run([test], limit).fault:
            return False
        with self._lock:
            sound = self._sound.get(test)
        if sound is None:
            copy.restore(mutant.file)
            sound = not copy.run([test], limit).fault
            copy.write(mutant.file, mutant.apply(copy.text(mutant.file)))
            self._sound[test] = sound
        return sound


def _batches(tests: list[Test]) -> Iterator[list[Test]]:
    size, first = _FIRST_BATCH, 0
    while first < len(tests):
        yield tests[first : first + size]
        first, size = first + size, size * _GROWTH


def _ran(outcome: Outcome, wanted: set[str]) -> set[str]:
    """Of the wanted tests those that are settled; a stand-in settles all cases of its test."""
    failed = outcome.failed
    if failed in wanted:
        return {*outcome.passed, failed} & wanted
    others = {test for test in wanted if test.split("[")[0] == failed.split("[")[0]}
    return (set(outcome.passed) & wanted) | others


def _by_file(tests: list[str]) -> list[str]:
    """Tests of one file after each other, so that they share its fixtures."""
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    return sorted(tests, key=lambda test: files.index(test.split("::")[0]))


def _limit(tests: Any) -> float:
    return _MORE_SECONDS + _SLOWER * sum(test.seconds for test in tests)
