"""The training process: one attempt of one run, from its recipe copy to the final artefact.

Run as `python -P -m runner.worker RUN_DIR`, or once a rank under torchrun. Everything it says goes
to the run directory; its exit code says how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from advisor import recipe as recipes
from profiles import durable, installation
from profiles.errors import ExitCode, UserError
from profiles.journal import Journal, SilentJournal
from profiles.rundir import RunDir, read_json

_BEAT_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """Train; returns the exit code."""
    run = RunDir(Path(argv[1]))
    lock = os.open(run.worker_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE_FILE)
    fcntl.flock(lock, fcntl.LOCK_SH)  # until this process ends, however it ends
    try:
        installation.check()
        return _train(run)
    except UserError as error:
        _record(run, error)
        return int(error.code)
    except Exception as error:  # noqa: BLE001  # the last line of defence turns it into a report
        traceback.print_exc()
        explained = _explain(run, error)
        _record(run, explained)
        return int(explained.code)


def _train(run: RunDir) -> int:
    recipe = recipes.parse(run.recipe.read_text(), where=str(run.recipe))
    base_dir = Path(str((read_json(run.manifest) or {}).get("base_dir", run.path)))
    is_main = int(os.environ.get("RANK", "0")) == 0
    attempt = run.attempt()
    events = Journal(run.worker_events, attempt=attempt) if is_main else SilentJournal()
    metrics = Journal(run.metrics, attempt=attempt) if is_main else SilentJournal()
    events.append("worker_started", pid=os.getpid())
    heart = Heart(run, enabled=is_main)
    heart.start()
    from runner.session import Session  # noqa: PLC0415  # torch: not before the first sign of life

    return Session(run, recipe, base_dir, events, metrics, heart).run_to_end()


def _explain(run: RunDir, error: Exception) -> UserError:
    """Our own words for what a library raised."""
    torch = sys.modules.get("torch")  # what failed may be its import
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return UserError(
            "the GPU ran out of memory",
            why=str(error).split(". ", maxsplit=1)[0],
            do="halve train.micro_batch and double train.accumulation (same effective batch), set "
            "train.checkpointing = true, or lower data.max_length",
            where=str(run.console),
            code=ExitCode.GPU_OOM,
        )
    if isinstance(error, OSError):
        return UserError(
            f"reading or writing failed: {error.strerror or error}",
            why=str(error),
            do="check space and permissions there, then `advisor resume`",
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


def _record(run: RunDir, error: UserError) -> None:
    print(f"error: {error.what}\n{error.why}", file=sys.stderr)  # noqa: T201  # the console log
    attempt = run.attempt()
    known = read_json(run.error)
    if known is not None and known.get("attempt") == attempt:
        return  # another rank failed first; what this one says is the consequence
    with contextlib.suppress(OSError):  # a full disk must not cost the exit code
        durable.write_json(run.error, {"attempt": attempt, **error.as_dict()})


class Heart(threading.Thread):
    """Proof of life every two seconds, with the step and phase that training is in."""

    def __init__(self, run: RunDir, *, enabled: bool) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self.step = 0
        self.phase = "starting"
        self._run = run
        self._enabled = enabled

    def run(self) -> None:
        """Beat for ever; a full disk is no reason to stop training."""
        counter = 0
        while self._enabled:
            counter += 1
            try:
                line = f"{counter} {self.step} {self.phase}\n"
                durable.overwrite(self._run.worker_heartbeat, line.encode())
            except OSError:
                pass
            time.sleep(_BEAT_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
