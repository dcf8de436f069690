"""A run directory as facts, whatever its records lack."""

from __future__ import annotations

from dataclasses import replace

import on_disk
import pytest

from profiles.row_counts import RowCounts
from profiles.run_facts import Sample
from profiles.runs import durable, rundir
from profiles.runs import run as runs
from profiles.runs.records.evaluation import Answer, Evaluated
from profiles.runs.records.metrics import PHASES, Loss
from profiles.runs.records.worker import Checkpoint, Paused, Prepared, TrainBegun, Unpaused
from tests.canned_run import GIB, add_sample, gpu, step

ON_GPU = {"allocated_peak_bytes": 3, "reserved_peak_bytes": 5, "gpu_phases": {"forward": 0.4}}


def facts(*steps):
    """Facts of a run whose metrics say this, and how many lines were passed over."""
    run = rundir.create("a run")
    for content in steps:
        on_disk.write(run.metrics, "step", **content)
    return runs.from_run_dir(run)


def without(content, name):
    return {k: v for k, v in content.items() if k != name}


def test_a_step_that_lacks_a_field_is_no_step_and_counted():
    """Half a step would be taken for one of no time, or of no tokens."""
    whole = [step(n).content() for n in range(1, 31)]
    for name in whole[0]:
        found, num_damaged = facts(*whole[:-1], without(whole[-1], name))

        assert (found.num_steps, num_damaged) == (29, 1), name


@pytest.mark.parametrize("name", step(1).content())
@pytest.mark.parametrize("value", [None, "x", [], True])
def test_a_step_whose_field_is_something_else_is_no_step_and_counted(name, value):
    """Whatever stands there, the report comes without it."""
    found, num_damaged = facts(step(1).content(), step(2).content() | {name: value})

    assert (found.num_steps, num_damaged) == (1, 1)


def test_without_one_step_there_are_no_facts():
    """It cannot be told which step this was."""
    assert facts(without(step(1).content(), "step")) == (None, 1)


def test_on_a_gpu_the_devices_times_count_and_its_memory():
    """The host only queues work: what it waits for tells nothing."""
    found, _ = facts(*(step(n, seconds=1.0, **ON_GPU).content() for n in range(1, 31)))

    expected = dict.fromkeys(PHASES, 0.0) | {"forward": 0.4, "other": 0.6}
    assert found.phase_seconds == pytest.approx(expected)
    assert (found.peak_bytes, found.reserved_peak_bytes) == (3, 5)


def test_on_a_cpu_the_hosts_times_count_and_the_processes_memory():
    """There is nothing else."""
    found, _ = facts(*(step(n).content() for n in range(1, 31)))

    assert found.phase_seconds == pytest.approx(step(1).phases)
    assert (found.peak_bytes, found.reserved_peak_bytes) == (step(1).rss_peak_bytes, None)


PREPARED = Prepared(
    seconds=7.0,
    num_train=9,
    num_dropped=0,
    num_trainable=9,
    reclaimed_bytes=0,
    device="cuda:0",
    compute_capability="9.0",
    of_template=("9 of 9 rows end with no mark",),
    file=RowCounts(num_rows=12, num_dropped=1, num_cut=2, num_tokens=99, num_learnt=33),
)


def test_the_rows_are_those_of_the_newest_attempt(run):
    """As training counted them; nobody knows of a run of an older version."""
    found, _ = runs.from_run_dir(run)
    assert (found.rows, found.of_template) == (PREPARED.file, PREPARED.of_template)
    assert facts(step(1).content())[0].rows is None


@pytest.fixture
def run():
    """A run of 40 steps in two attempts: the second one makes steps 11 and 12 again."""
    found = rundir.create("a run")
    events = (
        (1, 0, PREPARED),
        (1, 1, Evaluated(step=0, loss=4.0, seconds=2.0)),
        (1, 10, TrainBegun(step=0, num_steps=40)),
        (1, 15, Checkpoint(step=10, seconds=0.5, bytes=100)),
        (1, 16, Evaluated(step=10, loss=3.0, seconds=2.0)),
        (2, 103, TrainBegun(step=10, num_steps=40)),
        (2, 110, Paused(step=20)),
        (2, 150, Unpaused(step=20)),
        (2, 175, Checkpoint(step=40, seconds=1.5, bytes=120)),
        (2, 180, Evaluated(step=40, loss=2.0, seconds=2.0)),
    )
    for attempt, at, record in events:
        on_disk.tell(found.worker_events, record, at, attempt=attempt)
    first = [(1, n, n + 10) for n in range(1, 13)]
    second = [(2, n, n + 100) for n in range(11, 41)]
    for attempt, number, at in first + second:
        slow = 9.0 if attempt == 1 else 0.5
        on_disk.tell(found.metrics, step(number, seconds=slow), at, attempt=attempt)
        on_disk.tell(found.metrics, Loss(step=number, loss=5.0 - number / 40), at, attempt=attempt)
    return found


def test_a_step_that_was_made_again_counts_once_as_it_was_made_last(run):
    """The weights of the first time are gone."""
    found, _ = runs.from_run_dir(run)

    assert (found.num_steps, found.tokens, found.padded_tokens) == (40, 40 * 400, 40 * 500)
    assert (found.label_tokens, found.longest) == (40 * 100, 125)


def test_the_first_steps_are_no_steady_ones(run):
    """Five are left out; the report says how many it counts."""
    found, _ = runs.from_run_dir(run)

    assert (found.num_steady_steps, found.step_seconds) == (35, 0.5)
    assert found.tokens_per_second == pytest.approx(35 * 400 / (5 * 9.0 + 30 * 0.5))


def test_time_is_added_over_attempts_without_pauses_and_what_comes_between(run):
    """From where training begins to the last sign that counts, each attempt by its own clock."""
    found, _ = runs.from_run_dir(run)

    assert found.wall_seconds == pytest.approx((20 - 10) + (180 - 103) - (150 - 110))
    assert found.wall_tokens_per_second == pytest.approx(40 * 400 / found.wall_seconds)


def test_evaluations_and_checkpoints_are_timed_apart(run):
    """The base model's is no part of the training."""
    found, _ = runs.from_run_dir(run)

    assert (found.setup_seconds, found.eval_seconds, found.num_evals) == (7.0, 4.0, 2)
    saved = (found.checkpoint_seconds, found.num_checkpoints, found.checkpoint_bytes)
    assert saved == (2.0, 2, 120)


def test_losses_are_told_from_the_base_model_to_the_last_step(run):
    """Those of the evaluation part, and those that were logged."""
    found, _ = runs.from_run_dir(run)

    assert (found.base_loss, found.eval_loss) == (4.0, 2.0)
    assert (found.first_loss, found.last_loss) == (5.0 - 1 / 40, 4.0)


def test_the_device_is_the_newest_attempts(run):
    """It may have gone on elsewhere."""
    before, _ = runs.from_run_dir(run)
    again = replace(PREPARED, device="cuda:1", compute_capability="8.0")
    on_disk.tell(run.worker_events, again, 200, attempt=3)
    after, _ = runs.from_run_dir(run)

    assert (before.device, before.compute_capability) == ("cuda:0", "9.0")
    assert (after.device, after.compute_capability) == ("cuda:1", "8.0")


def test_what_a_worker_did_not_say_of_its_gpu_is_looked_up(run):
    """By the name in the lock that it left."""
    on_disk.tell(run.worker_events, replace(PREPARED, compute_capability=None), 200, attempt=3)
    durable.write_json(run.recipe_lock, {"gpu": "NVIDIA H100 80GB HBM3"})

    assert runs.from_run_dir(run)[0].compute_capability == "9.0"


def test_the_fullest_gpu_gives_the_peak_and_busy_ones_the_throttling(run):
    """What an idle GPU says holds nobody back."""
    hot = replace(gpu(used_gib=70.0), throttle=("thermal",))
    idle = replace(hot, utilization_percent=0)
    add_sample(run, gpu(used_gib=10.0))
    add_sample(run, hot, replace(gpu(used_gib=75.0), total_bytes=90 * GIB))
    add_sample(run, idle, gpu(used_gib=60.0))
    found, _ = runs.from_run_dir(run)

    assert (found.device_peak_bytes, found.capacity_bytes) == (75 * GIB, 90 * GIB)
    assert found.throttle_shares == {"thermal": 0.25}


def test_answers_before_and_after_training_stand_beside_each_other(run):
    """By their prompt; a run that was stopped has only the first."""
    answers = (("before", "2+2?", "5"), ("before", "3+3?", "7"), ("after", "2+2?", "4"))
    for moment, prompt, answer in answers:
        record = Answer(moment=moment, step=0, prompt=prompt, wanted="4", answer=answer)
        on_disk.tell(run.worker_events, record)
    found, _ = runs.from_run_dir(run)

    assert found.samples == (
        Sample(prompt="2+2?", wanted="4", before="5", after="4"),
        Sample(prompt="3+3?", wanted="4", before="7", after=None),
    )
