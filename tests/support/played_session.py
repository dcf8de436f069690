"""A session around a trainer that the test plays: what is asked of it, and what it leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from datasets import Dataset
from stand_ins import Notes
from transformers import TrainerState

from advisor import recipe as recipes
from advisor.plan import Plan
from profiles.data.formats.spec import Example
from profiles.runs.journal import Journal, SilentJournal, read_all
from runner import checkpoints
from runner.engines.ranks import Ranks
from runner.training import examples, recipe_lock
from runner.training.batches import Batches
from runner.training.data import Part, Splits
from runner.training.selection import Selection
from runner.training.session import Session


class PlayedTrainer:
    """What a session needs of a trainer; `done` is what it was told to do, in order."""

    def __init__(self, attempt, *, last=10, reaches=10, lengths=(5, 8, 96)):
        self.attempt, self.reaches, self.done = attempt, reaches, []
        self.plan = Plan.of("lora", seq_len=96)
        self.args = SimpleNamespace(device=torch.device("cpu"), world_size=1)
        self.ranks = Ranks(1, is_main=True)
        self.batches = Batches()
        self.train_dataset = Dataset.from_list([{"input_ids": [1] * n} for n in lengths])
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 5))
        self.model[0].requires_grad_(requires_grad=False)
        self.state = TrainerState(max_steps=last)
        self.state.eval_steps = 2
        self.selection = Selection()
        self.eval_names = ["first", "second"]
        self.keeps_best = True
        self.changes = []
        self.before_steps = lambda: None
        self.division = SimpleNamespace(set=self._divide)
        self.recorder = SimpleNamespace(flush=lambda: self.done.append("flush"))
        self.lacking = []
        self.waits = True
        self.saver = SimpleNamespace(shortfall=self._shortfall)
        self.protocol = SimpleNamespace(wait_for_room=self._wait)
        self.during_training = lambda: None

    def _divide(self, during, pieces, reason, *, step):
        self.done.append(f"{during} in {pieces} pieces from step {step}: {reason}")

    def _shortfall(self, _needed):
        return self.lacking.pop(0) if self.lacking else None

    def _wait(self, _state, lacking, needed):
        self.done.append(f"wait for {needed} bytes: {lacking}")
        return self.waits

    def train(self, resume_from_checkpoint=None):
        place = resume_from_checkpoint
        self.done.append(f"train from {place and Path(place).name}")
        self.state.global_step = int(place[-8:]) if place else 0
        self.before_steps()
        self.during_training()
        self.phase = self.attempt.progress.phase
        self.state.global_step = self.reaches

    def evaluate(self):
        self.done.append(f"evaluate at {self.state.global_step}")

    def load_weights(self, path):
        self.done.append(f"load {path.name}")

    def save_model(self, place):
        self.done.append("save")
        folder = Path(place)
        folder.mkdir(exist_ok=True)
        (folder / "adapter_model.safetensors").write_text("w")
        (folder / "training_args.bin").write_text("a pickle")


class OneRank:
    """A rank of two that is not the first; `told` is what the first says, in order."""

    def __init__(self, *told):
        self.world_size, self.is_main, self.told = 2, False, list(told)

    def from_main(self, _value):
        return self.told.pop(0) if self.told else None


def splits(*, train=4, held_out=2, test=None):
    """Rows by their number; `held_out` of the one set without a name."""

    def part(number, **told):
        rows = [Example(prompt=f"p{n}", completion="c") for n in range(number)]
        tokens = Dataset.from_list([{"input_ids": [n]} for n in range(number)])
        return Part(rows=tokens if number else None, asked=rows[:1], **told)

    return Splits(
        train=part(train, num_dropped=4, num_cut=1, num_tokens=90, num_learnt=30),
        eval={"": part(held_out)} if held_out else {},
        test=part(test or 0),
    )


LOCK = {"packages": {"torch": "1"}, "stamps": {}}


def attempt(run, trainer, rows=None, *, is_main=True, lock=LOCK):
    """Run the run's current attempt with this trainer to its end; the exit code.

    `lock`: what the recipe resolves to.
    """
    number = run.attempt()
    events = Journal(run.worker_events, attempt=number) if is_main else SilentJournal()
    ours = dataclasses.replace(trainer.attempt, events=events, metrics=Notes())
    one = Session(ours, recipes.parse(run.recipe.read_text(), where="test"), Path("/"))

    def answer(_trainer, rows, _attempt, *, encoder, moment, max_length):
        trainer.done.append(f"answer {len(rows)} of {max_length} tokens {moment}")

    one.encoder = None
    with (
        mock.patch.object(examples, "write", answer),
        mock.patch.object(recipe_lock, "resolve", return_value=lock),
        mock.patch.object(one, "_build", return_value=(trainer, rows or splits())),
    ):
        return one.run_to_end()


def events(run, kind):
    """The events of one kind, in order."""
    return [e for e in read_all(run.worker_events) if isinstance(e, kind)]


def commit(run, step, **facts):
    """A checkpoint of this step; its folder."""
    staging = checkpoints.stage(run, step)
    (staging / "weights").write_text("w")
    return checkpoints.commit(run, staging, step, **facts).path
