"""Each task trains a tiny random model: it learns, goes on where it was killed, and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest
import real_runs

torch = pytest.importorskip("torch")

from advisor.registry.lookup import TASKS, is_ready  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.result import result_of  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402
from runner.tasks import task_of  # noqa: E402

pytestmark = pytest.mark.slow
STEPS = 20
PERIODS = {"save_every": 10, "eval_every": 10}


def preference_rows(num_rows):
    """An order and its record, and one that misses the point at greater length."""
    asked = instruction_rows(num_rows, seed=1)
    return [
        {
            "prompt": f"{row['instruction']} {row['input']}\n",
            "chosen": row["output"],
            "rejected": " ".join(row["input"].split()[::-1]),
        }
        for row in asked
    ]


def rated_rows(num_rows):
    """The same replies one by one, the wanted ones first: twice as many as the others."""
    rows = preference_rows(num_rows)
    good = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in rows]
    bad = [{"prompt": r["prompt"], "completion": r["rejected"], "label": False} for r in rows]
    return good + bad[::2]


def labelled_rows(num_rows):
    """Which of three things an order is of; the third is rare."""
    rows = instruction_rows(num_rows, seed=1)
    kinds = ("lamps", "chairs", "tables")
    return [
        {"text": f"{n} {row['input']} {kinds[n % 5 % 3]}", "label": kinds[n % 5 % 3]}
        for n, row in enumerate(rows)
    ]


def plain_rows(num_rows):
    """Orders and their records as texts, shorter and longer than a row."""
    rows = instruction_rows(num_rows, seed=1)
    return [
        {"text": f"{row['input']} {row['output']} " * (1 + n % 4)} for n, row in enumerate(rows)
    ]


ROWS = {
    "preference": preference_rows,
    "rated": rated_rows,
    "label": labelled_rows,
    "text": plain_rows,
}
JUDGED = [task for task in TASKS if is_ready(task) and task.scores]
TRAINED = [*JUDGED, TASKS["pretrain"]]
"""sft is trained by other tests, with the same trainer as pretrain."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the runs of this file are."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TUNEDECK_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def start(home, tiny_model):
    """Begin a run of a task; `settings`: of real_runs.new_run."""

    def begin(task, rate=2e-2, **settings):
        data = home / f"{task.learns_from[0]}.json"
        data.write_text(json.dumps(ROWS[task.learns_from[0]](40)))
        given = {"adapter": "rank = 8\nalpha = 16", "steps": STEPS, "split": "8:2:0"}
        few = task.learns_from != ("label",)  # a rare class takes more rows a step
        given |= {"micro_batch": 4, "accumulation": 1 if few else 3}
        if settings.get("method") == "ia3":
            given["adapter"] = ""
        run = real_runs.new_run(tiny_model, data, **given | settings)
        text = f'task = "{task.name}"\n' + run.recipe.read_text()
        run.recipe.write_text(text.replace("learning_rate = 5e-3", f"learning_rate = {rate}"))
        return run

    return begin


@pytest.fixture(scope="module")
def undisturbed(start):
    """Task, method and rate -> a run that nobody disturbed, and what it published says."""

    @cache
    def train(task, method, rate):
        run, trainer, seen = start(task, rate, method=method, **PERIODS), task_of(task).TRAINER, []
        save = trainer.save_model

        def watched(self, *args, **kw):
            with torch.no_grad():
                logits = self.model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
            seen.append(logits.flatten().tolist())
            save(self, *args, **kw)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "save_model", watched)
            real_runs.attempt(run)
        (told,) = real_runs.events(run, "published")
        return run, seen[told["step"] // PERIODS["save_every"] - 1]

    return train


class Killed(BaseException):
    """As SIGKILL: nobody handles it."""


def killed_at(step, task, monkeypatch):
    """Let the next attempt end in the middle of this step, as if it had never been told to."""
    trainer = task_of(task).TRAINER
    whole = trainer.training_step

    def dying(self, *args, **kw):
        if self.state.global_step == step and not self.is_trial:
            raise Killed
        return whole(self, *args, **kw)

    monkeypatch.setattr(trainer, "training_step", dying)


@pytest.mark.parametrize(
    ("task", "method", "rate"),
    [
        *((task, "lora", 2e-2) for task in TRAINED),
        (TASKS["dpo"], "full", 1e-3),
        pytest.param(TASKS["classify"], "full", 1e-3, marks=pytest.mark.long),
        pytest.param(TASKS["classify"], "ia3", 3e-2, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_task_learns_and_goes_on_to_equality_where_it_was_killed(
    start, undisturbed, monkeypatch, task, method, rate
):
    """Its first score, or loss, is clearly better; losses and weights are the undisturbed ones.

    The second run is killed in the middle of step 14; its newest checkpoint is of step 10.
    """
    whole, _ = undisturbed(task, method, rate)
    run = start(task, rate, method=method, **PERIODS)
    with monkeypatch.context() as patch:
        killed_at(13, task, patch)
        with pytest.raises(Killed):
            real_runs.attempt(run)
    real_runs.next_attempt(run)

    found = result_of(read_all(whole.worker_events))
    gain = found.scores[0].gain if task.scores else found.gain
    assert gain.low > 0, found
    assert len(real_runs.losses(run)) == STEPS
    assert real_runs.losses(run) == real_runs.losses(whole)
    assert real_runs.events(run, "resumed")[0]["from_step"] == 10
    same, other = real_runs.weights(run), real_runs.weights(whole)
    assert all(torch.equal(same[name], other[name]) for name in same)
    assert result_of(read_all(run.worker_events)).scores == found.scores


@pytest.mark.parametrize("task", JUDGED, ids=str)
def test_pieces_of_a_micro_batch_make_the_step_of_the_whole(start, monkeypatch, task):
    """Out of memory in the third step and in an evaluation: same losses, logs and scores."""
    settings = {"steps": 4, "eval_every": 4, "micro_batch": 4, "accumulation": 2, "rate": 1e-3}
    whole, short = start(task, **settings), start(task, **settings)
    real_runs.attempt(whole)
    trainer = task_of(task).TRAINER
    rows = trainer.row_losses

    def limited(self, model, inputs):
        if self.state.global_step >= 2 and self.batches.num_rows(inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rows(self, model, inputs)

    monkeypatch.setattr(trainer, "row_losses", limited)
    real_runs.attempt(short)

    assert [(e["during"], e["pieces"]) for e in real_runs.events(short, "oom")] == [
        ("train", 2),
        ("train", 4),
        ("eval", 2),
        ("eval", 4),
    ]
    assert real_runs.losses(short) == pytest.approx(real_runs.losses(whole), rel=1e-6, abs=1e-6)
    counted = ("rows", "tokens", "padded_tokens", "label_tokens", "longest")
    for one, other in zip(real_runs.steps(short), real_runs.steps(whole), strict=True):
        assert [one[name] for name in counted] == [other[name] for name in counted]
    for one, other in zip(evaluations(short), evaluations(whole), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def evaluations(run):
    """Loss and scores of each evaluation."""
    found = real_runs.events(run, "evaluated")
    return [[e["loss"], *(score["value"] for score in e["scores"])] for e in found]


LOADED = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
kinds = {"lm": AutoModelForCausalLM, "score": AutoModelForSequenceClassification}
base, found = sys.argv[1], []
for folder, head in json.load(sys.stdin):
    more = {"config": AutoConfig.from_pretrained(folder)} if head == "score" else {}
    model = PeftModel.from_pretrained(kinds[head].from_pretrained(base, **more), folder).eval()
    with torch.no_grad():
        found.append(model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.flatten().tolist())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(undisturbed, tiny_model):
    """Task -> what its model says, loaded by the libraries alone in a new process."""
    asked = [(str(undisturbed(task, "lora", 2e-2)[0].model), task.head) for task in TRAINED]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(tiny_model)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(TRAINED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("task", TRAINED, ids=str)
def test_what_is_published_is_what_was_trained(undisturbed, loaded, task):
    """By every task."""
    _, seen = undisturbed(task, "lora", 2e-2)

    assert loaded[task] == pytest.approx(seen, abs=1e-5)


@pytest.mark.parametrize("task", ["dpo", "reward"])
def test_a_task_trains_beside_a_quantized_base(start, task):
    """What compares, and a head that is new: it stays in the type of what it reads."""
    run = start(TASKS[task], method="qlora", steps=4, save_every=4)

    real_runs.attempt(run)

    types = {"score" in name: weight.dtype for name, weight in real_runs.weights(run).items()}
    assert types == {False: torch.bfloat16} | ({True: torch.float32} if task == "reward" else {})
    losses = real_runs.losses(run)
    assert losses[4] < losses[1]


def test_what_an_adapter_keeps_frozen_stays_so_after_the_reference_was_asked(start, monkeypatch):
    """PEFT would let it train when the adapter is switched on again."""
    run = start(TASKS["dpo"], adapter="rank = 8\nalpha = 16\nfreeze_a = true", steps=2)
    trainer, seen = task_of(TASKS["dpo"]).TRAINER, []
    save = trainer.save_model

    def watched(self, *args, **kw):
        seen.extend(n for n, p in self.model.named_parameters() if p.requires_grad)
        save(self, *args, **kw)

    monkeypatch.setattr(trainer, "save_model", watched)
    real_runs.attempt(run)

    assert seen
    assert not [name for name in seen if ".lora_A." in name]
