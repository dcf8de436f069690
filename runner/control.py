"""Requests from people to a run: one file each, bound to one attempt.

A request names a verb; whoever obeys it answers with a file of the same name. A request for
another attempt is answered as ignored: a stale stop never touches a resumed run.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from profiles import durable
from profiles.errors import ExitCode, UserError
from profiles.rundir import RunDir, read_json
from profiles.state import State, status

VERBS = ("stop", "stop_now", "pause", "unpause", "checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as read from its file."""

    path: Path
    verb: str
    attempt: int


def send(run: RunDir, verb: str) -> None:
    """Ask the live attempt of `run` for `verb`; UserError if nothing is there to obey."""
    now = status(run)
    if now.state.is_over or now.state is State.ELSEWHERE:
        raise UserError(
            f"cannot {verb.replace('_', ' ')}: the run is {now.state}",
            why=now.reason or "no process works on it",
            do="`advisor resume` goes on from the last checkpoint"
            if now.state.is_over
            else "ask on the host that runs it",
            where=str(run.path),
            code=ExitCode.USAGE,
        )
    request = {
        "v": 1,
        "run": run.id,
        "attempt": now.attempt,
        "verb": verb,
        "by": f"uid {os.getuid()}",
        "t": time.time(),
    }
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    try:
        durable.write_json(run.requests / name, request)
    except OSError as error:
        raise UserError(
            f"the request could not be left: {error.strerror}",
            why="a request is a file in the run's directory",
            do="make room there, or ask as the user who started the run",
            where=str(run.requests),
            code=ExitCode.IO_ERROR,
        ) from error


def pending(run: RunDir) -> list[Request]:
    """Unanswered requests, oldest first; files of other users and damaged files are passed over."""
    found = []
    for path in sorted(_request_files(run)):
        content = read_json(path)
        if content is None or content.get("run") != run.id or content.get("verb") not in VERBS:
            continue
        attempt = content.get("attempt")
        if isinstance(attempt, int):
            found.append(Request(path=path, verb=str(content["verb"]), attempt=attempt))
    return found


def _request_files(run: RunDir) -> list[Path]:
    try:
        entries = list(os.scandir(run.requests))
    except OSError:
        return []
    return [Path(e.path) for e in entries if _is_request(e)]


def _is_request(entry: os.DirEntry[str]) -> bool:
    if not entry.name.endswith(".json") or entry.name.startswith("."):
        return False
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:  # answered and taken away a moment ago
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()


def answer(run: RunDir, request: Request, result: str) -> None:
    """Record what became of a request, then take it away."""
    durable.write_json(
        run.answers / request.path.name,
        {"v": 1, "verb": request.verb, "result": result, "t": time.time()},
    )
    durable.disk.unlink(request.path)
