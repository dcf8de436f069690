"""A torch-free worker that speaks the run protocol: steps of 20 ms, requests, checkpoints.

Run as `python double_worker.py RUN_DIR NUM_STEPS`.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from profiles import durable
from profiles.journal import Journal
from profiles.rundir import RunDir
from profiles.state import State
from runner import checkpoints, control


def save(run, events, step):
    """Commit a checkpoint with one file."""
    events.append("save_begun", step=step)
    staging = checkpoints.stage(run, step)
    (staging / "weights").write_text(str(step))
    checkpoints.commit(run, staging, step)
    events.append("checkpoint", step=step, seconds=0.0, bytes=1)


def main(run, num_steps):
    """Step from the newest checkpoint to the end, obeying requests."""
    attempt = run.attempt()
    events, metrics = (Journal(p, attempt=attempt) for p in (run.worker_events, run.metrics))
    events.append("worker_started")
    sound, _ = checkpoints.newest_sound(run)
    start = sound.step if sound else 0
    events.append("train_begun", step=start, num_steps=num_steps)
    for step in range(start + 1, num_steps + 1):
        time.sleep(0.02)
        metrics.append("step", sync=False, step=step)
        if step % 10 == 0:
            save(run, events, step)
        for request in control.pending(run):
            verb = request.verb if request.attempt == attempt else "ignored"
            control.answer(run, request, verb)
            if verb == "stop":
                save(run, events, step)
                return 75
    final = run.path / ".tmp-model"
    final.mkdir()
    durable.publish_dir(final, run.model)
    events.append("end", state=State.FINISHED, step=num_steps)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main(RunDir(Path(sys.argv[1])), int(sys.argv[2])))
