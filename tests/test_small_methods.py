"""What small methods cannot be trained with: refused with a way out, and planned without."""

from __future__ import annotations

import pytest
from known import dataset, model

from advisor import recipe
from advisor.choice import ladder, lighter
from advisor.choice.answers import Answers
from advisor.choice.recommend import recommend
from advisor.cost import memory
from advisor.plan import Plan
from advisor.registry.lookup import METHODS
from profiles.errors import UserError
from profiles.facts import Latent
from profiles.machines import planned
from runner.checks import pairing

RECIPE_OF = """\
schema = 1
name = "a"
task = "sft"
[model]
id = "m"
[data]
train = "d.jsonl"
format = "text"
[method]
name = "lora"
[train]
optimizer = "adamw"
[hardware]
strategy = "single"
"""
CACHED = ("prefix_tuning", "p_tuning_v2")


def refusal(call, *arguments, **named):
    """The error that this call raises."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    return caught.value


SMALL = (
    *("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2", "llama_adapter"),
    *("vera", "loha", "lokr", "oft", "shira"),
)


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize(("task", "words"), [("reward", "trains no new head"), ("dpo", "")])
def test_prompts_train_no_new_head(method, task, words):
    """It would stay as it was drawn: neither a recipe nor a plan that runs."""
    plan = Plan.of(method, task=task, seq_len=64)
    text = RECIPE_OF.replace('"lora"', f'"{method}"').replace('"sft"', f'"{task}"')
    text = text.replace('format = "text"\n', "").replace("[train]", "[train]\nmicro_batch = 2")

    assert ladder.runs(plan) == (not words)
    if words:
        assert words in refusal(recipe.parse, text, where="r").why
    else:
        recipe.parse(text, where="r")


@pytest.mark.parametrize("method", ["prefix_tuning", "p_tuning_v2"])
def test_a_prefix_is_not_recomputed(method):
    """A layer that is run again has no cache: the mask would be longer than its keys."""
    text = RECIPE_OF.replace('"lora"', f'"{method}"')

    recipe.parse(text, where="r")
    asked = text.replace("[train]", "[train]\ncheckpointing = true")
    told = refusal(recipe.parse, asked, where="r")

    assert "`train.checkpointing`" in told.why
    assert "lies in a cache" in told.why
    assert "leave it out" in told.why


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"])
def test_a_soft_prompt_is_not_packed(method):
    """Each document of a row would read the one before it."""
    text = RECIPE_OF.replace('"lora"', f'"{method}"')

    recipe.parse(text, where="r")
    told = refusal(recipe.parse, text.replace("[method]", "packing = true\n[method]"), where="r")

    assert "`data.packing`" in told.why
    assert "puts its prompt before a row" in told.why


@pytest.mark.parametrize("gpu", ["RTX 4090", "RTX 3070"])
def test_what_cannot_be_recomputed_is_planned_with_its_activations(gpu):
    """Whether the rest of the table recomputes or not."""
    found = recommend(model(), planned.plan_machine(gpu), dataset(), Answers())

    plans = {row.rung: row.fit.plan for row in found.alternatives if row.rung in CACHED}
    assert len(plans) == len(CACHED)
    assert not any(plan.checkpointing for plan in plans.values())
    assert plans.keys() == {row.rung for row in found.alternatives if not _recomputes(row)}


def _recomputes(row):
    return row.fit.plan.method.recomputes


@pytest.mark.parametrize("method", CACHED)
def test_out_of_memory_is_not_answered_with_recomputation_where_there_is_none(method):
    """Advice must work."""
    told = lighter.changes(Plan.of(method, seq_len=512))

    assert told
    assert "train.checkpointing = true" not in told
    assert "train.checkpointing = true" in lighter.changes(Plan.of("lora", seq_len=512))


@pytest.mark.parametrize("family", ["falcon", "mpt", "lfm2"])
@pytest.mark.parametrize("method", CACHED)
def test_a_prefix_that_no_layer_could_read_is_refused(method, family):
    """PEFT gives it the form of Llama's keys."""
    spec = METHODS[method]

    assert "prefix is not of the form" in spec.unsupported(
        model(model_type=family), spec.settings()
    )
    assert not spec.unsupported(model(), spec.settings())
    assert spec.unsupported(
        model(latent=Latent(query_rank=None, kv_rank=16, nope_dim=8, rope_dim=8, value_dim=8)),
        spec.settings(),
    )


@pytest.mark.parametrize("method", ["prompt_tuning", *CACHED])
def test_a_prompt_counts_against_a_table_of_positions(method):
    """GPT-2 has rows for 1024 and no more."""
    text = RECIPE_OF.replace('"lora"', f'"{method}"\nvirtual_tokens = 24')

    def of(length):
        return recipe.parse(text.replace("[method]", f"max_length = {length}\n[method]"), where="r")

    bounded = model(is_bounded=True, max_positions=1024)
    told = refusal(pairing.check_length, of(1001), bounded)
    pairing.check_length(of(1000), bounded)

    assert "data.max_length=1000" in told.do
    assert "24 of which the prompt takes" in told.why


@pytest.mark.parametrize(
    ("changes", "settings", "words"),
    [
        ({}, {}, ""),
        ({"model_type": "mistral"}, {"skipped_layers": 31}, ""),
        ({"model_type": "qwen2"}, {}, "has LLaMA-Adapter for llama, mistral"),
        ({"head_dim": 64}, {}, "not for this model"),
        ({}, {"skipped_layers": 32}, "leaves none of its 32 layers"),
    ],
)
def test_llama_adapter_trains_what_peft_has_it_for(changes, settings, words):
    """Asked for as many layers as none, PEFT would take all."""
    spec = METHODS["llama_adapter"]

    told = spec.unsupported(model(**changes), spec.settings(**settings))

    assert words in told
    assert bool(told) == bool(words)


PARTS = ("ia3", "ln_tuning", "bitfit")


@pytest.mark.parametrize("method", PARTS)
@pytest.mark.parametrize(("layers", "words"), [("[3, 40]", "layer 40"), ('"last 33"', "last 33")])
def test_layers_that_the_model_has_not_are_refused(method, layers, words):
    """With what there is."""
    text = RECIPE_OF.replace('"lora"', f'"{method}"\nlayers = LAYERS')
    base = model(attention_bias=True)

    told = refusal(
        pairing.check_model, recipe.parse(text.replace("LAYERS", layers), where="r"), base
    )
    for sound in ("[31]", '"last 32"', '"all"'):
        pairing.check_model(recipe.parse(text.replace("LAYERS", sound), where="r"), base)

    assert words in told.why
    assert "method.layers" in told.where


@pytest.mark.parametrize("method", PARTS)
def test_layers_without_gradients_keep_nothing(method):
    """All below the first that trains."""
    base = model(attention_bias=True)

    def needed(layers):
        plan = Plan.of(method, layers=layers, seq_len=2048)
        return memory.estimate(base, plan).allocated_bytes

    assert needed((31,)) < needed((16, 31)) < needed("all")
    assert needed("last 1") == needed((31,))
