"""The real worker around a training that the test plays."""

from __future__ import annotations

import faulthandler
import signal
from unittest import mock

from runner.training import session, worker
from runner.training.heartbeat import Heartbeat


def train(run, act, *, beating=None):
    """The worker's exit code; `act` is called with attempt, recipe and folder as the session is.

    Heartbeats that were started are put into `beating`; no thread outlives the call, no handler.
    """
    hearts = [] if beating is None else beating

    class Session:
        """Plays the training."""

        def __init__(self, attempt, recipe, base_dir):
            self.given = attempt, recipe, base_dir

        def run_to_end(self):
            return act(*self.given)

    def start(heart):
        hearts.append(heart)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.object(session, "Session", Session),
            mock.patch.object(Heartbeat, "start", start),
        ):
            return worker.main(["worker", str(run.path)])
    finally:
        signal.signal(signal.SIGTERM, before)
        faulthandler.unregister(signal.SIGUSR2)


def raising(error):
    """A training that fails."""

    def fail(*_):
        raise error

    return fail
