"""Runs chosen tests in forked children of a process that has loaded the heavy libraries once.

A script of its own, with the libraries as arguments: one JSON request a line on stdin, one JSON
answer a line on stdout. It never imports what it tests, so every child imports the packages as they
lie on the disk at that moment.
With `map` as its only argument it runs one request in this very process, and tells `coverage`
which test is being executed: as context in this process, as MUTANTS_CONTEXT in those it starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import psutil
import pytest

_PR_SET_CHILD_SUBREAPER: Final = 36
_ROOMS: Final = ("tui", "runner", "advisor", "profiles")
_CACHE: Final = type(functools.cache(print))
_POLL_SECONDS: Final = 0.01
_GRACE_SECONDS: Final = 3.0
"""Daemons that end by themselves save what `coverage` measured in them."""


class Reporter:
    """Selects and orders the tests, and writes what becomes of each as a JSON line."""

    def __init__(self, out: Path, wanted: list[str] | None, seconds: float) -> None:
        self._out = out.open("w")
        self._wanted = wanted
        self._end = time.monotonic() + seconds
        self._session: pytest.Session | None = None
        self._seconds = 0.0
        self._failed = False

    def write(self, **record: Any) -> None:
        """One record, on the disk when this returns."""
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()

    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        """Keep the wanted ones in the wanted order.

        The name of a case may hold a value that is mutated: where one is not found, the other
        cases of its test stand in for it.
        """
        self._session = session
        if self._wanted is None:
            return
        known = {item.nodeid for item in items}
        missing = {_function(test) for test in self._wanted if test not in known}
        order = {test: index for index, test in enumerate(self._wanted)}
        rest = len(order)
        items[:] = [i for i in items if i.nodeid in order or _function(i.nodeid) in missing]
        items.sort(key=lambda item: order.get(item.nodeid, rest))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._seconds, self._failed = 0.0, False
        self.write(begun=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Set-up, call and tear-down count as one."""
        self._seconds += report.duration
        self._failed = self._failed or report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is over."""
        self.write(test=nodeid, seconds=round(self._seconds, 3), failed=self._failed)
        if self._session is not None and time.monotonic() > self._end:
            self._session.shouldstop = "time"


def _function(test: str) -> str:
    return test.split("[", maxsplit=1)[0]


class Contexts:
    """Tells `coverage` what is being executed: a test, or a fixture that serves several."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._numbers: dict[str, str] = {}
        self._now = ""

    def _switch(self, name: str) -> str:
        import coverage

        measuring = coverage.Coverage.current()
        assert measuring is not None, "coverage does not measure this process"
        before, self._now = self._now, name
        number = self._numbers.setdefault(name, str(len(self._numbers))) if name else ""
        measuring.switch_context(number)
        os.environ["MUTANTS_CONTEXT"] = number
        return before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """From set-up to tear-down; what an earlier test left in a cache would hide lines."""
        _forget_cached()
        self._switch(item.nodeid)
        known = getattr(item, "_fixtureinfo", None)
        found = known.name2fixturedefs.values() if known else ()
        shared = [_name(last) for *_, last in found if last.scope != "function"]
        numbers = [self._numbers.setdefault(n, str(len(self._numbers))) for n in shared]
        self._reporter.write(contexts=[self._numbers[item.nodeid], *numbers], of=item.nodeid)
        try:
            return (yield)
        finally:
            self._switch("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        """A fixture of a module is executed once, and serves all tests that ask for it."""
        if fixturedef.scope == "function":
            return (yield)
        before = self._switch(_name(fixturedef))
        try:
            return (yield)
        finally:
            self._switch(before)


def _name(fixture: Any) -> str:
    return f"{fixture.baseid}::{fixture.argname}"


def _forget_cached() -> None:
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] in _ROOMS]
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, _CACHE):
            value.cache_clear()


def run(request: dict[str, Any], *, mapped: bool) -> int:
    """Run the tests of a request in this process; returns pytest's exit code."""
    reporter = Reporter(
        Path(request["out"]), request.get("tests"), request.get("seconds", math.inf)
    )
    plugins: list[object] = [reporter, Contexts(reporter)] if mapped else [reporter]
    code = int(pytest.main(request["arguments"], plugins=plugins))
    reporter.write(code=code)
    return code


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run a request in a child of its own session, `limit` seconds at most."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _become_child(request)
    hung = False
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() - began > request["limit"]:
            hung = True
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(_POLL_SECONDS)
    end_descendants()
    return {"hung": hung, "seconds": round(time.monotonic() - began, 3)}


def _become_child(request: dict[str, Any]) -> None:
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        run(request, mapped=False)
    finally:
        os._exit(0)


def end_descendants() -> None:
    """Kill what tests left behind, daemons too: this process adopts them."""
    for _ in range(100):
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(_POLL_SECONDS)


def main() -> int:
    """Serve until stdin ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if sys.argv[1:] == ["map"]:
        code = run(json.loads(sys.stdin.readline()), mapped=True)
        psutil.wait_procs(psutil.Process().children(recursive=True), timeout=_GRACE_SECONDS)
        end_descendants()
        return code
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print while they load
    for library in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.freeze()  # a collection in a child would copy every page that holds an object
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
