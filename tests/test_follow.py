"""What `advisor watch --plain` and `advisor runs` say of a run that needs attention."""

from __future__ import annotations

import on_disk
import pytest
from known import RECIPE

from profiles.errors import ExitCode
from profiles.runs import durable
from profiles.runs.journal import Journal, Tail
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.metrics import Loss
from profiles.runs.records.supervisor import Unresponsive
from profiles.runs.records.worker import Paused, Stalled
from profiles.runs.state import State, status
from tests.canned_run import canned_run, finish, step
from tui import follow, source
from tui.feed import Reader
from tui.live import LiveRun
from tui.pages import status as page


def said(path, record):
    """Let supervisor or worker say this."""
    Journal(path, attempt=1).append(record)


def test_a_notice_is_told_once_when_it_comes(monkeypatch):
    """From the supervisor's events too, which have no line of their own."""
    run = canned_run()
    said(run.supervisor_events, Unresponsive(seconds=61, what="no sign for 61 s"))
    polls = iter([None, None])
    monkeypatch.setattr(follow.time, "sleep", lambda _: next(polls, finish(run, "stopped", 20)))

    lines = list(follow._lines(run))

    assert lines.count("! no sign for 61 s") == 1


def test_what_the_curves_say_of_the_model_is_told_once(monkeypatch):
    """As the live screen tells it, while the run goes on."""
    run = canned_run(done=20)
    run.recipe.write_text(RECIPE)
    for at, loss in ((4, 3.2), (8, 4.4), (12, 4.6), (16, 4.8)):
        gain = (-0.3, -0.2, -0.1)
        said(run.worker_events, Evaluated(step=at, loss=loss, seconds=0.1, rows=9, gain=gain))
    polls = iter([lambda: None, lambda: None, lambda: finish(run, "stopped", 20)])
    monkeypatch.setattr(follow.time, "sleep", lambda _: next(polls)())

    lines = list(follow._lines(run))

    symptoms = LiveRun(run)
    symptoms.apply(Reader(run).poll())
    expected = [f"! {one.title}: {one.sentence}" for one in symptoms.symptoms()]
    assert expected
    assert [lines.count(one) for one in expected] == [1] * len(expected)


def test_what_an_event_said_is_not_repeated_as_a_notice(monkeypatch):
    """A pause with its reason is one line."""
    run = canned_run()
    said(run.worker_events, Paused(step=20, what="1.2 GB free, needs 3.4 GB"))
    monkeypatch.setattr(follow.time, "sleep", lambda _: finish(run, "stopped", 20))

    lines = [line for line in follow._lines(run) if "1.2 GB" in line]

    assert lines == ["paused at step 20: 1.2 GB free, needs 3.4 GB"]


def test_of_a_long_past_hardly_anything_is_read_before_the_first_line(monkeypatch):
    """And of its losses the newest one is told, so neither time nor memory grows with the run."""
    run = canned_run()
    metrics = Journal(run.metrics, attempt=1)
    for number in range(21, 3000):
        metrics.append(step(number, phases=dict.fromkeys("abcdefghij", 0.5)), sync=False)
        metrics.append(Loss(step=number, loss=1.0), sync=False)
    metrics.close()
    for name, value in (("_WHOLE_BYTES", 1 << 16), ("_END_BYTES", 1 << 13), ("_NUM_EXCERPTS", 8)):
        monkeypatch.setattr(source, name, value)
    found, real = [], Tail.parsed
    monkeypatch.setattr(
        Tail, "parsed", lambda t, ls: (r for r in real(t, ls) if not found.append(r))
    )
    monkeypatch.setattr(follow.time, "sleep", lambda _: finish(run, "stopped", 20))

    lines = [line for line in follow._lines(run) if line.startswith("step ") and "  loss" in line]

    assert lines == ["step 2999/40  loss 1.0000"]
    assert len(found) < 300


def test_damaged_records_are_told_once_and_again_when_there_are_more(monkeypatch):
    """Whoever reads the losses knows that some are missing."""
    run = canned_run()
    on_disk.write(run.metrics, "loss", step=21)
    polls = [
        lambda: None,
        lambda: on_disk.write(run.worker_events, "evaluated", step="x"),
        lambda: finish(run, "stopped", 20),
    ]
    monkeypatch.setattr(follow.time, "sleep", lambda _: polls.pop(0)())

    told = [line for line in follow._lines(run) if "damaged" in line]

    assert told == ["! 1 damaged record passed over", "! 2 damaged records passed over"]


def test_a_notice_is_listed_under_the_runs():
    """With the id of its run, made harmless for the terminal."""
    run = canned_run()
    what = "no step\x1b[2J for 9 min"
    said(run.worker_events, Stalled(step=20, phase="training", seconds=540.0, what=what))

    last = page.runs([(run, status(run))])[-1]

    assert last.startswith(f"! {run.id}: no step")
    assert "\x1b" not in last


@pytest.mark.parametrize(
    ("state", "code"),
    [("finished", ExitCode.FINISHED), ("stopped", ExitCode.STOPPED), ("lost", ExitCode.STOPPED)],
)
def test_an_end_that_nobody_recorded_still_has_a_code(state, code, capsys):
    """A lost run is no success, but it can be resumed."""
    run = canned_run()
    durable.write_json(run.exit, {"attempt": 1, "state": state, "what": "it ended"})

    assert follow.follow(run) == code
    assert status(run).state is State(state)


def test_a_run_that_is_followed_is_told_from_its_past_to_its_end(capsys):
    """Events, the newest loss, how it ended and whether the model got better; its code is kept."""
    run = canned_run(end="failed")
    durable.write_json(
        run.exit, {"attempt": 1, "state": "failed", "what": "why\x1b[2J", "code": 70}
    )

    assert follow.follow(run) == 70

    rows = capsys.readouterr().err.splitlines()
    assert rows[-3:] == [
        "step 20/40  loss 3.5000",
        "failed: why",
        "better than the base model: evaluation loss 3.8300 -> 3.6100 at step 4",
    ]
    assert rows[:2] == ["base model: evaluation loss 3.8300 (0.4 s)", "training begins, 40 steps"]


def test_a_run_without_evaluations_is_followed_too(monkeypatch, capsys):
    """An interrupt leaves it, and says how to come back."""
    run = canned_run(done=2)
    run.worker_events.unlink()

    def leave(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.time, "sleep", leave)

    assert follow.follow(run) == 0

    assert capsys.readouterr().err == (
        f"step 2/0  loss 3.9500\n\nleft; the run goes on: advisor watch {run.id}\n"
    )
