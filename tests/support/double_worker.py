"""A torch-free worker that speaks the run protocol: steps of 20 ms, requests, checkpoints.

Run as `python double_worker.py RUN_DIR NUM_STEPS [HABIT...]`. Habits make it worse than it is:
`deaf` obeys no request but SIGTERM, `stone` not even that, `frozen` loses its heartbeat, `early`
ends with 0 after step 25, `sticky` asks for a clean process in each attempt before the last NUMBER
in TUNEDECK_DOUBLE_STICKY, `blocked` starts a data loader process that never leaves, `chatty` writes
progress bars.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from profiles.runs import durable, identity
from profiles.runs.journal import Journal
from profiles.runs.records.metrics import Step
from profiles.runs.records.worker import (
    Checkpoint,
    End,
    SaveBegun,
    StopAccepted,
    TrainBegun,
    WorkerStarted,
)
from profiles.runs.rundir import RunDir
from profiles.runs.state import State
from runner import checkpoints
from runner.supervision import control

STEP_SECONDS = 0.02
STEP = Step(
    step=0,
    seconds=STEP_SECONDS,
    phases={"other": STEP_SECONDS},
    rows=1,
    padded_tokens=1,
    tokens=1,
    label_tokens=1,
    longest=1,
    rss_peak_bytes=1,
)
CHATTER = ("\r" + "#" * 1000) * 1000 + "\n"


class Double:
    """One attempt."""

    def __init__(self, run, num_steps, habits):
        self.run, self.num_steps, self.habits = run, num_steps, habits
        self.attempt = run.attempt()
        files = (run.worker_events, run.metrics)
        self.events, self.metrics = (Journal(p, attempt=self.attempt) for p in files)
        self.asked_by_signal = False
        self.beats = 0

    def listen(self):
        """Set up signals as the worker does."""
        faulthandler.register(signal.SIGUSR2, file=self.run.stacks.open("a"))
        if "stone" not in self.habits:
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number, _frame):
        self.asked_by_signal = True

    def save(self, step):
        """Commit a checkpoint with one file."""
        self.events.append(SaveBegun(step=step))
        staging = checkpoints.stage(self.run, step)
        (staging / "weights").write_text(str(step))
        checkpoints.commit(self.run, staging, step)
        self.events.append(Checkpoint(step=step, seconds=0.0, bytes=1))

    def beat(self, step):
        """Rewrite the heartbeat, unless it is lost."""
        if "frozen" in self.habits and self.beats > 20:
            return
        self.beats += 1
        durable.overwrite(self.run.worker_heartbeat, f"{self.beats} {step} training\n".encode())

    def is_stopped(self, step):
        """Obey requests; True if one of them ends the run."""
        if not self.habits.isdisjoint(("deaf", "stone")):
            return self.asked_by_signal
        for request in control.pending(self.run):
            verb = request.verb if request.attempt == self.attempt else "ignored"
            control.answer(self.run, request, verb)
            if verb == "stop":
                self.events.append(StopAccepted(step=step, verb=verb))
                return True
        return self.asked_by_signal

    def train(self):
        """Step from the newest checkpoint to the end; returns the exit code."""
        me = identity.of_process(os.getpid())
        self.events.append(WorkerStarted(pid=os.getpid(), start=me.start))
        sound, _ = checkpoints.newest_sound(self.run)
        start = sound.step if sound else 0
        self.events.append(TrainBegun(step=start, num_steps=self.num_steps))
        if "blocked" in self.habits:
            # In a session of its own, as torchrun's ranks are: no signal to a group reaches it
            command = [sys.executable, "-c", "import time; time.sleep(600)"]
            subprocess.Popen(command, start_new_session=True)
        for step in range(start + 1, self.num_steps + 1):
            time.sleep(STEP_SECONDS)
            self.metrics.append(replace(STEP, step=step), sync=False)
            self.beat(step)
            if "chatty" in self.habits:
                sys.stdout.write(CHATTER)
                sys.stdout.flush()
            if step % 10 == 0:
                self.save(step)
            if self.is_stopped(step):
                self.save(step)
                return 75
            if "early" in self.habits and step == 25:
                return 0
            if "sticky" in self.habits and step >= start + 5 and self._gives_up():
                return 80
        return self.publish()

    def _gives_up(self):
        if self.attempt >= int(os.environ["TUNEDECK_DOUBLE_STICKY"]):
            return False
        error = {"attempt": self.attempt, "code": 80, "what": "out of memory", "why": "", "do": ""}
        durable.write_json(self.run.error, error | {"where": "", "clean_restart": True})
        return True

    def publish(self):
        """Give the result its name."""
        final = self.run.path / ".tmp-model"
        final.mkdir(exist_ok=True)
        durable.publish_dir(final, self.run.model)
        self.events.append(End(state=State.FINISHED, step=self.num_steps))
        return 0


if __name__ == "__main__":
    double = Double(RunDir(Path(sys.argv[1])), int(sys.argv[2]), set(sys.argv[3:]))
    double.listen()
    sys.exit(double.train())
