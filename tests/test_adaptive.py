"""AdaLoRA before anything is loaded: when ranks fall, what is refused, what is told of ranks."""

from __future__ import annotations

import pytest
from known import model

from advisor import recipe as recipes
from advisor.cost import memory, weights
from advisor.plan import Plan
from advisor.registry.adaptive import AdaptiveRank, Schedule
from advisor.registry.conflicts import conflict
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS
from profiles.errors import ExitCode, UserError
from profiles.rank_facts import AdapterRanks, LinearRanks
from runner.checks import rates
from tui.pages import ranks

TEXT = """schema = 1
name = "r"
[model]
id = "m"
[data]
train = "d.json"
[method]
name = "adalora"
{settings}
[train]
{train}
"""


def parse(settings="", train=""):
    """A recipe with these lines."""
    return recipes.parse(TEXT.format(settings=settings, train=train), where="r")


@pytest.mark.parametrize(
    ("settings", "steps", "wanted"),
    [
        ({}, 1000, Schedule(begin=100, end=500, every=10)),
        ({}, 12, Schedule(begin=1, end=6, every=1)),
        ({"tinit": 0.0, "tfinal": 0.0}, 7, Schedule(begin=0, end=7, every=1)),
        ({"tinit": 3.0, "tfinal": 4.0, "delta_t": 2.0}, 12, Schedule(begin=3, end=8, every=2)),
    ],
)
def test_shares_are_of_the_steps_of_the_run(settings, steps, wanted):
    """Whole numbers are steps."""
    found = AdaptiveRank(**settings)

    assert found.schedule(steps) == wanted
    assert not found.too_short(steps)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"tinit": 0.9}, 2),
        ({"tinit": 8.0, "tfinal": 4.0}, 12),
        ({"tinit": 0.0, "tfinal": 11.0}, 12),
        ({"tinit": 0.0, "tfinal": 100.0}, 12),
        ({"tinit": 0.6, "tfinal": 0.4}, 10),
    ],
)
def test_a_run_without_room_for_the_ranks_to_fall_is_told(settings, steps):
    """With keys that make room."""
    assert "lower method.tinit or method.tfinal" in AdaptiveRank(**settings).too_short(steps)


def test_a_single_step_is_not_answered_with_shares_that_cannot_help():
    """With both at 0 it is refused as well; two steps are not."""
    settings = AdaptiveRank(tinit=0, tfinal=0)

    assert settings.too_short(1).endswith("train for 2 steps at least")
    assert not settings.too_short(2)


@pytest.mark.parametrize(
    ("settings", "train", "words"),
    [
        ("init_rank = 4", "", "`method.target_rank`: must be below init_rank = 4"),
        ("target_rank = 12", "", 'for a fixed rank take method.name = "lora"'),
        ("tinit = 2.5", "", "`method.tinit`: must be a share below 1 or a whole number"),
        ("delta_t = 1.5", "", "`method.delta_t`: must be a share"),
        ("tinit = 8\ntfinal = 4", "max_steps = 12", "`train.max_steps`: ranks are to fall after"),
        (
            "",
            'optimizer = "schedule_free"\nscheduler = "constant"',
            "would come back; take train.optimizer",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_the_recipe(settings, train, words):
    """By the key that is to be changed."""
    with pytest.raises(UserError) as caught:
        parse(settings, train)

    assert words in caught.value.why
    assert caught.value.code is ExitCode.BAD_RECIPE


def test_what_the_refusals_advise_is_taken():
    """One by one."""
    parse("init_rank = 5")
    parse("tinit = 2\ntfinal = 4", "max_steps = 12")
    parse("tinit = 8\ntfinal = 4", "max_steps = 24")
    parse("", 'optimizer = "adamw"')


def test_too_few_rows_are_refused_before_the_start():
    """Where the recipe names epochs; as many rows as it takes are not."""
    recipe = parse(train="micro_batch = 4\nepochs = 0.5")

    with pytest.raises(UserError, match="too short for AdaLoRA") as caught:
        rates.refuse_too_short(recipe, 8)
    rates.refuse_too_short(recipe, 24)

    assert "its 8 rows to train on make no more" in caught.value.why
    assert "train.epochs" in caught.value.do


def test_gradients_that_are_divided_are_not_looked_at():
    """By an engine that keeps a part of each on every device."""
    spec = METHODS["adalora"]
    told = conflict(spec, spec.settings(), OPTIMIZERS["adamw"], ENGINES["zero2"])

    assert "AdaLoRA looks at whole gradients" in told
    assert not conflict(spec, spec.settings(), OPTIMIZERS["adamw"], ENGINES["ddp"])


def test_experts_are_refused_and_their_attention_is_not():
    """PEFT has no adapters with singular values for them."""
    spec, mixture = METHODS["adalora"], model("mixtral-8x7b")

    assert 'method.targets = "attention"' in spec.unsupported(mixture, spec.settings())
    assert not spec.unsupported(mixture, spec.settings(targets="attention"))
    assert not spec.unsupported(model("qwen2.5-0.5b"), spec.settings())


def test_importance_is_kept_in_memory_for_every_weight():
    """Three numbers as wide as the weight, from the first step on."""
    base = model("qwen2.5-0.5b")
    plan = Plan.of("adalora", seq_len=64)
    added = weights.added_params(base, plan)

    assert weights.adapter_bytes(base, plan) == 4 * 4 * added
    components = {term.component: term.num_bytes for term in memory.estimate(base, plan).terms}
    assert components["adapters"] == 16 * added


FOUND = AdapterRanks(
    full=12,
    linears=(
        LinearRanks(name="self_attn.q_proj", ranks=(0, 12, 3)),
        LinearRanks(name="mlp.up_proj", ranks=(5, 0, 0)),
    ),
    rests_on="gradients times weights",
)


def test_the_page_has_what_ranks_rest_on_and_every_rank():
    """Linear by linear, layer by layer."""
    assert ranks.lines(FOUND, 100) == [
        "ranks: 20 of 72 directions in 6 adapters, by gradients times weights",
        "  linear, sum of its ranks: rank in each layer",
        "  self_attn.q_proj 15:  0 12  3",
        "  mlp.up_proj       5:  5  0  0",
    ]


def test_ranks_of_many_layers_go_on_below_each_other():
    """No line is wider than the page, and none is lost."""
    many = LinearRanks(name="q", ranks=tuple(range(100, 140)))
    found = ranks.lines(AdapterRanks(full=140, linears=(many,), rests_on="x"), 60)[2:]

    assert all(len(line) <= 60 for line in found)
    numbers = [int(word) for line in found for word in line.split(":")[-1].split()]
    assert numbers == list(many.ranks)
