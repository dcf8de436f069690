"""A made-up entry of each kind, registered in one place, is seen wherever its kind is seen."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields, replace

import pytest
from known import RECIPE, dataset, model
from measured import measured

from advisor import draft, findings, recipe, rules
from advisor.choice.answers import Answer, Answers
from advisor.choice.recommend import recommend
from advisor.cost import memory
from advisor.plan import Plan
from advisor.registry.engine_spec import EngineSpec
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS, kinds_of_rows
from advisor.registry.optimizer_spec import OptimizerSpec
from advisor.registry.results import EXPORTS, METRICS, ExportSpec, MetricSpec
from advisor.registry.spec import (
    MethodSpec,
    Rate,
    Settings,
    key,
)
from advisor.registry.task_spec import TaskSpec
from advisor.rules.case import Finding
from profiles.data import formats
from profiles.data.formats.spec import Example, Field, Format
from profiles.errors import UserError
from profiles.facts import Origin
from profiles.machines import planned
from tui.main import run as command
from tui.pages import recommendation as page
from tui.pages import recommendation_json
from tui.report import lines as report_lines
from tui.terminal import Symbols

NAME = "made_up"


@dataclass(frozen=True, slots=True)
class MadeUp(Settings):
    """Settings of a made-up method."""

    knobs: int = key(3, "how many knobs are turned", ge=1, le=9)


METHOD = MethodSpec(
    name=NAME,
    title="Made-up tuning",
    settings=MadeUp,
    builder=NAME,
    added=lambda model, settings, _: settings.knobs * model.hidden_size,
    rate=lambda _model, _settings: Rate(7e-4, "a made-up range"),
    default_rate=7e-4,
)
OPTIMIZER = OptimizerSpec(name=NAME, title="Made-up descent", optim="sgd", states=5)
ENGINE = EngineSpec(
    name=NAME,
    title="Made-up sharding",
    builder=NAME,
    divides=frozenset({"gradients"}),
)
TASK = TaskSpec(name=NAME, title="made-up learning", builder=NAME)
METRIC = MetricSpec(name=NAME, title="made-up score", builder=NAME, tasks=("sft",))
EXPORT = ExportSpec(name=NAME, title="made-up file", builder=NAME, suffix=".mu")
ENTRIES = {
    "methods": (METHODS, METHOD),
    "optimizers": (OPTIMIZERS, OPTIMIZER),
    "strategies": (ENGINES, ENGINE),
    "tasks": (TASKS, TASK),
    "metrics": (METRICS, METRIC),
    "exports": (EXPORTS, EXPORT),
}
CHANGES = {
    "methods": {"method.name": NAME, "method.knobs": "4"},
    "optimizers": {"train.optimizer": NAME},
    "strategies": {"hardware.strategy": NAME, "hardware.gpus": "2"},
    "tasks": {"task": NAME},
}


@contextlib.contextmanager
def having(kind):
    """With the made-up entry of this kind."""
    registry, entry = ENTRIES[kind]
    with registry.having(entry):
        yield


def found_for(gpus, **answers):
    """What is recommended for an 8B model there."""
    box = planned.plan_machine(gpus)
    return recommend(model(), box, dataset(), Answers(**answers))


@pytest.mark.parametrize("kind", ENTRIES)
def test_it_is_listed_and_gone_again(kind, capsys):
    """For people and as JSON; nothing is left of it after the block."""
    with having(kind):
        assert command(["methods", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)[kind]
        assert command(["methods"]) == 0
        assert ENTRIES[kind][1].title in capsys.readouterr().out

    assert [(one["name"], one["runs"]) for one in listed if one["name"] == NAME] == [(NAME, True)]
    command(["methods", "--json"])
    assert NAME not in capsys.readouterr().out


@pytest.mark.parametrize("kind", CHANGES)
def test_a_recipe_may_name_it_and_may_not_afterwards(kind, tmp_path, capsys):
    """Through `recipe check`, --set, the schema, and back to text."""
    with having(kind):
        made = recipe.with_changes(RECIPE, CHANGES[kind], where="r")
        file = tmp_path / "r.toml"
        file.write_text(made.to_toml())
        assert command(["recipe", "check", str(file)]) == 0
        assert recipe.parse(made.to_toml(), where="again") == made

    assert command(["recipe", "check", str(file)]) != 0
    assert NAME in capsys.readouterr().err


@pytest.mark.parametrize("kind", CHANGES)
def test_without_a_builder_it_is_not_yet(kind):
    """The same entry is refused before anything starts."""
    registry, entry = ENTRIES[kind]
    empty = "optim" if kind == "optimizers" else "builder"
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}

    with registry.having(type(entry)(**values | {empty: ""})), pytest.raises(UserError) as caught:
        recipe.with_changes(RECIPE, CHANGES[kind], where="r")

    assert f"this version does not run {NAME} yet" in caught.value.why


def test_a_method_s_settings_are_keys_with_their_bounds():
    """Unknown keys and values out of bounds are told as for any other method."""
    text = RECIPE.replace('"lora"', f'"{NAME}"\nknob = 3')

    with having("methods"):
        with pytest.raises(UserError) as unknown:
            recipe.parse(text, where="r")
        with pytest.raises(UserError) as beyond:
            recipe.parse(text.replace("knob = 3", "knobs = 10"), where="r")

    assert "unknown key `method.knob`; did you mean `knobs`?" in unknown.value.why
    assert "`method.knobs`" in beyond.value.why


def test_a_method_is_a_row_of_the_recommendation_with_its_own_numbers():
    """In the table, in the JSON, with its keys, its rate and what it trains."""
    with having("methods"):
        found = found_for("RTX 4090")
        document = recommendation_json.document(found)
        text = "\n".join(page.lines(found, 100, Symbols.ASCII))
        plan = Plan.of(NAME, seq_len=512, knobs=5)
        size = memory.estimate(model(), plan)

    row = next(row for row in document["alternatives"] if row["rung"] == NAME)
    assert (row["name"], row["runs"]) == ("Made-up tuning", True)
    assert "Made-up tuning" in text
    adapters = next(t.num_bytes for t in size.peak.terms if t.component == "adapters")
    assert adapters == 5 * model().hidden_size * 4


def test_a_recommended_method_becomes_its_recipe():
    """Every setting of the plan is a key, and the recipe's plan is the plan."""
    with having("methods"):
        found = found_for("RTX 4090")
        plan = Plan.of(NAME, seq_len=512, knobs=5)
        content = {
            **recipe.parse(RECIPE, where="r").model_dump(by_alias=True, mode="json"),
            "method": {"name": NAME, "knobs": 5},
            "plan": {},
        }
        made = recipe.validate(content, where="r")

        assert made.to_plan(plan.framework, 512).settings == plan.settings
        assert draft.recipe_of(found, model="m", data="d", version="1").method.name == "lora"
        assert made.learning_rate == 7e-4


def test_an_optimizer_s_states_are_in_the_estimate():
    """Five values for each trained weight."""
    base = Plan.of("full", seq_len=512)

    with having("optimizers"):
        states = memory.estimate(model(), Plan.of("full", seq_len=512, optimizer=NAME))

    def held(estimate):
        return sum(t.num_bytes for t in estimate.peak.terms if t.component == "optimizer")

    assert held(states) == pytest.approx(2.5 * held(memory.estimate(model(), base)))


def test_an_engine_that_divides_something_else_is_tried():
    """Between those that divide less and more, where dividing helps."""
    critical = {"critical": Answer(True, Origin.USER)}
    whole = found_for("2x H100", **critical)

    with having("strategies"):
        plan = Plan.of("full", seq_len=512, strategy=NAME, num_gpus=2)
        divided = memory.estimate(model(), plan)
        tried = found_for("2x H100", **critical)

    ddp = memory.estimate(model(), Plan.of("full", seq_len=512, strategy="ddp", num_gpus=2))
    assert divided.allocated_bytes < ddp.allocated_bytes
    assert {whole.fit.plan.engine.name, tried.fit.plan.engine.name} <= {*ENGINES.names(), NAME}


def test_a_task_is_an_answer_of_recommend(capsys):
    """`--task` takes it, and no other."""
    asked = ["recommend", "--model", "Qwen/Qwen2.5-0.5B", "--gpu", "T4", "--json", "--task"]

    with having("tasks"):
        assert command([*asked, NAME]) == 0
    answers = json.loads(capsys.readouterr().out)["wishes"]
    assert command([*asked, NAME]) == 2

    assert answers["task"] == {"value": NAME, "origin": "user"}


def test_a_data_format_is_a_value_of_the_recipe_s_key():
    """By its name, and refused with the nearest one afterwards."""
    made_up = Format(
        name=NAME,
        required=(Field(name="riddle"), Field(name="answer")),
        read=lambda row: Example(prompt=row["riddle"], completion=row["answer"]),
    )
    changes = {"data.format": NAME}

    with formats.registered(made_up):
        assert recipe.with_changes(RECIPE, changes, where="r").data.format == NAME
    with pytest.raises(UserError):
        recipe.with_changes(RECIPE, changes, where="r")


def test_a_rule_s_finding_is_in_the_report(monkeypatch):
    """With its change, for `--apply`."""

    def check(case):
        return Finding(
            id="B99",
            title="made-up waste",
            severity="warning",
            confidence="exact",
            sentence=f"{case.run.num_steps} steps were made up",
            evidence={"steps": case.run.num_steps},
            change={"train.epochs": (1.0, 2.0)},
        )

    made = recipe.parse(RECIPE, where="r")
    monkeypatch.setattr(rules, "RULES", (*rules.RULES, check))

    found = findings.report(measured(), made, model())

    assert "B99" in [one.id for one in found.findings]
    assert findings.patched(made, list(found.findings))["train"]["epochs"] == 2.0
    assert "100 steps were made up" in "\n".join(report_lines(found, 80, Symbols.ASCII))


def test_a_task_that_is_asked_for_is_the_recipe_s_and_one_that_is_not_yet_has_none():
    """Never another one in silence."""
    box = planned.plan_machine("RTX 4090")
    with having("tasks"):
        found = recommend(model(), box, None, Answers(task=Answer(NAME, Origin.USER)))
        assert found.runnable.fit.plan.task is TASK
        assert draft.recipe_of(found, model="m", data="d.jsonl", version="1").task == NAME

    with TASKS.having(replace(TASK, builder="")):
        label = recommend(model(), box, None, Answers(task=Answer(NAME, Origin.USER)))
    assert label.runnable is None
    with pytest.raises(UserError, match="no recipe") as caught:
        draft.recipe_of(label, model="m", data="d.jsonl", version="1")
    assert "does not train made-up learning yet" in caught.value.why


def test_a_task_finds_its_rows_by_their_kind():
    """No format names a task."""
    with TASKS.having(replace(TASK, learns_from=("preference", "text"))):
        assert kinds_of_rows(NAME) == ("preference", "text")
        assert kinds_of_rows() == ("replies", "text", "preference", "rated", "label")
        assert formats.names(kinds_of_rows(NAME)) == ("preference", "text")
