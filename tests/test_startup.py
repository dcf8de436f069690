"""What a run tells from its start to its first step, and what it refuses there."""

from __future__ import annotations

import json
import math
from itertools import product

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.records.worker import Phase, TrainBegun  # noqa: E402
from runner.supervision import control  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training.counting import counted  # noqa: E402
from runner.training.heartbeat import Heartbeat  # noqa: E402
from runner.training.stopping import StopFlag  # noqa: E402

SETTINGS = {"steps": 6, "save_every": 1000, "eval_every": 2, "split": "8:1:1"}


def test_every_part_of_the_start_is_told_as_it_begins(tiny_model, orders):
    """In order, with how much there is to do, up to the first step."""
    run = real_runs.new_run(tiny_model, orders, more="samples = 3\n", **SETTINGS)

    assert real_runs.attempt(run) == ExitCode.FINISHED

    events = list(read_all(run.worker_events))
    begun = next(i for i, event in enumerate(events) if isinstance(event, TrainBegun))
    told = [(e.phase, e.total) for e in events[:begun] if isinstance(e, Phase)]
    held_out = len(json.loads(orders.read_text())) // 10
    assert [phase for phase, _ in told] == [
        *("reading", "tokenising", "loading", "checking", "hashing", "preparing"),
        *("evaluating", "answering", "longest"),
    ]
    totals = dict(told)
    assert totals["evaluating"] == pytest.approx(held_out, abs=1)
    assert totals["answering"] == 3
    assert totals["tokenising"] > 5 * totals["evaluating"]
    assert events[begun].seconds > 0


@pytest.fixture
def beating(tmp_path, tiny_model, orders):
    """A heartbeat that nobody starts."""
    run = real_runs.new_run(tiny_model, orders)
    from profiles.runs.journal import Journal

    return Heartbeat(run, Journal(run.worker_events, attempt=1), StopFlag())


def test_loops_of_the_library_over_rows_are_counted(beating):
    """Each from the beginning, whether its bar is shown or not."""
    from datasets import Dataset

    rows = Dataset.from_list([{"n": n} for n in range(2500)])
    seen = []

    def count(row):
        seen.append((beating.done, beating.total))
        return row

    with beating.during("tokenising", 5000), counted(beating):
        rows.map(count)
        assert (beating.done, beating.total) == (2500, 2500)
        rows.filter(lambda row: row["n"] % 2)
        assert (beating.phase, beating.done, beating.total) == ("tokenising", 2500, 2500)

    assert (beating.phase, beating.done, beating.total) == ("starting", 0, 0)
    assert {total for _, total in seen} == {2500}
    before = beating.done
    rows.map(count)
    assert beating.done == before


def test_evaluations_are_counted_batch_by_batch(tiny_model, orders, monkeypatch):
    """Up to the number that was told."""
    counts = []
    predict = RunSft.prediction_step

    def seen(trainer, *args, **kw):
        counts.append(trainer.attempt.progress.total)
        return predict(trainer, *args, **kw)

    monkeypatch.setattr(RunSft, "prediction_step", seen)
    monkeypatch.setattr(
        real_runs.StillHeart, "expect", lambda heart, total: setattr(heart, "total", total)
    )
    run = real_runs.new_run(tiny_model, orders, **SETTINGS)
    real_runs.attempt(run)

    per_evaluation = counts[0]
    assert len(counts) == 4 * per_evaluation
    assert set(counts) == {per_evaluation}


QUICK = [("lora", math.nan), ("qlora", math.inf)]
EVERY = [*product(("lora", "qlora", "full"), (math.nan, math.inf))]


@pytest.mark.parametrize(
    ("method", "value"),
    [
        *QUICK,
        *(pytest.param(*one, marks=pytest.mark.long) for one in EVERY if one not in QUICK),
    ],
)
def test_a_base_model_that_is_not_finite_is_refused_by_its_tensor(
    tiny_model, orders, tmp_path, method, value
):
    """Before training, and not called a learning rate that is too high."""
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (path,) = broken.glob("*.safetensors")
    weights = load_file(path)
    name = next(n for n in weights if n.endswith("1.mlp.up_proj.weight"))
    weights[name].view(-1)[7] = value
    save_file(weights, path, metadata={"format": "pt"})
    run = real_runs.new_run(broken, orders, method=method, **SETTINGS)

    with pytest.raises(UserError) as caught:
        real_runs.attempt(run)

    error = caught.value
    assert error.code is ExitCode.BAD_DATA
    assert "not finite" in error.what
    assert name.removesuffix(".weight") in error.why
    assert error.where == str(broken)
    assert "learning" not in error.do
    assert real_runs.events(run, "train_begun") == []


def test_held_out_prompts_are_answered_before_at_evaluations_and_after(tiny_model, orders):
    """As many as the recipe says."""
    run = real_runs.new_run(tiny_model, orders, more="samples = 2\n", **SETTINGS)
    none = real_runs.new_run(tiny_model, orders, more="samples = 0\n", **SETTINGS)

    for one in (run, none):
        real_runs.attempt(one)

    told = [(e["moment"], e["step"]) for e in real_runs.events(run, "sample")]
    assert told == [
        *[("before", 0)] * 2,
        *[("during", 2)] * 2,
        *[("during", 4)] * 2,
        *[("after", 6)] * 2,
    ]
    assert len({e["prompt"] for e in real_runs.events(run, "sample")}) == 2
    assert real_runs.events(none, "sample") == []


def test_intervals_are_changed_where_somebody_asks(tiny_model, orders, monkeypatch):
    """From the next step on, and in the attempts that follow."""
    step, changes = RunSft.training_step, {"steps": 12, "eval_every": 1000, "accumulation": 1}
    run = real_runs.new_run(tiny_model, orders, **{**SETTINGS, **changes})

    def asking(trainer, *args, **kw):
        if trainer.state.global_step == 3 and run.attempt() == 1:
            control.leave(run, "change", 1, {"eval_every": 4, "log_every": 2})
        if trainer.state.global_step == 9 and run.attempt() == 1:
            trainer.attempt.stop.asked = True
        return step(trainer, *args, **kw)

    monkeypatch.setattr(RunSft, "training_step", asking)
    assert real_runs.attempt(run) == ExitCode.STOPPED
    assert real_runs.next_attempt(run) == ExitCode.FINISHED

    (event,) = real_runs.events(run, "changed")
    assert (event["step"], event["eval_every"], event["log_every"]) == (4, 4, 2)
    steps = sorted({e["step"] for e in real_runs.events(run, "evaluated")})
    assert steps == [0, 8, 12]
    assert [n for n in sorted(real_runs.losses(run)) if n > 4] == [6, 8, 10, 12]


@pytest.mark.parametrize(
    "args",
    [
        {"eval_every": 0},
        {"eval_every": -3},
        {"eval_every": "4"},
        {"eval_every": True},
        {"eval_every": 1 << 40},
        {"learning_rate": 1},
        [4],
        None,
    ],
)
def test_a_change_of_anything_else_is_passed_over(tiny_model, orders, args):
    """Whoever wrote it."""
    run = real_runs.new_run(tiny_model, orders)
    control.leave(run, "change", 1, {"eval_every": 4})
    (path,) = run.requests.glob("*.json")
    assert [r.args for r in control.pending(run)] == [{"eval_every": 4}]

    content = json.loads(path.read_text()) | {"args": args}
    path.write_text(json.dumps(content))

    assert control.pending(run) == []
