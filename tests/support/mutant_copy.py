"""A copy of the project, with an environment of its own that imports the copy and nothing else.

The environment is a folder that looks like a virtual environment: a link to the same interpreter,
the installed commands, and one `.pth` file that names the copy first and then the packages of the
real environment. Commands and child processes of the tests find the copy too, `-P` or not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOMS: Final = ("tui", "runner", "advisor", "profiles")
_IGNORED: Final = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
LIBRARIES: Final = (
    *("textual.app", "textual.widgets", "hypothesis", "pydantic", "click", "rich.table"),
    *("torch", "datasets", "transformers.models.llama.modeling_llama", "peft", "trl"),
)
"""Slow to import, and not what is mutated."""
_SCRIPT: Final = Path("tests") / "support" / "forked_tests.py"
_START: Final = "import coverage; coverage.process_startup()"
_MEASURED: Final = f"import os; exec(os.getenv('COVERAGE_PROCESS_START') and {_START!r} or '')"
"""Python executes such a line of a `.pth` file when a process of the environment begins."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch of tests."""

    passed: tuple[str, ...]
    failed: str = ""
    """The test that failed, or during which the process died or hung."""
    fault: str = ""
    """"failed", "timed out", "died" or "not importable"; "" if nothing was wrong."""
    seconds: float = 0.0


class NotTheCopyError(RuntimeError):
    """Tests would import something else than the copy."""


class Copy:
    """The copied tree, its environment and, once it is needed, a process that runs tests there."""

    def __init__(self, root: Path, folder: Path, libraries: tuple[str, ...] = LIBRARIES) -> None:
        folder = folder.resolve()  # as coverage and `__file__` tell it
        self.tree = folder / "tree"
        self._libraries = libraries
        self._folder = folder
        self._texts: dict[str, str] = {}
        shutil.copytree(root, self.tree, ignore=_IGNORED)
        self.python = self._environment(folder / "env")
        self._server: subprocess.Popen[str] | None = None
        self._tick = int(time.time())

    def _environment(self, folder: Path) -> Path:
        real = Path(sys.prefix)
        if sys.prefix == sys.base_prefix:
            raise NotTheCopyError("run this by the Python of the project's virtual environment")
        packages = Path(site.getsitepackages()[0])
        ours = folder / packages.relative_to(real)
        ours.mkdir(parents=True)
        (ours / "copy.pth").write_text(f"{self.tree}\n{packages}\n{_MEASURED}\n")
        shutil.copy(real / "pyvenv.cfg", folder)
        commands = folder / "bin"
        commands.mkdir()
        python = commands / "python"
        python.symlink_to(Path(sys.executable).resolve())
        for command in (real / "bin").iterdir():
            text = command.read_bytes() if command.is_file() and not command.is_symlink() else b""
            if text.startswith(f"#!{real}".encode()):
                new = commands / command.name
                new.write_bytes(text.replace(f"#!{real}".encode(), f"#!{folder}".encode(), 1))
                new.chmod(0o755)
        return python

    def environ(self, **more: str) -> dict[str, str]:
        """For a process that uses the copy: nothing that could lead it elsewhere."""
        dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"}
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return kept | {"PYTHONSAFEPATH": "1"} | more

    def text(self, file: str) -> str:
        """What was copied, whatever is written now; the project may change meanwhile."""
        if file not in self._texts:
            self._texts[file] = (self.tree / file).read_text(encoding="utf-8")
        return self._texts[file]

    def write(self, file: str, text: str) -> None:
        """Put a text in the copy; compiled files of an earlier one are not taken for it."""
        self.text(file)
        path = self.tree / file
        path.write_text(text, encoding="utf-8")
        self._tick += 1
        os.utime(path, (self._tick, self._tick))

    def restore(self, file: str) -> None:
        """Put the text back that was copied."""
        self.write(file, self.text(file))

    def prove(self, file: str) -> None:
        """Raise NotTheCopyError unless processes import the copy, and `file` as it is changed.

        The canary is a file that raises at import. Whether tests notice it is for the caller.
        """
        places = self._ask_python(
            f"import {', '.join(ROOMS)}\nfor m in {ROOMS}: print(__import__(m).__file__)"
        )
        wanted = [str(self.tree / room / "__init__.py") for room in ROOMS]
        if places.split() != wanted:
            raise NotTheCopyError(f"processes import {places.split()}, not {wanted}")
        module = ".".join(Path(file).with_suffix("").parts)
        with self.canary(file):
            if "the canary" not in self._ask_python(f"import {module}"):
                raise NotTheCopyError(f"a canary in {file} is not what processes import")

    @contextlib.contextmanager
    def canary(self, file: str) -> Iterator[None]:
        """For a while, make a file raise when it is imported."""
        self.write(file, 'raise RuntimeError("the canary")\n')
        try:
            yield
        finally:
            self.restore(file)

    def _ask_python(self, code: str) -> str:
        done = subprocess.run(
            [self.python, "-P", "-c", code],
            cwd="/",
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def run(self, tests: list[str], limit: float, seconds: float | None = None) -> Outcome:
        """Run tests in this order up to the first failure.

        No test begins after `seconds`; what is not over after `limit` seconds hangs.
        """
        out = self._folder / "out.jsonl"
        out.unlink(missing_ok=True)
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        request = self._request(files, "-x") | {"tests": tests, "limit": limit}
        request |= {"seconds": seconds or limit}
        reply = self._ask_server(request)
        return _outcome(read_records(out), hung=reply["hung"], seconds=reply["seconds"])

    def _request(self, files: list[str], *arguments: str) -> dict[str, Any]:
        folder = self._folder
        quiet = (
            "-q",
            "-p",
            "no:cacheprovider",
            "--hypothesis-seed=0",
            f"--basetemp={folder / 't'}",
        )
        return {
            "arguments": [*files, *quiet, *arguments],
            "out": str(folder / "out.jsonl"),
            "log": str(folder / "log.txt"),
        }

    def _ask_server(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            self._server = subprocess.Popen(
                [self.python, _SCRIPT, *self._libraries],
                cwd=self.tree,
                env=self.environ(HYPOTHESIS_STORAGE_DIRECTORY=str(self._folder / "t" / "examples")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self._folder / "server.txt").open("w"),
                text=True,
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError((self._folder / "server.txt").read_text()[-2000:])
        return json.loads(line)

    def measure(self, test_file: str, settings: Path, *arguments: str) -> list[dict[str, Any]]:
        """Run a whole file of tests under `coverage`; returns the records of what was run."""
        out = self._folder / "out.jsonl"
        out.unlink(missing_ok=True)
        subprocess.run(
            [self.python, _SCRIPT, "map"],
            cwd=self.tree,
            env=self.environ(COVERAGE_PROCESS_START=str(settings)),
            input=json.dumps(self._request([test_file], *arguments)) + "\n",
            stdout=(self._folder / "log.txt").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        records = read_records(out)
        if not any("code" in record for record in records):
            raise RuntimeError((self._folder / "log.txt").read_text()[-2000:])
        return records

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            self._server.communicate()


def read_records(out: Path) -> list[dict[str, Any]]:
    """JSON lines, up to one that a killed process left unfinished."""
    records = []
    for line in out.read_text().splitlines() if out.exists() else []:
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def _outcome(records: list[dict[str, Any]], *, hung: bool, seconds: float) -> Outcome:
    done = [record for record in records if "test" in record]
    passed = tuple(record["test"] for record in done if not record["failed"])
    failed = [record["test"] for record in done if record["failed"]]
    begun = [record["begun"] for record in records if "begun" in record]
    codes = [record["code"] for record in records if "code" in record]
    last = begun[-1] if begun else ""
    if failed:
        return Outcome(passed, failed[0], "failed", seconds)
    if hung or not codes:
        return Outcome(passed, last, "timed out" if hung else "died", seconds)
    stopped = codes[0] == 2 and bool(done)  # no test begins any more, for want of time
    wrong = codes[0] not in (0, 5) and not stopped  # 5: none of the tests was collected
    return Outcome(passed, "", "not importable" if wrong else "", seconds)
