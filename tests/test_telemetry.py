"""Step records: phases, tokens of all ranks, device time where there is a device."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from on_disk import read_all  # noqa: E402

from profiles.runs.journal import Journal  # noqa: E402
from runner.training.batches import Batches  # noqa: E402
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
        "num_alloc_retries": 0,
    }
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: stats)
    Event.now, Event.passed = 0.0, True
    path = tmp_path / "metrics"
    return StepRecorder(Journal(path, attempt=1), torch.device("cuda")), path


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
