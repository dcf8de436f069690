"""The run directory (layout: run protocol §3.2): its files' names, and how one is made."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles import installation
from profiles.errors import ExitCode, UserError
from profiles.runs import durable, identity, reading
from profiles.runs.identity import Identity

SCHEMA = 1
SURROUNDINGS = "surroundings"
"""Of the manifest: what around the run changes the bits of its result, name by name."""
NUM_ROOMS, ROOM_BYTES = 4, 4096
"""Of the kept files, and of each; no request is longer."""
_COMMANDS = {"stop_now": "stop --now", "unpause": "resume"}
"""For verbs that are no command by their own name."""
_END_OF_TIME = 1e11  # Unix time; what lies beyond it is no date
_EXCLUSIVE = os.O_CREAT | os.O_EXCL
_SLUG_LENGTH, _BASE32 = 40, "abcdefghijklmnopqrstuvwxyz234567"
_CLAIM = re.compile(r"[1-9][0-9]{0,8}")
_ID_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{4}_[a-z0-9-]+_[a-z2-7]{5}")


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the files of one run. Each file has one writer, named beside it."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id, which is its directory's name."""
        return self.path.name

    @property
    def end(self) -> str:
        """The end of the id, which mostly is enough to name the run; all of a name of one's own."""
        return self.id.rpartition("_")[2] if has_id(self.id) else self.id

    @property
    def manifest(self) -> Path:
        """run.json: what was started, written once (launcher)."""
        return self.path / "run.json"

    @property
    def recipe(self) -> Path:
        """Byte-exact copy of the recipe (launcher)."""
        return self.path / "recipe.toml"

    @property
    def recipe_lock(self) -> Path:
        """Resolved hashes and versions (worker)."""
        return self.path / "recipe.lock.json"

    @property
    def attempt_file(self) -> Path:
        """Number of the current attempt (launcher)."""
        return self.path / "attempt"

    @property
    def claims(self) -> Path:
        """One file an attempt, made exclusively: who makes it may start that attempt.

        It holds the identity of who did (empty: an older version's, or there was no room).
        """
        return self.path / "attempts"

    @property
    def devices(self) -> Path:
        """devices.json: the GPUs that an attempt was given anew (launcher)."""
        return self.path / "devices.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor and every descendant."""
        return self.path / "lock"

    @property
    def worker_lock(self) -> Path:
        """Held by every training process: torchrun's ranks inherit no open file."""
        return self.path / "lock.worker"

    @property
    def processes(self) -> Path:
        """proc.json: identities of supervisor and worker (supervisor)."""
        return self.path / "proc.json"

    @property
    def supervisor_events(self) -> Path:
        """Events of the supervisor."""
        return self.path / "events.sup.jsonl"

    @property
    def worker_events(self) -> Path:
        """Events of the worker."""
        return self.path / "events.runner.jsonl"

    @property
    def metrics(self) -> Path:
        """Steps, losses and evaluations (worker)."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """Device and process samples, one a second (sampler)."""
        return self.path / "samples.jsonl"

    @property
    def evaluations(self) -> Path:
        """The losses of all rows in each evaluation (worker)."""
        return self.path / "evaluations.jsonl"

    @property
    def layers(self) -> Path:
        """What the layers of the model do, every so many steps (worker)."""
        return self.path / "layers.jsonl"

    @property
    def supervisor_heartbeat(self) -> Path:
        """Proof of life of the supervisor."""
        return self.path / "hb.sup"

    @property
    def worker_heartbeat(self) -> Path:
        """Proof of life and progress of the worker."""
        return self.path / "hb.runner"

    @property
    def console(self) -> Path:
        """Raw output of the worker."""
        return self.path / "console.log"

    @property
    def requests(self) -> Path:
        """Requests from people, one file each."""
        return self.path / "control" / "in"

    @property
    def rooms(self) -> Path:
        """Files kept for requests on a disk that is full (launcher; whoever sends or answers)."""
        return self.path / "control" / "tmp"

    @property
    def answers(self) -> Path:
        """What became of each request (worker)."""
        return self.path / "control" / "done"

    @property
    def stacks(self) -> Path:
        """Where each thread of a worker that hangs stood, on request (worker)."""
        return self.path / "stacks.log"

    @property
    def checkpoints(self) -> Path:
        """Committed checkpoints and staging (worker)."""
        return self.path / "checkpoints"

    @property
    def base(self) -> Path:
        """What is trained, where an adapter was merged into the recipe's model first (worker)."""
        return self.path / "base"

    @property
    def model(self) -> Path:
        """The final artefact, present only when complete (worker)."""
        return self.path / "model"

    @property
    def error(self) -> Path:
        """error.json: why the worker gave up (worker)."""
        return self.path / "error.json"

    @property
    def exit(self) -> Path:
        """exit.json: how the attempt ended (supervisor)."""
        return self.path / "exit.json"

    def base_dir(self) -> Path:
        """Where the recipe's relative paths begin: where the run was started.

        The run directory itself if the manifest does not say.
        """
        return reading.place(read_json(self.manifest) or {}, "base_dir") or self.path

    def attempt(self) -> int:
        """Number of the current attempt, the highest that was claimed; 1 for a fresh run."""
        try:
            written = reading.whole_of(reading.content(self.attempt_file).strip())
        except (OSError, ValueError):
            written = 1
        return max(written, *self._claimed(), 1)

    def _claimed(self) -> list[int]:
        try:
            return [int(p.name) for p in self.claims.iterdir() if _CLAIM.fullmatch(p.name)]
        except OSError:
            return []

    def claim(self, attempt: int) -> bool:
        """Take an attempt for oneself; False if somebody was first. OSError if it cannot be kept.

        Correct without locks, which some network file systems grant to everybody
        (huggingface_hub#4306): one of many simultaneous exclusive creations succeeds.
        """
        if not self.claims.is_dir():
            with contextlib.suppress(FileExistsError):  # made by somebody else a moment ago
                durable.make_dir(self.claims)
        try:
            fd = durable.disk.open(self.claims / str(attempt), os.O_WRONLY | _EXCLUSIVE)
        except FileExistsError:
            return False
        try:
            _sign(fd)
        finally:
            os.close(fd)
        durable.sync_dir(self.claims)
        return True

    def starter(self, attempt: int) -> Identity | None:
        """Who claimed the attempt; None if that was not written down."""
        return identity.from_dict(read_json(self.claims / str(attempt)))


def _sign(claim: int) -> None:
    """Say who made the claim, so that nobody has to guess by the age of the file."""
    me = identity.of_process(os.getpid())
    if me is not None:
        with contextlib.suppress(OSError):  # it counts without a word, too
            durable.disk.write(claim, durable.json_bytes(me.as_dict()))
            durable.disk.fsync(claim)


def has_id(name: str) -> bool:
    """A folder of this name was made for a run, as `create` names them."""
    return _ID_PATTERN.fullmatch(name) is not None


def run_root() -> Path:
    """The directory of all runs."""
    return installation.home() / "runs"


def create(name: str) -> RunDir:
    """Make a fresh run directory under the root; its name is taken exclusively."""
    root = run_root()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_LENGTH] or "run"
    stamp = time.strftime("%Y-%m-%d_%H%M")
    suffix = "".join(secrets.choice(_BASE32) for _ in range(5))
    path = root / f"{stamp}_{slug}_{suffix}"
    try:
        root.mkdir(mode=durable.PRIVATE_DIR, parents=True, exist_ok=True)
        durable.make_dir(path)
        for part in ("control", "control/in", "control/done", "control/tmp", "checkpoints"):
            durable.make_dir(path / part)
    except OSError as error:
        raise UserError(
            f"cannot create a run directory: {error.strerror}",
            why="every run keeps its files in a directory of its own",
            do="make that place writable, or set TUNEDECK_HOME to one that is",
            where=str(root),
            code=ExitCode.CANNOT_CREATE,
        ) from error
    return RunDir(path)


def keep_rooms(run: RunDir) -> None:
    """Room for requests on a disk that is full later, where there is none; OSError without any."""
    if not any(run.rooms.iterdir()):
        for number in range(NUM_ROOMS):
            durable.keep_room(run.rooms / f"room-{number}", ROOM_BYTES)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's directory, wherever it lies, by its manifest."""
    return {"id", "base_dir"} <= set(read_json(RunDir(folder).manifest) or {})


def created(run: RunDir) -> float:
    """Unix time of the run's creation; if its manifest is damaged, of its folder's last change."""
    value = reading.number(read_json(run.manifest) or {}, "created")
    if value is not None and abs(value) < _END_OF_TIME:
        return value
    try:
        return run.path.stat().st_mtime
    except OSError:
        return 0.0


def refuse_newer(run: RunDir) -> None:
    """UserError if the run was made by a newer version: this one may show it, not touch it."""
    manifest = read_json(run.manifest) or {}
    schema = manifest.get("schema", SCHEMA)
    if isinstance(schema, int) and schema <= SCHEMA:
        return
    theirs, ours = manifest.get("tool_version", "a newer version"), installation.version()
    raise UserError(
        f"run made by tunedeck {theirs}, you have {ours}: view only",
        why=f"its files follow schema {schema}, this version knows up to {SCHEMA}",
        do="use the version that made it, or a newer one",
        where=str(run.manifest),
        code=ExitCode.NEWER_SCHEMA,
    )


def owner(run: RunDir) -> str:
    """The name of the user whose run it is, or the number of one without."""
    uid = run.path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"  # as sudo takes it


def refuse_foreign(run: RunDir, verb: str) -> None:
    """UserError (REFUSED) if the run is another user's, whatever this one may do.

    Files that root made in it would lock its user out, and a run obeys its own user alone.
    """
    if run.path.stat().st_uid == os.geteuid():
        return
    theirs, path = owner(run), shlex.quote(str(run.path.absolute()))
    raise UserError(
        f"cannot {verb.replace('_', ' ')}: the run belongs to {theirs}",
        why="files of another user in its folder would lock its own user out",
        do=f"as that user: sudo -u {shlex.quote(theirs)} advisor {_COMMANDS.get(verb, verb)} {path}"
        f"; `advisor run {path}` starts a run of your own",
        where=str(run.path),
        code=ExitCode.REFUSED,
    )


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if the file is missing or damaged."""
    try:
        return reading.json_object(path)
    except OSError:
        return None
