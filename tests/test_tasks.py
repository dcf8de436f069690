"""Tasks: which is taken for which data, what a recipe may say beside one, how it is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from data_files import write_rows
from known import RECIPE, dataset, model
from small_model import small_model

from advisor import draft, recipe
from advisor.choice import lighter
from advisor.choice.recommend import recommend
from advisor.cost import memory
from advisor.cost.flops import flops_per_token
from advisor.plan import Plan
from advisor.registry.lookup import TASKS, is_ready, proposed_task
from advisor.registry.spec import keys_of
from advisor.registry.task_spec import Objective
from advisor.registry.tasks import Smoothing
from profiles.data import dataset as datasets
from profiles.data import formats
from profiles.errors import UserError
from profiles.facts import Origin
from profiles.machines import planned
from tui.commands.request import Asked
from tui.main import run as command
from tui.pages import recommendation as page
from tui.terminal import Symbols

BOX = planned.plan_machine("RTX 4090")
PAIR = {"prompt": "why is that so?", "chosen": "because it is", "rejected": "no"}
DPO = {"task": "dpo"}


def refused(changes, text=RECIPE):
    """Why the recipe with these changes cannot be."""
    with pytest.raises(UserError) as caught:
        recipe.with_changes(text, changes, where="r")
    return caught.value.why


@pytest.mark.parametrize("form", formats.FORMATS, ids=lambda form: form.name)
def test_every_kind_of_data_has_one_task_that_is_taken_for_it(form):
    """And that learns from it."""
    assert form.kind in proposed_task(form.kind).learns_from
    assert len([task for task in TASKS if form.kind in task.proposed_by]) == 1


@pytest.mark.parametrize("form", formats.FORMATS, ids=lambda form: form.name)
def test_the_way_out_for_data_of_another_task_names_one_that_there_is(form):
    """As its refusal says it."""
    named = [word.strip("`,;.") for word in form.instead.partition("--task ")[2].split()[:1]]

    assert [form.kind in TASKS[name].learns_from for name in named] == [True] * len(named)
    assert named


def test_the_data_say_what_is_trained_unless_a_person_does():
    """Measured, the user's word, and the default without data."""
    pairs = replace(dataset(), format="preference")
    tasks = [Asked().answers(pairs), Asked(task="sft").answers(pairs), Asked().answers()]

    assert [(one.task.value, one.task.origin) for one in tasks] == [
        ("dpo", Origin.MEASURED),
        ("sft", Origin.USER),
        ("sft", Origin.DEFAULT),
    ]
    assert Asked().answers(dataset()).task.value == "sft"


@pytest.fixture
def pairs(tmp_path):
    """A model's folder and a file of preference pairs."""
    folder = small_model(tmp_path / "model")
    return folder, write_rows(tmp_path, [PAIR | {"prompt": f"why {n}?"} for n in range(40)])


def test_a_recommendation_for_pairs_writes_their_task(pairs, tmp_path, capsys):
    """It is said on the page, with how to name another."""
    folder, rows = pairs
    asked = ["recommend", "--model", str(folder), "--data", str(rows), "--gpu", "T4"]

    assert command([*asked, "--save", str(tmp_path / "r.toml")]) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "preference training (DPO): preference data asks for it; --task names another" in shown
    made = recipe.parse((tmp_path / "r.toml").read_text(), where="r")
    assert (made.task, made.objective.model_dump(exclude_none=True)) == ("dpo", {"beta": 0.1})


def test_pairs_are_refused_for_fine_tuning_on_replies_with_the_way_out(pairs, capsys):
    """By name of the task."""
    folder, rows = pairs

    asked = ["recommend", "--model", str(folder), "--data", str(rows), "--task", "sft"]
    assert command(asked) != 0

    told = " ".join(capsys.readouterr().err.split())
    assert "preference data is for preference training (DPO), not for this task" in told
    assert "`--task dpo`" in told


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data.packing": "true"}, "rows of dpo cannot be packed"),
        ({"data.learn": "last"}, "dpo learns from the last reply alone"),
        ({"data.format": "alpaca"}, "alpaca is not for dpo; that learns from preference"),
        ({"task": "classify", "train.loss": "full"}, "`train.loss`: classify takes no loss over"),
        ({"task": "reward", "train.loss": "full"}, "`train.loss`: reward takes no loss over"),
    ],
)
def test_what_a_task_has_no_use_for_is_refused(changes, why):
    """By its key."""
    assert why in refused(DPO | changes)
    assert list(changes)[-1] in refused(DPO | changes)


def test_a_setting_belongs_to_its_task():
    """With the tasks that have it; its bounds and its default are the task's."""
    assert "`objective.beta`: sft has no such setting; dpo" in refused({"objective.beta": "0.2"})
    assert "`objective.beta`" in refused(DPO | {"objective.beta": "0"})
    assert "`objective.gamma`" in refused(DPO | {"objective.gamma": "1"})

    made = recipe.with_changes(RECIPE, DPO | {"objective.beta": "0.3"}, where="r")
    assert (made.goal.beta, recipe.with_changes(RECIPE, DPO, where="r").goal.beta) == (0.3, 0.1)
    assert recipe.parse(made.to_toml(), where="again") == made
    assert recipe.parse(RECIPE, where="r").goal == Smoothing(0.0)
    assert type(recipe.with_changes(RECIPE, {"task": "reward"}, where="r").goal) is Objective
    assert "objective" not in recipe.parse(RECIPE, where="r").to_toml()


def test_a_changed_task_leaves_the_old_one_s_settings_and_rate_behind():
    """As a changed method does; what was set by hand stays."""
    text = recipe.with_changes(RECIPE, DPO | {"objective.beta": "0.3"}, where="r").to_toml()
    own = recipe.parse(text, where="r").learning_rate
    text = text.replace("[train]", f"[train]\nlearning_rate = {own}")

    back = recipe.with_changes(text, {"task": "sft"}, where="r")
    kept = recipe.with_changes(text, {"task": "sft", "train.learning_rate": "0.01"}, where="r")

    assert (back.learning_rate, kept.learning_rate) == (2e-4, 0.01)
    assert back.objective.model_dump(exclude_none=True) == {}


@pytest.mark.parametrize("task", [task for task in TASKS if is_ready(task)], ids=str)
def test_the_rate_of_a_task_is_the_recipe_s_and_the_recommendation_s(task):
    """A share of the method's, told with it; settings that are not off are written."""
    box = planned.plan_machine("RTX 4090")
    kind = next(one.name for one in formats.FORMATS if one.kind in task.learns_from)

    found = recommend(
        model(), box, replace(dataset(), format=kind), Asked(task=task.name).answers()
    )

    made = draft.recipe_of(found, model="m", data="d", version="1")
    assert made.learning_rate == found.learning_rate
    assert found.learning_rate == pytest.approx(
        task.rate_factor * found.fit.plan.method.rate(model(), found.fit.plan.settings).value
    )
    assert made.goal == task.objective()
    text = "\n".join(page.lines(found, 100, Symbols.ASCII))
    for name, (field, _) in keys_of(task.objective).items():
        assert (name in text) is bool(field.default)


def test_a_pair_is_two_sequences_of_a_batch():
    """In memory and in time."""
    sft, dpo = (Plan.of("lora", task=task, seq_len=64, micro_batch=3) for task in ("sft", "dpo"))

    assert (sft.tokens_per_micro_batch, dpo.tokens_per_micro_batch) == (192, 384)
    assert dpo.effective_batch == 3


def test_both_replies_of_a_pair_count_in_its_lengths(tmp_path):
    """The longer rejected one decides what is cut, and one cut pair is one row."""
    rows = [{"prompt": "q" * 40, "chosen": "c" * 40, "rejected": "r" * 400}] * 3
    path = write_rows(tmp_path, rows)

    tokens = datasets.check(path, kinds=("preference",)).tokens
    cut = datasets.check(path, kinds=("preference",), max_length=50)

    assert (tokens.min, tokens.max, tokens.mean, tokens.total) == (110, 110, 65, 3 * 130)
    whole, part = tokens.counts, cut.tokens.counts
    assert (whole.num_rows, whole.num_cut, whole.num_tokens) == (3, 0, 3 * 130)
    assert (part.num_rows, part.num_cut, part.num_tokens) == (3, 3, 3 * 70)
    assert (whole.num_learnt, part.num_learnt) == (3 * 110, 3 * 50)
    lost = tokens.at(10)
    assert (lost.num_dropped, lost.num_cut, lost.num_tokens, lost.num_learnt) == (3, 0, 0, 0)
    assert any("3 of 3 rows are cut at max_length 50" in told for told in cut.warnings)


def test_a_task_without_logits_is_offered_no_way_to_save_on_them():
    """Nor told how they would be made."""
    plans = [Plan.of("lora", task=task, seq_len=64, loss="full") for task in ("sft", "classify")]
    shown = [
        "\n".join(page.lines(found, 100, Symbols.ASCII))
        for task in ("sft", "classify")
        for found in [recommend(model(), BOX, None, Asked(task=task).answers())]
    ]

    assert ['train.loss = "chunked"' in lighter.changes(plan) for plan in plans] == [True, False]
    assert ["chunked loss" in text for text in shown] == [True, False]


def test_json_names_the_task_and_where_it_came_from(pairs, capsys):
    """As it names the other answers."""
    folder, rows = pairs
    asked = ["recommend", "--model", str(folder), "--data", str(rows), "--gpu", "T4", "--json"]

    assert command(asked) == 0

    wishes = json.loads(capsys.readouterr().out)["wishes"]
    assert wishes["task"] == {"value": "dpo", "origin": "measured"}


def test_full_fine_tuning_keeps_a_frozen_copy_and_an_adapter_none():
    """Of the type that trains; whole on each device, so that no engine that divides takes it."""

    def weights(method, task):
        plan = Plan.of(method, task=task, seq_len=64)
        terms = memory.estimate(model(), plan).peak.terms
        return next(term.num_bytes for term in terms if term.component == "weights")

    copied = weights("full", "dpo") - weights("full", "sft")
    assert copied == pytest.approx(4 * model().num_params, rel=0.001)
    assert weights("lora", "dpo") == weights("lora", "sft")

    shared = {"hardware.strategy": "fsdp", "hardware.gpus": "2"}
    assert "frozen copy" in refused(DPO | shared | {"method.name": "full"})
    assert recipe.with_changes(RECIPE, DPO | shared, where="r").task == "dpo"


def test_the_reference_takes_another_forward_pass():
    """Of each sequence; so an evaluation does."""
    sft, dpo = (
        flops_per_token(model(), Plan.of("lora", task=task, seq_len=64)) for task in ("sft", "dpo")
    )

    assert dpo.hardware_flops - sft.hardware_flops == pytest.approx(sft.forward_flops, abs=2)
    assert dpo.forward_flops == pytest.approx(2 * sft.forward_flops, abs=2)


@pytest.mark.parametrize("rows", [1, 7, 16])
def test_a_task_that_compares_rows_has_at_least_two_at_a_time(rows):
    """In a recipe and in a recommendation, whatever batch is wanted."""
    assert "`train.micro_batch`: kto compares rows: write train.micro_batch = 2" in refused(
        {"task": "kto"}
    )
    box = planned.plan_machine("RTX 4090")
    rated = replace(dataset(), format="rated")

    found = recommend(model(), box, rated, Asked(effective_batch=rows).answers(rated))

    assert found.fit.plan.micro_batch >= 2
    assert abs(found.fit.plan.effective_batch - rows) <= 1
    assert draft.recipe_of(found, model="m", data="d", version="1").task == "kto"
