"""Step records: phases, tokens of all ranks, device time where there is a device."""

from __future__ import annotations

import resource
import sys
from typing import ClassVar
from unittest import mock

import pytest

torch = pytest.importorskip("torch")

from on_disk import read_all  # noqa: E402
from stand_ins import Clock, Notes  # noqa: E402

from profiles.runs.journal import Journal  # noqa: E402
from runner.training import telemetry  # noqa: E402
from runner.training.batches import Batches, Counts  # noqa: E402
from runner.training.telemetry import COUNTS, CountingCollator, StepRecorder  # noqa: E402

NO_TOKENS = dict.fromkeys(COUNTS, 0)


class Event:
    """A CUDA event on a device whose clock the test moves; done when the test says so."""

    now = 0.0
    passed = True

    def __init__(self, **_):
        self.at = None

    def record(self):
        self.at = Event.now

    def query(self):
        return Event.passed

    def synchronize(self):
        Event.passed = True

    def elapsed_time(self, other):
        return (other.at - self.at) * 1000


@pytest.fixture
def on_cuda(tmp_path, monkeypatch):
    """A recorder that believes it runs on a GPU, and its records."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    stats = {
        "allocated_bytes.all.current": 1,
        "allocated_bytes.all.peak": 2,
        "reserved_bytes.all.peak": 3,
        "num_alloc_retries": 4,
    }
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: stats)
    Event.now, Event.passed = 0.0, True
    path = tmp_path / "metrics"
    return StepRecorder(Journal(path, attempt=1), torch.device("cuda")), path


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """A recorder on a CPU, its records, and the time that passes for it."""
    clock = Clock()
    monkeypatch.setattr(telemetry, "time", clock)
    path = tmp_path / "metrics"
    return StepRecorder(Journal(path, attempt=1), torch.device("cpu")), path, clock


def test_a_step_lasts_as_long_as_the_device_works_on_it(on_cuda):
    """The host has queued everything in no time; the device needs five seconds."""
    recorder, path = on_cuda
    recorder.begin()
    with recorder.phase("backward"):
        Event.now = 5.0
    recorder.finish(1, NO_TOKENS)
    recorder.flush()

    (record,) = read_all(path)
    assert record["seconds"] == pytest.approx(5.0, abs=0.1)
    assert record["gpu_phases"] == {"backward": 5.0}


def test_a_record_waits_for_the_device_and_not_the_training_for_the_record(on_cuda):
    """Nothing is written until the device has passed the step, then everything is."""
    recorder, path = on_cuda
    Event.passed = False
    recorder.begin()
    recorder.finish(1, NO_TOKENS)
    before = list(read_all(path))

    Event.passed = True
    recorder.begin()
    recorder.finish(2, NO_TOKENS)

    assert before == []
    assert [r["step"] for r in read_all(path)] == [1, 2]


def test_on_a_cpu_the_host_times_are_the_record(tmp_path):
    """Phases and what is left over add up to the step."""
    recorder = StepRecorder(Journal(tmp_path / "metrics", attempt=1), torch.device("cpu"))
    with recorder.phase("forward"):
        sum(range(1000))
    recorder.finish(3, NO_TOKENS | {"tokens": 7})
    recorder.flush()

    (record,) = read_all(tmp_path / "metrics")
    assert (record["step"], record["tokens"]) == (3, 7)
    assert sum(record["phases"].values()) == pytest.approx(record["seconds"], abs=1e-5)


def test_the_collator_counts_real_padded_and_learnt_tokens():
    """Two rows of 3 and 1 tokens, padded to 3; two labels are learnt."""

    def pad(rows):
        return {
            "input_ids": torch.zeros(2, 3),
            "labels": torch.tensor([[-100, 5, 6], [-100, -100, -100]]),
        }

    batch = CountingCollator(pad, Batches())([{"input_ids": [1, 2, 3]}, {"input_ids": [4]}])

    assert batch["token_stats"] == (2, 6, 4, 2, 3)


def test_the_parts_of_a_step_are_charged_to_their_names(at_hand):
    """Each as often as it comes; what is left over is the rest."""
    recorder, path, clock = at_hand
    recorder.begin()
    for seconds in (0.25, 0.5):
        with recorder.phase("forward"):
            clock.sleep(seconds)
    with recorder.phase("backward"):
        clock.sleep(1.1234567)
    clock.sleep(2.0)
    assert recorder.seconds == pytest.approx(3.8734567)
    recorder.finish(4, NO_TOKENS)
    recorder.flush()

    (record,) = read_all(path)
    assert record["phases"] == {"forward": 0.75, "backward": 1.123457, "other": 2.0}
    assert record["seconds"] == 3.873457
    assert "gpu_phases" not in record


def test_a_phase_that_fails_counts_too(at_hand):
    """Its time has passed."""
    recorder, path, clock = at_hand

    def fail():
        clock.sleep(1.0)
        raise KeyError

    with pytest.raises(KeyError), recorder.phase("forward"):
        fail()
    recorder.finish(1, NO_TOKENS)
    recorder.flush()

    assert next(iter(read_all(path)))["phases"] == {"forward": 1.0, "other": 0.0}


def test_phases_that_overlap_leave_no_less_than_nothing(at_hand):
    """One inside another is charged twice."""
    recorder, path, clock = at_hand
    with recorder.phase("forward"), recorder.phase("data"):
        clock.sleep(1.0)
    recorder.finish(1, NO_TOKENS)
    recorder.flush()

    assert next(iter(read_all(path)))["phases"]["other"] == 0.0


def test_a_step_counts_its_batches_and_the_next_one_begins_anew(at_hand):
    """Rows and tokens add up, of the longest row there is one."""
    recorder, path, clock = at_hand
    recorder.count(Counts(rows=2, padded_tokens=20, tokens=14, label_tokens=5, longest=9))
    recorder.count(Counts(rows=1, padded_tokens=8, tokens=8, label_tokens=3, longest=8))
    assert recorder.counts == {"rows": 3, "padded_tokens": 28, "tokens": 22, "label_tokens": 8}
    with recorder.phase("forward"):
        clock.sleep(1.0)
    recorder.finish(1, {"rows": 6, "padded_tokens": 60, "tokens": 50, "label_tokens": 40})

    assert recorder.counts == NO_TOKENS
    recorder.finish(2, NO_TOKENS)
    recorder.flush()

    first, second = read_all(path)
    counts = [first[name] for name in ("rows", "padded_tokens", "tokens", "label_tokens")]
    assert (counts, first["longest"]) == ([6, 60, 50, 40], 9)
    assert (second["longest"], second["seconds"], second["phases"]) == (0, 0.0, {"other": 0.0})


def test_memory_is_told_in_bytes(at_hand):
    """Of this process the most it ever had; there is no device."""
    recorder, path, _ = at_hand
    recorder.finish(1, NO_TOKENS)
    recorder.flush()

    (record,) = read_all(path)
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    assert 0.5 * here * unit < record["rss_peak_bytes"] <= here * unit
    assert "allocated_bytes" not in record


def test_records_reach_the_disk_every_five_seconds_and_at_the_end(monkeypatch):
    """No step waits for the device alone."""
    clock, notes = Clock(), Notes()
    monkeypatch.setattr(telemetry, "time", clock)
    recorder = StepRecorder(notes, torch.device("cpu"))

    seen = []
    for step in range(1, 5):
        clock.sleep(2.0)
        recorder.finish(step, NO_TOKENS)
        seen.append(list(notes.synced))
    assert seen == [[False], [False] * 2, [True] * 3, [True] * 3 + [False]]
    clock.sleep(1.0)
    recorder.finish(5, NO_TOKENS)
    assert notes.synced == [True] * 3 + [False] * 2

    recorder.flush()

    assert notes.synced == [True] * 5


def test_the_device_is_measured_by_its_own_clock(on_cuda):
    """Of every part, and of the whole step; the host's times stay beside them."""
    recorder, path = on_cuda
    recorder.begin()
    for seconds in (1.0, 2.00000149):
        with recorder.phase("forward"):
            Event.now += seconds
    with recorder.phase("backward"):
        Event.now += 4.0
    Event.now += 0.1234567
    recorder.finish(1, NO_TOKENS)
    Event.now += 100.0
    recorder.begin()
    Event.now += 9.0
    recorder.finish(2, NO_TOKENS)
    recorder.flush()

    first, second = read_all(path)
    assert first["gpu_phases"] == {"forward": 3.000001, "backward": 4.0}
    assert first["seconds"] == 7.123458
    assert set(first["phases"]) == {"forward", "backward", "other"}
    assert (second["seconds"], second["gpu_phases"]) == (9.0, {})


def test_events_measure_time(on_cuda, monkeypatch):
    """Without being asked to, CUDA's do not."""
    asked = []

    class Asked(Event):
        def __init__(self, **how):
            super().__init__()
            asked.append(how)

    monkeypatch.setattr(torch.cuda, "Event", Asked)

    on_cuda[0].begin()

    assert asked == [{"enable_timing": True}]


def test_memory_of_a_device_is_told_with_its_peaks(on_cuda):
    """What is taken, the most that was taken and reserved, and how often it was tight."""
    recorder, path = on_cuda
    recorder.finish(1, NO_TOKENS)
    recorder.flush()

    (record,) = read_all(path)
    names = ("allocated_bytes", "allocated_peak_bytes", "reserved_peak_bytes", "num_alloc_retries")
    assert [record[name] for name in names] == [1, 2, 3, 4]
    assert record["rss_peak_bytes"] > 0


def test_at_most_eight_steps_wait_for_the_device(on_cuda):
    """Then the host waits, for the oldest alone."""
    recorder, path = on_cuda
    passed = set()

    class Slow(Event):
        waited: ClassVar = []

        def query(self):
            return self in passed

        def synchronize(self):
            Slow.waited.append(self)
            passed.add(self)

    with mock.patch.object(torch.cuda, "Event", Slow):
        recorder.begin()
        for step in range(1, 9):
            recorder.finish(step, NO_TOKENS)
        assert (Slow.waited, list(read_all(path))) == ([], [])

        recorder.finish(9, NO_TOKENS)
        assert (len(Slow.waited), [r["step"] for r in read_all(path)]) == (1, [1])

        recorder.flush()
    assert len(Slow.waited) == 9
    assert [r["step"] for r in read_all(path)] == list(range(1, 10))


def test_the_collator_gives_the_batch_that_it_counts():
    """With the task's own counting."""

    class Odd(Batches):
        def counts(self, rows, batch):
            return len(rows), sorted(batch)

    collator = CountingCollator(lambda rows: {"input_ids": rows}, Odd())

    assert collator([1, 2]) == {"input_ids": [1, 2], "token_stats": (2, ["input_ids"])}
    assert collator.inner([3]) == {"input_ids": [3]}
