"""The longest batch before the first step: what does not fit shows, and nothing else remains."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from plans import made  # noqa: E402
from small_trainer import Pairs, RowList, SmallTrainer, row, small_trainer  # noqa: E402

from runner.engines.engine import Engine  # noqa: E402
from runner.training import longest  # noqa: E402
from runner.training.longest import LongestFirst  # noqa: E402
from runner.training.telemetry import COUNTS  # noqa: E402


class Watched(SmallTrainer):
    """Keeps what goes through the model, draws a number each time, and may be short of memory."""

    most = 9

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.seen = []

    def compute_loss(self, model, inputs, *args, **kw):
        if inputs["input_ids"].shape[0] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        (num_items,) = kw.values()
        self.seen.append(
            SimpleNamespace(
                width=inputs["input_ids"].shape[1],
                rows=inputs["input_ids"].shape[0],
                items=int(num_items),
                is_trial=self.is_trial,
                parts=self.current_gradient_accumulation_steps,
                draw=float(torch.rand(1)),
            )
        )
        return super().compute_loss(model, inputs, *args, **kw)


@pytest.fixture
def trainer():
    """Of micro-batches of two rows, three of them a step."""
    return small_trainer(kind=Watched, accumulation=3)


def tried(trainer):
    return real_runs.events(trainer.attempt.run, "longest_tried")


def told(trainer):
    return real_runs.events(trainer.attempt.run, "oom")


def test_the_longest_rows_go_through_the_model_as_a_batch_of_a_step(trainer):
    """With as many labels as they learn, and weighted as one of three micro-batches."""
    trainer.try_longest_batch()

    (seen,) = trainer.seen
    assert (seen.rows, seen.width, seen.items, seen.parts) == (2, 8, 7 + 6, 3)
    assert seen.is_trial
    assert not trainer.is_trial


def test_rows_that_learn_nothing_are_tried_too():
    """Nothing is divided by 0."""
    trainer = small_trainer(kind=Watched, train=RowList([row(5, learnt=0), row(4, learnt=0)]))

    trainer.try_longest_batch()

    assert [seen.items for seen in trainer.seen] == [1]


def test_training_goes_on_as_if_nothing_had_been_tried(trainer):
    """No gradient, no changed weight, the random numbers that would have come; no time."""
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    state = torch.get_rng_state()

    trainer.try_longest_batch()

    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in trainer.model.parameters())
    torch.testing.assert_close(trainer.model.state_dict(), before)
    trainer.recorder.finish(1, dict.fromkeys(COUNTS, 0))
    trainer.recorder.flush()
    (step,) = real_runs.steps(trainer.attempt.run)
    assert set(step["phases"]) == {"other"}


def test_what_was_tried_is_told_with_the_time_it_took(trainer, monkeypatch):
    """Rows, the tokens of the longest, and seconds to the millisecond."""
    clock = iter([100.0, 102.34567])
    monkeypatch.setattr(longest, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    trainer.try_longest_batch()

    (event,) = tried(trainer)
    assert (event["rows"], event["longest"], event["seconds"]) == (2, 8, 2.346)


def test_an_engine_that_cannot_forget_a_backward_pass_tries_nothing(trainer):
    """It would be a part of the first step."""
    trainer.engine = Engine()
    trainer.engine.can_forget = False

    trainer.try_longest_batch()

    assert (trainer.seen, tried(trainer)) == ([], [])


def test_a_longest_batch_that_does_not_fit_is_divided_before_the_first_step(trainer):
    """Once, and told once."""
    trainer.most = 1

    trainer.try_longest_batch()

    assert [(e["step"], e["during"], e["pieces"]) for e in told(trainer)] == [(0, "train", 2)]
    assert len(tried(trainer)) == 1


def with_others(trainer, pieces):
    """Two processes; the other one has come to so many pieces."""
    trainer.ranks = SimpleNamespace(
        world_size=2, is_main=True, largest=lambda number: max(number, pieces)
    )


@pytest.mark.parametrize("most", [9, 1])
def test_all_processes_go_on_with_the_pieces_of_the_one_that_needed_most(trainer, most):
    """Said by all, at the step where they are."""
    with_others(trainer, 4)
    trainer.most = most
    trainer.state.global_step = 6

    trainer.try_longest_batch()

    assert trainer.division.pieces == {"train": 4, "eval": 1}
    event = told(trainer)[-1]
    assert (event["step"], event["during"], event["pieces"]) == (6, "train", 4)
    assert event["error"] == "the longest batch was too large for one of the GPUs"


def test_processes_that_all_had_room_say_nothing(trainer):
    """Nor of the pieces that they began with."""
    with_others(trainer, 1)
    trainer.try_longest_batch()
    trainer.division.pieces["train"] = 2
    trainer.try_longest_batch()

    assert told(trainer) == []


@pytest.fixture
def room(monkeypatch):
    """What an optimizer's states are given room for, on a device that nobody has."""
    model = Pairs()
    monkeypatch.setattr(torch, "empty", lambda size, **kw: (size, kw["dtype"], kw["device"].type))

    def taken(*, device="cuda", optimizer="adamw", state=None):
        stand_in = SimpleNamespace(
            args=SimpleNamespace(device=torch.device(device)),
            optimizer=SimpleNamespace(state=state or {}),
            plan=made("full", seq_len=8, optimizer=optimizer),
            model=model,
            engine=SimpleNamespace(local=lambda weight: weight[:3]),
        )
        return LongestFirst._optimizer_room(stand_in)

    return taken


def test_room_is_kept_for_the_states_that_the_optimizer_will_have(room):
    """Of the part of the weights that is here; they come with the first step."""
    assert room() == (2 * 3 * 7 * 4, torch.uint8, "cuda")
    assert room(optimizer="adamw_8bit") == (2 * 3 * 7, torch.uint8, "cuda")


def test_no_room_is_kept_where_states_need_none_or_have_theirs(room):
    """Host memory, states that are there already, states that are paged."""
    assert room(device="cpu") is None
    assert room(state={"weight": "moments"}) is None
    assert room(optimizer="paged_adamw_8bit") is None


def test_a_run_tries_the_longest_batch_before_its_first_step():
    """The rest of the rows come in their order."""
    trainer = small_trainer(kind=Watched, steps=1)

    trainer.train()

    assert [seen.is_trial for seen in trainer.seen] == [True, False, False]
    kinds = [e["kind"] for e in real_runs.read_all(trainer.attempt.run.worker_events)]
    assert kinds.index("longest_tried") < kinds.index("train_begun")
