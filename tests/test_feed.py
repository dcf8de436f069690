"""The feed: everything that is in the files, once, whatever state they are in."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import on_disk
import pytest

from profiles.runs.journal import Journal
from profiles.runs.records.metrics import Loss
from profiles.runs.records.sampler import Usage
from profiles.runs.records.worker import Unpaused
from profiles.runs.state import State
from tests.canned_run import GIB, add_sample, add_steps, canned_run, gpu, step
from tui import feed
from tui import source as source_of
from tui.feed import Batch, Event, Feed, Reader
from tui.live import LiveRun
from tui.source import Source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the runs of each test to itself."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path))
    return tmp_path


def test_the_first_batch_is_the_past_and_the_next_only_what_is_new() -> None:
    """Nothing is told twice."""
    run = canned_run(done=20)
    reader = Reader(run)
    first = reader.poll()
    add_steps(run, 21, 23)
    second = reader.poll()

    assert list(range(1, 21)) == [point.step for point in first.steps]
    assert [21, 22, 23] == [point.step for point in second.steps]
    assert [21, 22, 23] == [step for step, _ in second.losses]
    assert (State.RUNNING, 40) == (second.status.state, second.status.num_steps)


def test_a_torn_last_line_is_read_when_it_is_whole() -> None:
    """Half a line is not there yet."""
    run = canned_run(done=2)
    whole = run.metrics.read_bytes()
    run.metrics.write_bytes(whole[:-40])
    reader = Reader(run)
    torn = reader.poll()
    with run.metrics.open("ab") as file:
        file.write(whole[-40:])
    mended = reader.poll()

    assert [1] == [step for step, _ in torn.losses]
    assert [2] == [step for step, _ in mended.losses]
    assert 0 == mended.num_damaged


def test_a_damaged_record_is_counted_and_passed_over() -> None:
    """One flipped bit costs one record."""
    run = canned_run(done=5)
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"step"', b'"stop"', 1)
    run.metrics.write_bytes(b"".join(lines))
    batch = Reader(run).poll()

    assert [1, 2, 4, 5] == [point.step for point in batch.steps]
    assert 1 == batch.num_damaged


def test_records_of_a_strange_shape_are_passed_over() -> None:
    """A sound checksum around nonsense must not end the feed; it is counted."""
    run = canned_run(done=1)
    on_disk.write(run.metrics, "step", step="x", seconds=None, phases=3)
    on_disk.write(run.metrics, "loss", step=None, loss="high")
    on_disk.write(run.metrics, "loss", step=2, loss=math.nan)
    on_disk.write(run.worker_events, "evaluated")
    on_disk.write(run.samples, "sample", rss_bytes="much", gpus=7)
    batch = Reader(run).poll()

    assert [1] == [point.step for point in batch.steps]
    assert [1, 2] == [step for step, _ in batch.losses]
    assert math.isnan(batch.losses[-1][1])
    assert () == batch.memory
    assert 4 == batch.num_damaged


def test_batches_that_nobody_took_become_one() -> None:
    """A slow link gets fewer frames, and loses no step."""
    run = canned_run(done=3)
    reader = Reader(run)
    first = reader.poll()
    add_steps(run, 4, 6)
    add_sample(run, gpu())
    both = first.then(reader.poll())

    assert list(range(1, 7)) == [point.step for point in both.steps]
    assert 1 == len(both.memory)
    assert first.events == both.events


def test_a_long_file_is_sampled_and_its_end_is_whole(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """History may have holes; what is near the end and what comes later may not."""
    for name, value in (("_WHOLE_BYTES", 50_000), ("_END_BYTES", 20_000)):
        monkeypatch.setattr(source_of, name, value)
    monkeypatch.setattr(source_of, "_NUM_EXCERPTS", 8)
    monkeypatch.setattr(source_of, "_EXCERPT_BYTES", 2_000)
    path = home / "m.jsonl"
    journal = Journal(path, attempt=1)
    for number in range(1000):
        journal.append(Loss(step=number, loss=1.0), sync=False)
    source = Source(path)
    first = [record.step for record in source.poll()]
    journal.append(Loss(step=1000, loss=1.0))
    later = [record.step for record in source.poll()]

    assert sorted(set(first)) == first
    assert first[0] < 5
    assert list(range(900, 1000)) == first[-100:]
    assert len(first) < 400
    assert ([1000], 0) == (later, source.num_damaged)


def test_much_that_is_new_is_sampled_like_the_past(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that was stopped for a day is up to date with one look."""
    for name, value in (("_WHOLE_BYTES", 50_000), ("_END_BYTES", 20_000), ("_NUM_EXCERPTS", 8)):
        monkeypatch.setattr(source_of, name, value)
    monkeypatch.setattr(source_of, "_EXCERPT_BYTES", 2_000)
    path = home / "m.jsonl"
    journal = Journal(path, attempt=1)
    source = Source(path)
    for number in range(1000):
        if number == 100:
            source.poll()
        journal.append(Loss(step=number, loss=1.0), sync=False)
    found = [record.step for record in source.poll()]

    assert sorted(set(found)) == found
    assert 100 <= found[0] < 110
    assert found[-100:] == list(range(900, 1000))
    assert len(found) < 400
    assert ([], 0) == (source.poll(), source.num_damaged)


def test_damage_in_a_long_past_is_counted_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is sampled, and where all of it is read."""
    for name, value in (("_WHOLE_BYTES", 5_000), ("_END_BYTES", 1_000), ("_NUM_EXCERPTS", 3)):
        monkeypatch.setattr(source_of, name, value)
    monkeypatch.setattr(source_of, "_EXCERPT_BYTES", 1_000)
    path = home / "m.jsonl"
    for number in range(100):
        on_disk.write(path, "loss", step=number)
    source = Source(path)

    assert source.poll() == []
    assert source.num_damaged > 20


def test_a_pause_is_no_part_of_the_time_left() -> None:
    """Steps from before it tell nothing of the pace after it."""
    run = canned_run(done=0)
    for number, at in ((11, 10), (12, 11), (13, 500), (14, 501)):
        on_disk.tell(run.metrics, step(number), at)
    on_disk.tell(run.worker_events, Unpaused(step=12), 499)
    live = LiveRun(run)
    live.apply(Reader(run).poll())

    assert (2, 26.0) == (live.num_recent, live.seconds_left)


@pytest.mark.parametrize(("more", "gib"), [({}, 1.0), ({"reserved_peak_bytes": 6 * GIB}, 6.0)])
def test_the_peak_of_a_step_is_the_gpus_where_there_is_one(
    more: dict[str, int], gib: float
) -> None:
    """Elsewhere the process's."""
    run = canned_run(done=0)
    Journal(run.metrics, attempt=1).append(step(1, **more))
    live = LiveRun(run)
    live.apply(Reader(run).poll())

    assert gib == live.memory.last


def test_the_thread_hands_over_and_survives_a_run_that_disappears(home: Path) -> None:
    """What cannot be read is told, not raised."""
    run = canned_run(done=3)
    thread = Feed(run, poll_seconds=0.02)
    thread.start()
    batch = None
    deadline = time.monotonic() + 5
    while batch is None and time.monotonic() < deadline:
        batch = thread.take()
        time.sleep(0.01)
    run.path.rename(home / "gone")
    time.sleep(0.1)
    alive = thread.is_alive()
    thread.close()
    thread.join(5)

    assert batch is not None
    assert (3, True, False) == (len(batch.steps), alive, thread.is_alive())


def test_the_headline_has_state_progress_and_time_left() -> None:
    """Words and numbers; the name gives way when there is little room."""
    run = canned_run(done=20)
    live = LiveRun(run)
    live.apply(Reader(run).poll())
    wide, narrow = live.headline(80), live.headline(45)

    assert "RUNNING  step 20 of 40  50 %  eta" in wide
    assert wide.startswith("tiny lora ")
    assert "RUNNING  step 20 of 40  50 %  eta" in narrow
    assert len(narrow) <= 45


def test_shares_leave_the_first_steps_out() -> None:
    """A slow first step is no part of the steady ones."""
    run = canned_run(done=0)
    metrics = Journal(run.metrics, attempt=1)
    metrics.append(step(1, seconds=90.0, phases={"data": 90.0}, tokens=1))
    add_steps(run, 2, 30)
    live = LiveRun(run)
    live.apply(Reader(run).poll())
    shares = dict(live.shares())

    assert 25 == live.num_recent
    assert 0.1 == pytest.approx(shares["data"])
    assert 0.4 == pytest.approx(shares["backward"])
    assert 0.5 == pytest.approx(live.step_seconds)


def test_silence_is_noticed_after_ten_seconds_and_three_steps() -> None:
    """A run that is over, or just slow, is not called silent."""
    run = canned_run(done=20)
    live = LiveRun(run)
    live.apply(Reader(run).poll())
    now = time.time()

    assert live.silent_seconds(now + 5) is None
    assert 42 == pytest.approx(live.silent_seconds(now + 42), abs=2)


def test_memory_of_the_samples_replaces_the_peaks_of_the_steps() -> None:
    """Peaks stand in only until there are samples."""
    run = canned_run(done=3)
    live = LiveRun(run)
    reader = Reader(run)
    live.apply(reader.poll())
    before = live.memory.last
    add_sample(run, rss_bytes=2**29)
    live.apply(reader.poll())

    assert (1.0, 0.5) == (before, live.memory.last)
    assert 1 == live.memory.num_buckets


class Played:
    """A reader that plays what it is given, and notes what the feed says meanwhile."""

    def __init__(self, thread: Feed, *polls: Batch | Exception) -> None:
        self.thread, self.left = thread, list(polls)
        self.faults: list[str] = []

    def poll(self) -> Batch:
        """The next one; the feed is closed with the last."""
        self.faults.append(self.thread.fault)
        found = self.left.pop(0)
        if not self.left:
            self.thread.close()
        if isinstance(found, Exception):
            raise found
        return found


def test_a_feed_tells_why_it_could_not_read_until_it_can() -> None:
    """It goes on trying."""
    run = canned_run(done=2)
    thread = Feed(run, poll_seconds=0.0)
    found = Reader(run).poll()
    played = Played(thread, found, OSError("gone"), ValueError("odd"), found, found)
    thread._reader = played  # type: ignore[assignment]
    thread.run()

    assert ["", "", "OSError: gone", "ValueError: odd", ""] == played.faults
    assert "" == thread.fault
    taken = thread.take()
    assert taken is not None
    assert 6 == len(taken.steps)
    assert thread.take() is None


@pytest.mark.parametrize(("most", "num_steps"), [(3, 2), (4, 4)])
def test_reading_waits_while_the_screen_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, most: int, num_steps: int
) -> None:
    """Steps, losses and samples are points; what is not read stays in the files."""
    run = canned_run(done=2)
    thread = Feed(run)
    thread._poll()
    add_steps(run, 3, 4)
    monkeypatch.setattr(feed, "_MOST_POINTS", most)
    thread._poll()
    taken = thread.take()

    assert taken is not None
    assert num_steps == len(taken.steps)


def test_of_two_batches_the_later_one_says_how_it_is_now() -> None:
    """A sample and the end of a pause stay known; of the events the newest two hundred."""
    run = canned_run(done=1)
    base = Reader(run).poll()
    sample = Usage(num_processes=1, rss_bytes=1, cpu_seconds=1.0, host_free_bytes=1, gpus=())
    events = tuple(Event(float(n), str(n)) for n in range(150))
    first = replace(base, phase="loading", sample=sample, went_on_at=5.0, events=events)
    later = replace(base, phase="training", went_on_at=3.0, events=events, num_damaged=2)
    both = first.then(later)

    assert ("training", sample, 5.0, 2) == (
        both.phase,
        both.sample,
        both.went_on_at,
        both.num_damaged,
    )
    assert (200, "100", "149") == (len(both.events), both.events[0].text, both.events[-1].text)
    assert 3.0 == later.then(replace(later, went_on_at=0.0)).went_on_at
    assert first == replace(first, events=()).then(replace(first, steps=(), losses=(), memory=()))
