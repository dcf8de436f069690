"""The tree and the ladder on known machines and models."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import HOST, dataset, model

from advisor import draft, recommend, tree
from advisor.recommend import LADDER, RUNNABLE
from advisor.wishes import Wish, Wishes
from profiles import planned
from profiles.facts import Origin


def user(**answers):
    """Wishes with these answers given by the user."""
    return Wishes(**{name: Wish(value, Origin.USER) for name, value in answers.items()})


CASES = [
    ("llama-3.1-8b", "1x RTX 4090", {}, tree.LORA_MEDIUM, "lora"),
    ("llama-3.1-8b", "1x RTX 4090", {"complexity": "high"}, tree.LORA_HIGH, "lora"),
    ("llama-3.1-8b", "1x RTX 4090", {"complexity": "low"}, tree.ADAPTER, "lora"),
    ("llama-3.1-8b", "1x T4", {}, tree.QLORA, "qlora"),
    ("llama-3.1-8b", "1x T4", {"quality": False}, tree.PROMPT, "qlora"),
    ("llama-3.1-8b", "1x T4", {"quality": False, "task": "classify"}, tree.BITFIT, "qlora"),
    ("llama-3.1-8b", "8x H100", {}, tree.LORA_VALUE, "lora"),
    ("llama-3.1-8b", "8x H100", {"critical": True}, tree.FULL, "full"),
    ("llama-3.1-8b", "8x H100", {"value": False}, tree.FULL, "full"),
    ("llama-3.1-70b", "4x RTX 4090", {}, tree.QLORA, "qlora"),
    ("qwen2.5-0.5b", "RTX 3070", {}, tree.LORA_MEDIUM, "lora"),
    ("qwen2.5-0.5b", "L40S", {}, tree.LORA_VALUE, "lora"),
]


@pytest.mark.parametrize(("name", "gpus", "answers", "leaf", "rung"), CASES)
def test_the_walk_ends_where_the_documents_say(name, gpus, answers, leaf, rung):
    """Leaf by the tree, rung by what fits and runs."""
    machine = planned.plan_machine(gpus, host=HOST)

    found = recommend.recommend(model(name), machine, None, user(**answers))

    assert (found.leaf, found.rung) == (leaf, rung)
    assert found.fit.fits


def test_several_tasks_take_the_mixture_branch():
    """Sparse upcycling where compute is plentiful; LoRA is what this version runs."""
    machine = planned.plan_machine("8x H100", host=HOST)

    found = recommend.recommend(model(), machine, dataset(tasks=4), Wishes())

    assert (found.leaf, found.rung) == (tree.UPCYCLED, "lora")
    assert "does not run" in found.detour


def test_several_tasks_with_little_memory_mix_adapters():
    """The poor branch of the mixture."""
    machine = planned.plan_machine("1x RTX 4090", host=HOST)

    found = recommend.recommend(model(), machine, dataset(tasks=4), Wishes())

    assert found.leaf is tree.LORA_EXPERTS


def test_nothing_is_recommended_where_nothing_fits():
    """Not even the smallest rung, and the page says what is missing."""
    machine = planned.plan_machine("1x T4", host=HOST)

    found = recommend.recommend(model("llama-3.1-70b"), machine, None, Wishes())

    assert found.rung is None
    assert "nothing fits" in found.detour


def test_a_leaf_that_does_not_fit_gives_way_to_the_next_rung():
    """With the reason: 16-bit LoRA fits at rank 16, full fine-tuning does not."""
    machine = planned.plan_machine("1x RTX 4090", host=HOST)
    found = recommend.recommend(model(), machine, None, Wishes())

    full = next(a for a in found.alternatives if a.rung == "full")

    assert not full.fits
    assert "GiB free" in full.why_not
    assert "more per device" in full.unlock


def test_memory_that_somebody_else_holds_is_not_planned_with():
    """Half the card is taken: LoRA that would fit an empty 4090 does not fit this one."""
    machine = planned.plan_machine("1x RTX 4090", host=HOST)
    half = replace(machine.gpus[0], vram_free_bytes=machine.gpus[0].vram_bytes // 2)

    found = recommend.recommend(model(), replace(machine, gpus=(half,)), None, Wishes())

    assert found.rung == "qlora"


def test_a_card_without_bf16_gets_fp16():
    """V100: bf16 would be emulated."""
    machine = planned.plan_machine("V100-SXM2-32GB", host=HOST)

    found = recommend.recommend(model("qwen2.5-0.5b"), machine, None, Wishes())

    assert found.fit.plan.precision == "fp16"


def test_without_a_gpu_the_plan_is_fp32_in_host_memory():
    """And the budget is free RAM."""
    found = recommend.recommend(model("qwen2.5-0.5b"), HOST, None, Wishes())

    assert (found.fit.plan.precision, found.fit.budget_bytes) == ("fp32", HOST.ram_free_bytes)


def test_the_wanted_effective_batch_is_kept():
    """Whatever the split into micro-batches."""
    machine = planned.plan_machine("2x RTX 4090", host=HOST)

    found = recommend.recommend(model(), machine, dataset(), user(effective_batch=32))

    assert found.fit.plan.effective_batch == 32


def test_rows_are_as_long_as_the_data_needs():
    """900 tokens and room for the template's marks, rounded up to a multiple of 64."""
    found = recommend.recommend(model("qwen2.5-0.5b"), HOST, dataset(), Wishes())

    assert found.fit.plan.seq_len == 1024


@pytest.mark.parametrize("leaf", tree.LEAVES)
def test_every_leaf_is_reached(leaf):
    """No answer of the tree is dead."""
    reached = set()
    for full in (True, False):
        for lora in (True, False):
            for num_tasks in (1, 3):
                found = tree.Evidence(
                    full_fits=full,
                    full_words="",
                    lora_fits=lora,
                    lora_words="",
                    num_tasks=num_tasks,
                )
                for answers in (
                    {},
                    {"critical": True},
                    {"value": False},
                    {"complexity": "high"},
                    {"complexity": "low"},
                    {"quality": False},
                    {"quality": False, "task": "classify"},
                ):
                    reached.add(tree.walk(user(**answers), found)[1])

    assert leaf in reached


def test_every_step_says_where_its_answer_came_from():
    """Predicted by the estimate, or the user's word, or our default."""
    machine = planned.plan_machine("8x H100", host=HOST)

    path = recommend.recommend(model(), machine, None, user(critical=False)).path

    assert [s.origin for s in path] == [Origin.PREDICTED, Origin.USER, Origin.DEFAULT]


def test_the_runner_has_every_method_that_is_called_runnable():
    """The advisor's names match the registry."""
    pytest.importorskip("torch")
    from runner.methods import METHODS

    assert set(RUNNABLE) == set(METHODS)
    assert {rung.removesuffix("_8bit") for rung in LADDER} == set(RUNNABLE)


@pytest.mark.parametrize("gpus", ["1x RTX 4090", "4x RTX 4090", "8x H100", None])
def test_the_recipe_says_what_was_recommended(gpus):
    """The plan of the written recipe is the plan that was judged."""
    machine = planned.plan_machine(gpus, host=HOST) if gpus else HOST
    found = recommend.recommend(model(), machine, dataset(), Wishes())

    written = draft.recipe_of(found, model="m", data="d", version="1")

    assert written.to_plan() == found.fit.plan


def test_the_rank_is_lowered_until_it_fits():
    """Much data asks for rank 64; on a nearly full card a smaller one is taken."""
    machine = planned.plan_machine("1x T4", host=HOST)
    for free_mib in range(8000, 9200, 50):
        gpu = replace(machine.gpus[0], vram_free_bytes=free_mib << 20)

        found = recommend.recommend(
            model(), replace(machine, gpus=(gpu,)), dataset(rows=20_000), Wishes()
        )

        assert found.rung is None or found.fit.fits, free_mib
