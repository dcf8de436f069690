"""Requests from people to a run: one file each, bound to one attempt.

A request names a verb; whoever obeys it answers with a file of the same name. A request for
another attempt is answered as ignored: a stale stop never touches a resumed run. Only files of the
user who owns the run count, in a directory that nobody else can write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from profiles.errors import ExitCode, UserError
from profiles.runs import advice, caveats, durable, heartbeats, rundir
from profiles.runs.journal import read_all
from profiles.runs.records.evaluation import Published
from profiles.runs.rundir import RunDir, read_json
from profiles.runs.state import State, Status, status

VERBS = ("stop", "stop_now", "pause", "unpause", "checkpoint", "change")
CHANGES = ("log_every", "eval_every")
"""What `change` can set, in steps."""
STOPS = ("stop", "stop_now")
TOO_LATE = "too late: all steps are made, the run is finishing"
OVER = "too late: the run is over"
_VERSION = 1
_MOST_STEPS = 1 << 31
_LIFE_SECONDS = 72 * 3600.0
"""A request that nobody could answer for so long is no longer meant; the clock may be set by a day
meanwhile."""
_ROOM = "room-"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_answered: set[str] = set()
"""Requests of this process's run whose file could not be taken away: the disk does not obey."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as read from its file."""

    path: Path
    verb: str
    attempt: int
    id: str = ""
    not_after: float = float("inf")
    """Unix time after which it is no longer meant."""
    args: dict[str, int] = field(default_factory=dict)
    """Of `change`: what to set to what."""


def send(run: RunDir, verb: str, args: Mapping[str, int] = MappingProxyType({})) -> None:
    """Ask the live attempt of `run` for `verb`; UserError if nothing is there to obey."""
    rundir.refuse_newer(run)
    now = status(run)
    if not now.state.obeys:
        raise _nobody_obeys(run, verb, now)
    rundir.refuse_foreign(run, verb)
    if verb != "stop_now" and _is_finishing(run, now.attempt):
        raise UserError(
            f"too late to {verb}: all steps are made",
            why="the result is being written, and held-out prompts are answered with it",
            do=f"wait for the end ({advice.command('watch', run)}), or give it up with "
            f"{advice.command('stop', run, '--now')}",
            where=str(run.path),
            code=ExitCode.USAGE,
        )
    if not _is_private(run.requests):
        raise UserError(
            "the request would not be read: its directory is not private",
            why="a run obeys only files that its own user alone can write",
            do=f"as the user who started the run: chmod 700 {run.requests.parent} {run.requests}",
            where=str(run.requests),
            code=ExitCode.REFUSED,
        )
    try:
        leave(run, verb, now.attempt, args)
    except OSError as error:
        raise UserError(
            f"the request could not be left: {error.strerror}",
            why="a request is a file in the run's directory",
            do="make room there, or ask as the user who started the run",
            where=str(run.requests),
            code=ExitCode.IO_ERROR,
        ) from error


def _is_finishing(run: RunDir, attempt: int) -> bool:
    """All steps are made, and what is left is to publish and to answer."""
    if heartbeats.of_worker(run).phase == "finishing":
        return True
    published = (e for e in read_all(run.worker_events) if isinstance(e, Published))
    return any(e.attempt == attempt for e in published)


def _nobody_obeys(run: RunDir, verb: str, now: Status) -> UserError:
    ways = {
        State.ELSEWHERE: "ask where it runs",
        State.UNKNOWN: _what_is_unread(run),
        State.DAMAGED: advice.of_damaged(run),
        State.FINISHED: f"{advice.command('profile', run)} shows how it went",
    }
    return UserError(
        f"cannot {verb.replace('_', ' ')}: the run is {now.state}",
        why=now.reason or now.notice or "no process works on it",
        do=ways.get(now.state, advice.going_on(run, now.resumable_from)),
        where=str(run.path),
        code=ExitCode.USAGE,
    )


def _what_is_unread(run: RunDir) -> str:
    """What helps where the state of a run cannot be read: some faults pass, others never do."""
    if odd := caveats.unreadable(run):
        return f"put regular files back in {run.path}: {'; '.join(odd)}"
    return f"{advice.command('watch', run)} shows when it can be read again"


def leave(
    run: RunDir, verb: str, attempt: int, args: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Write the request for this attempt, in kept room if need be; OSError if there is none."""
    now, name = time.time(), f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    request = {
        "v": _VERSION,
        "id": name,
        "run": run.id,
        "attempt": attempt,
        "verb": verb,
        "args": dict(args),
        "by": f"uid {os.getuid()}",
        "t": now,
        "not_after": now + _LIFE_SECONDS,
    }
    final, data = run.requests / f"{name}.json", durable.json_bytes(request)
    try:
        durable.write_atomic(final, data)
    except OSError as error:
        if error.errno not in _FULL or not _leave_in_room(run, final, data):
            raise


def _leave_in_room(run: RunDir, final: Path, data: bytes) -> bool:
    """By one of the files that were kept for this; False if none is left or helps."""
    for room in sorted(run.rooms.glob(f"{_ROOM}*")):
        mine = room.with_name(f"{durable.STAGING_PREFIX}{final.name}")
        with contextlib.suppress(OSError):
            durable.disk.rename(room, mine)  # of two who want it one gets it
            durable.fill_room(mine, final, data)
            return True
    return False


def _keep_room(run: RunDir, request: Request) -> bool:
    """Let the file of an answered request be room for another; False if there is enough."""
    with contextlib.suppress(OSError):
        rooms = len(list(run.rooms.glob(f"{_ROOM}*")))
        if rooms < rundir.NUM_ROOMS and request.path.stat().st_size <= rundir.ROOM_BYTES:
            durable.disk.rename(request.path, run.rooms / f"{_ROOM}{request.id}")
            return True
    return False


def waiting(run: RunDir) -> list[Request]:
    """Requests without an answer, oldest first, as any reader sees them.

    Files of other users and damaged files are passed over, all files if others can write there.
    """
    if not _is_private(run.requests):
        return []
    found = (_parse(run, path) for path in sorted(_request_files(run)))
    return [r for r in found if r is not None and r.path.name not in _answered]


def pending(run: RunDir) -> list[Request]:
    """What the worker has to answer, oldest first; it alone may call this.

    Expired requests, repeated ids and a second stop beside the first are answered here, as ignored.
    """
    now, found = time.time(), []
    ids, asked = set(), set()
    for request in waiting(run):
        again = request.id in ids or (run.answers / f"{request.id}.json").exists()
        if again:
            answer(run, request, "ignored: repeated")
        elif now > request.not_after:
            answer(run, request, "ignored: expired")
        elif (request.verb, request.attempt) in asked and not request.args:
            answer(run, request, "ignored: asked already")
        else:
            found.append(request)
        ids.add(request.id)
        asked.add((request.verb, request.attempt))
    return found


def _parse(run: RunDir, path: Path) -> Request | None:
    content = read_json(path) or {}
    attempt, verb, life = (content.get(k) for k in ("attempt", "verb", "not_after"))
    args = content.get("args") if verb == "change" else {}
    if content.get("run") != run.id or verb not in VERBS or not isinstance(attempt, int):
        return None
    if not isinstance(args, dict) or not all(map(_can_change, args, args.values())):
        return None
    return Request(
        path=path,
        verb=str(verb),
        attempt=attempt,
        id=path.stem,  # what it says of itself may be no name of a file
        not_after=life if isinstance(life, int | float) else float("inf"),
        args=args,
    )


def _can_change(name: str, value: object) -> bool:
    return name in CHANGES and type(value) is int and 0 < value < _MOST_STEPS


def _is_private(folder: Path) -> bool:
    """A real directory of this user that nobody else can write, and its parent too."""
    try:
        found = [os.lstat(path) for path in (folder, folder.parent)]
    except OSError:
        return False
    return all(
        stat.S_ISDIR(one.st_mode) and one.st_uid == os.getuid() and not one.st_mode & 0o022
        for one in found
    )


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
    """Record what became of a request, then take it away; a full disk stops neither the run nor us.

    An answer that there is no room for is lost. A request that cannot be taken away is not obeyed
    twice by this process.
    """
    content = {"v": _VERSION, "id": request.id, "verb": request.verb, "result": result}
    told = run.answers / request.path.name
    with contextlib.suppress(OSError):
        if not told.exists():  # the first answer to an id stays
            durable.write_json(told, content | {"t": time.time()})
    try:
        if not _keep_room(run, request):
            durable.disk.unlink(request.path)
    except OSError:
        _answered.add(request.path.name)


def close(run: RunDir, attempt: int, result: str = OVER) -> None:
    """Answer what this attempt, which is over, and those before it left unanswered."""
    for request in waiting(run):
        if request.attempt <= attempt:
            answer(run, request, result)


def readdress(run: RunDir, attempts: range, attempt: int) -> None:
    """Let unanswered stops of these earlier attempts hold for this one; OSError without room."""
    for request in waiting(run):
        if request.verb in STOPS and request.attempt in attempts:
            leave(run, request.verb, attempt)
            answer(run, request, f"now for attempt {attempt}")
