"""The training process from its start to its exit code, with a session that the test plays."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

import pytest

pytest.importorskip("torch")

import played
import real_runs
from stand_ins import Clock

from profiles import installation
from profiles.errors import ExitCode
from profiles.models import chat_template
from profiles.runs import durable, identity, locks
from profiles.runs import journal as journals
from profiles.runs.journal import Journal, read_all
from profiles.runs.records.metrics import Loss
from profiles.runs.records.supervisor import (
    Restarted,
    SupervisorStarted,
    WorkerSpawned,
)
from profiles.runs.records.worker import End, Phase, StopAccepted, WorkerStarted
from profiles.runs.rundir import read_json
from profiles.runs.state import State
from runner.training import worker
from runner.training.stopping import StopEarly


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


@pytest.fixture
def beating():
    """Heartbeats that were started."""
    return []


@pytest.fixture
def train(run, beating):
    """Run the worker; what is given plays the training. Returns the exit code."""
    return partial(played.train, run, beating=beating)


def events(run):
    """What the worker wrote down."""
    return list(read_all(run.worker_events))


def test_an_attempt_is_trained_with_the_recipe_of_the_run(train, run, beating):
    """From the place where its paths begin; the exit code is the session's."""
    seen = []

    def act(attempt, recipe, base_dir):
        seen.append((attempt.run.path, recipe.name, str(base_dir), attempt.progress, attempt.stop))
        attempt.metrics.append(Loss(step=1, loss=2.0))
        attempt.evaluations.append(Loss(step=2, loss=2.0))
        return 0

    assert train(act) == 0

    ((path, name, base, progress, stop),) = seen
    assert (path, name, base) == (run.path, "tiny", "/")
    assert beating == [progress]
    assert not stop.asked
    assert [e.step for e in read_all(run.metrics)] == [1]
    assert [e.step for e in read_all(run.evaluations)] == [2]
    assert read_json(run.error) is None


@pytest.mark.parametrize("code", [0, 75])
def test_how_training_ended_is_the_exit_code(train, code):
    """Finished or stopped."""
    assert train(lambda *_: code) == code


def test_the_worker_says_who_it_is_and_that_it_imports_torch(train, run):
    """An identity, not only a number that another process may have next; of this attempt."""
    durable.write_atomic(run.attempt_file, b"4\n")

    train(lambda *_: 0)

    me = identity.of_process(os.getpid())
    started, importing = events(run)
    assert isinstance(started, WorkerStarted)
    assert (started.pid, started.start, started.attempt) == (os.getpid(), me.start, 4)
    assert isinstance(importing, Phase)
    assert importing.phase == "importing"


def test_records_belong_to_the_attempt_that_writes_them(train, run):
    """In all three files."""
    durable.write_atomic(run.attempt_file, b"3\n")

    def act(attempt, *_):
        for journal in (attempt.events, attempt.metrics, attempt.evaluations):
            journal.append(Loss(step=1, loss=2.0))
        return 0

    train(act)

    for path in (run.worker_events, run.metrics, run.evaluations):
        assert {e.attempt for e in read_all(path)} == {3}


@pytest.mark.parametrize(("rank", "writes"), [("0", True), ("1", False), ("2", False)])
def test_only_the_first_rank_writes_and_beats(train, run, beating, monkeypatch, rank, writes):
    """The others would write into the same files."""
    monkeypatch.setenv("RANK", rank)

    def act(attempt, *_):
        attempt.metrics.append(Loss(step=1, loss=2.0))
        return 0

    assert train(act) == 0

    assert bool(events(run)) is writes
    assert bool(list(read_all(run.metrics))) is writes
    assert bool(beating) is writes


def test_the_run_is_locked_while_the_worker_lives(train, run):
    """Readers see that somebody works on it."""
    assert train(lambda *_: 75 if locks.is_held(run.worker_lock) else 0) == 75


def somewhere_else(began, over):
    """What another thread does meanwhile."""
    began.set()
    over.wait(60)


def test_a_signal_shows_where_all_threads_stand(train, run):
    """Even if Python hangs."""
    began, over = threading.Event(), threading.Event()

    def act(*_):
        other = threading.Thread(target=somewhere_else, args=(began, over))
        other.start()
        began.wait(60)
        os.kill(os.getpid(), signal.SIGUSR2)
        over.set()
        other.join()
        return 0

    train(act)

    text = run.stacks.read_text()
    assert "in act" in text
    assert "in somewhere_else" in text


def test_the_attempt_began_with_its_supervisor(train, run, monkeypatch):
    """Of several processes of an attempt with the last; other attempts and records are others."""
    clock = Clock(100.0)
    monkeypatch.setattr(journals, "time", clock)
    monkeypatch.setattr(worker, "time", Clock(500.0))
    for attempt, records in (
        (1, [SupervisorStarted(pid=1)]),
        (2, [SupervisorStarted(pid=2), Restarted(number=1, of=2, what="x"), WorkerSpawned(pid=3)]),
        (3, [SupervisorStarted(pid=4)]),
    ):
        journal = Journal(run.supervisor_events, attempt=attempt)
        for record in records:
            journal.append(record)
            clock.sleep(1)
        journal.close()
    durable.write_atomic(run.attempt_file, b"2\n")
    began = []

    train(lambda attempt, *_: began.append(attempt.began) or 0)

    assert began == [102.0]


@pytest.mark.parametrize("known", [True, False])
def test_an_attempt_began_at_the_latest_now(train, run, monkeypatch, known):
    """Where no supervisor told, or one on a machine that has run for longer."""
    monkeypatch.setattr(worker, "time", Clock(500.0))
    if known:
        Journal(run.supervisor_events, attempt=1).append(SupervisorStarted(pid=1))
        (started,) = read_all(run.supervisor_events)
        monkeypatch.setattr(worker, "time", Clock(started.monotonic_seconds - 1))
    began = []

    train(lambda attempt, *_: began.append(attempt.began) or 0)

    assert began == [started.monotonic_seconds - 1 if known else 500.0]


def test_a_stop_before_there_is_anything_to_save_ends_the_run_as_stopped(train, run):
    """Code 75, with the step that was reached; no error is left."""

    def act(attempt, *_):
        attempt.progress.end_step(3, 1.0)
        raise StopEarly

    assert train(act) == ExitCode.STOPPED

    accepted, end = events(run)[-2:]
    assert isinstance(accepted, StopAccepted)
    assert (accepted.step, accepted.verb) == (3, "stop")
    assert isinstance(end, End)
    assert (end.state, end.step) == (State.STOPPED, 3)
    assert read_json(run.error) is None


def test_a_signal_before_anything_was_begun_stops_too(train, run, monkeypatch):
    """The handler is there before the first check."""

    def check():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(installation, "check", check)

    assert train(lambda *_: 0) == ExitCode.STOPPED
    assert events(run) == []
    assert read_json(run.error) is None


def test_a_template_that_writes_the_date_writes_that_of_the_run_in_every_attempt(
    train, run, monkeypatch
):
    """One that goes on the next day reads the rows that it began with."""
    monkeypatch.setattr(chat_template, "_moment", [])
    durable.write_json(run.manifest, read_json(run.manifest) | {"created": 946728000.0})
    seen = []

    def act(*_):
        dated = chat_template.ChatTemplate("{{ strftime_now('%d %B %Y') }}")
        seen.append(dated.render([])[0])
        return 0

    assert train(act) == 0
    assert seen == ["01 January 2000"]


def test_dates_are_written_as_transformers_writes_them():
    """In all that a template may ask for."""
    from transformers.utils.chat_template_utils import render_jinja_template

    source = "{{ strftime_now('%d %B %Y, %A %j %y-%m %p') }}|{{ strftime_now('%f') }}"
    ((theirs,), _) = render_jinja_template(
        [[{"role": "user", "content": "x"}]], chat_template=source
    )
    ours, _ = chat_template.ChatTemplate(source).render([{"role": "user", "content": "x"}])

    assert ours.partition("|")[0] == theirs.partition("|")[0]
    assert [len(one.partition("|")[2]) for one in (ours, theirs)] == [6, 6]
