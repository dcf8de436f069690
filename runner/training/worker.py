"""The training process: one attempt of one run, from its recipe copy to the final artefact.

Run as `python -P -m runner.training.worker RUN_DIR`, or once a rank under torchrun. Everything it
says goes to the run directory; its exit code says how it ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from advisor import recipe as recipes
from profiles import installation
from profiles.errors import ExitCode, UserError
from profiles.models import chat_template
from profiles.runs import advice, durable, identity, locks, recipe_copy, rundir
from profiles.runs.journal import Journal, SilentJournal, read_all
from profiles.runs.records.supervisor import Restarted, SupervisorStarted
from profiles.runs.records.worker import End, StopAccepted, WorkerStarted
from profiles.runs.rundir import RunDir, read_json
from profiles.runs.state import State
from runner.supervision import console
from runner.training import room
from runner.training.attempt import Attempt
from runner.training.heartbeat import Heartbeat
from runner.training.stopping import StopEarly, StopFlag


def main(argv: list[str]) -> int:
    """Train; returns the exit code."""
    run = RunDir(Path(argv[1]))
    lock = os.open(run.worker_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE_FILE)
    locks.take(lock, fcntl.LOCK_SH)  # until this process ends, however it ends
    _show_stacks_on_request(run)
    stop = StopFlag()
    stop.install()
    try:
        installation.check()
        installation.check_floors()
        return _train(run, stop)
    except StopEarly:  # before anything was begun
        return int(ExitCode.STOPPED)
    except UserError as error:
        _record(run, error)
        return int(error.code)
    except Exception as error:  # noqa: BLE001  # the last line of defence turns it into a report
        traceback.print_exc()
        explained = _explain(run, error)
        _record(run, explained)
        return int(explained.code)


def _show_stacks_on_request(run: RunDir) -> None:
    """SIGUSR2 (SIGUSR1 is NCCL's) writes where every thread stands, even if Python hangs."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        stacks = os.open(run.stacks, flags, durable.PRIVATE_FILE)
        faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)


def _train(run: RunDir, stop: StopFlag) -> int:
    recipe = recipes.parse(recipe_copy.text_of(run), where=str(run.recipe))
    is_main = int(os.environ.get("RANK", "0")) == 0
    number = run.attempt()
    chat_template.set_now(rundir.created(run))  # the same rows in every attempt
    events = Journal(run.worker_events, attempt=number) if is_main else SilentJournal()
    metrics, evaluations, layers = (
        Journal(path, attempt=number) if is_main else SilentJournal()
        for path in (run.metrics, run.evaluations, run.layers)
    )
    me = identity.of_process(os.getpid())
    events.append(WorkerStarted(pid=os.getpid(), start=me.start if me else None))
    heartbeat = Heartbeat(run, events, stop)
    if is_main:
        heartbeat.start()
    attempt = Attempt(
        run=run,
        events=events,
        metrics=metrics,
        evaluations=evaluations,
        layers=layers,
        progress=heartbeat,
        stop=stop,
        began=_began(run, number),
    )
    try:
        with attempt.during("importing"):  # torch: not before a sign of life
            from runner.training.session import Session  # noqa: PLC0415
        return Session(attempt, recipe, run.base_dir()).run_to_end()
    except StopEarly:
        events.append(StopAccepted(step=heartbeat.step, verb="stop"))
        events.append(End(state=State.STOPPED, step=heartbeat.step))
        return int(ExitCode.STOPPED)


def _began(run: RunDir, attempt: int) -> float:
    """When the supervisor began the attempt, by the monotonic clock; else now."""
    mine = [e for e in read_all(run.supervisor_events) if e.attempt == attempt]
    began = [e.monotonic_seconds for e in mine if isinstance(e, SupervisorStarted | Restarted)]
    return min(began[-1], time.monotonic()) if began else time.monotonic()


def _explain(run: RunDir, error: Exception) -> UserError:
    """Our own words for what a library raised."""
    if "torch" in sys.modules:  # what failed may be its import
        from runner.training import oom  # noqa: PLC0415

        lacking = oom.shortage(error)
        if lacking is oom.Shortage.GPU:
            return _gpu_memory(run, error)
        if lacking is oom.Shortage.HOST:
            return _host_memory(run, error)
    if room.is_file_limit(error):
        return _file_limit(run, error)
    if isinstance(error, OSError):
        return UserError(
            f"reading or writing failed: {error.strerror or error}",
            why=str(error),
            do=f"check space and permissions there, then {advice.command('resume', run)}",
            where=str(error.filename or run.path),
            code=ExitCode.IO_ERROR,
        )
    return UserError(
        f"training failed: {type(error).__name__}: {error}",
        why="this is not a fault we know how to explain",
        do="the console log has the traceback; please report it with the recipe",
        where=str(run.console),
        code=ExitCode.INTERNAL,
    )


def _file_limit(run: RunDir, error: Exception) -> UserError:
    return UserError(
        "a file may not grow as large as a checkpoint is",
        why=f"{str(error)[:200]}: the user's limit (ulimit -f), or that of the file system",
        do="start it where `ulimit -f` says unlimited, on a file system that takes large files; "
        f"{advice.command('resume', run)} goes on",
        where=str(getattr(error, "filename", None) or "the run directory"),
        code=ExitCode.IO_ERROR,
    )


def _gpu_memory(run: RunDir, error: Exception) -> UserError:
    return UserError(
        "the GPU ran out of memory",
        why=str(error).split(". ", maxsplit=1)[0],
        do="halve train.micro_batch and double train.accumulation (same effective batch), set "
        "train.checkpointing = true, or lower data.max_length",
        where=str(run.console),
        code=ExitCode.GPU_OOM,
    )


def _host_memory(run: RunDir, error: Exception) -> UserError:
    return UserError(
        "the machine ran out of memory",
        why=str(error).split("\n", maxsplit=1)[0] or type(error).__name__,
        do="lower train.workers, close what else runs there, or give the container more memory "
        "(and shared memory: --shm-size)",
        where=str(run.console),
        code=ExitCode.HOST_OOM,
    )


def _record(run: RunDir, error: UserError) -> None:
    print(f"error: {error.what}\n{error.why}", file=sys.stderr)  # noqa: T201  # the console log
    attempt = run.attempt()
    known = read_json(run.error)
    if known is not None and known.get("attempt") == attempt:
        return  # another rank failed first; what this one says is the consequence
    with contextlib.suppress(OSError):  # a full disk must not cost the exit code
        durable.write_json(run.error, {"attempt": attempt, **error.as_dict()})


if __name__ == "__main__":
    console.print_what_fits()
    sys.exit(main(sys.argv))
