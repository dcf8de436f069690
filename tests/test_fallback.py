"""From leaf to rung: the ladder goes down where a rung does not fit, and each rung can be taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import HOST, model
from plans import made

from advisor.choice import recommend, tree, words
from advisor.choice.answers import Answer, Answers
from advisor.choice.devices import Batch
from advisor.choice.fallback import fall_back, nearest_that_runs, why_not_above
from advisor.choice.ladder import plans, steps, unsupported
from advisor.choice.options import Options
from advisor.choice.upcycle import family_of, upcycled
from advisor.registry.lookup import all_presets, preset_of
from advisor.registry.low_rank import ALL_TARGETS
from profiles.facts import GIB, Origin
from profiles.machines import planned

CRITICAL = Answers(critical=Answer(True, Origin.USER))
LABELS = Answers(quality=Answer(False, Origin.USER), task=Answer("classify", Origin.USER))
NARROW = {"hidden_size": 96, "num_heads": 3, "num_kv_heads": 3, "head_dim": 32, "num_layers": 200}
"""Where the shorter side of every matrix is below GaLore's rank, APOLLO keeps less."""


def card(free_bytes):
    """One GPU with this much free, and much RAM."""
    box = planned.plan_machine("H200", ram="2T")
    return replace(box, gpus=(replace(box.gpus[0], vram_free_bytes=int(free_bytes)),))


def options(base, free_bytes, rank=8, task="sft"):
    """The rungs on such a card."""
    plan = made("lora", task=task, seq_len=2048, rank=rank, alpha=2 * rank, targets=ALL_TARGETS)
    return Options(base, card(free_bytes), plan, Batch(rows=16))


def least(base, rung, **wanted):
    """The bytes that a rung cannot do without."""
    found = options(base, 0, **wanted)
    return found.fit(rung).memory.high_bytes


@pytest.mark.parametrize(
    ("base", "leaf", "below", "expected"),
    [
        (model(), tree.FULL, "full", "full_8bit"),
        (model(), tree.LIGHT_FULL, "full_8bit", "galore"),
        (model(), tree.LIGHT_FULL, "galore", "freeze"),
        (model(), tree.LORA_MEDIUM, "lora", "qlora"),
        (model(), tree.QLORA, "qlora", "offload"),
    ],
)
def test_a_byte_less_than_a_rung_needs_takes_the_next(base, leaf, below, expected):
    """With the reason; what was lacking is in it."""
    found = options(base, least(base, below) - 1)

    rung, why = fall_back(leaf, found)

    assert rung == expected
    assert why == "" if leaf.methods[0] == expected else "GiB free" in why


def test_apollo_is_taken_where_galore_needs_more():
    """GaLore keeps its projections beside the moments; APOLLO makes them again from a seed."""
    base = model("qwen2.5-0.5b", **NARROW, intermediate_size=256, num_params=60_000_000)
    galore, apollo = (least(base, rung) for rung in ("galore", "apollo"))
    assert apollo < galore

    found = options(base, (galore + apollo) / 2)

    assert not found.obstacle("apollo")
    assert found.obstacle("galore")
    assert fall_back(replace(tree.LIGHT_FULL, methods=("galore", "apollo")), found)[0] == "apollo"


def test_galore_is_recommended_where_8_bit_moments_do_not_fit():
    """Critical task, 8B: 10 bytes a parameter are too many, 8 and a little are not."""
    box = card((least(model(), "full_8bit") + least(model(), "galore")) / 2)

    found = recommend.recommend(model(), box, None, CRITICAL)

    assert (found.leaf, found.rung) == (tree.LIGHT_FULL, "galore")
    assert found.runnable.rung == "galore"
    assert "8-bit" in found.above


def test_what_stands_for_bitfit_is_told_with_it():
    """QLoRA of low rank where little memory and little quality are asked of; BitFit is a row."""
    base = model("qwen2.5-7b")
    lora, bitfit = (least(base, rung, task="classify") for rung in ("lora", "bitfit"))
    assert bitfit < lora

    found = recommend.recommend(base, card((lora + bitfit) / 2), None, LABELS)
    row = next(row for row in found.alternatives if row.rung == "bitfit")

    assert (found.leaf, found.rung) == (tree.BITFIT, "qlora")
    assert found.fit.plan.settings.rank == 4
    assert "BitFit or prompt tuning" in found.leaf.reason
    assert (row.fits, row.why_not) == (True, "the documents' other choice here")


def test_the_ladder_goes_from_more_to_less_memory():
    """Down to QLoRA; APOLLO's default rank is twice GaLore's, which costs a little more."""
    sizes = [least(model(), rung) for rung in steps() if rung != "apollo"]

    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("rung", "runs"),
    [
        ("lora", "lora"),
        ("galore", "galore"),
        ("adapter", "adapter"),
        ("qlora_8bit", "qlora_8bit"),
        ("prompt_tuning", "prompt_tuning"),
        ("prefix_tuning", "prefix_tuning"),
        ("lora_experts", "lora"),  # of one task there is none
        ("full", "full"),
    ],
)
def test_the_nearest_that_runs(rung, runs):
    """Down the ladder first; what is not on it stands beside LoRA."""
    found = options(model("qwen2.5-1.5b"), 60 * GIB)

    assert nearest_that_runs(rung, found)[0] == runs


def test_the_rung_above_is_told_with_what_would_unlock_it():
    """Each in one line."""
    found = options(model(), least(model(), "lora") - 1)

    line = why_not_above("qlora", found)

    assert line.startswith("not LoRA: it needs up to")
    assert "it would fit with rows of at most" in line
    assert why_not_above("full", found) == ""


def test_no_rung_is_told_above_one_that_was_chosen_though_more_fits():
    """The tree wanted it so."""
    assert why_not_above("lora", options(model("qwen2.5-0.5b"), 60 * GIB)) == ""


@pytest.mark.parametrize(
    ("box", "rung", "above"),
    [
        ("RTX 4090", "lora", ["freeze"]),
        ("RTX 3080 10GB", "qlora", ["lora"]),
        ("RTX 3060", "offload", ["qlora"]),
        ("8x H100", "lora", []),
    ],
)
def test_the_row_of_the_rung_above_is_marked(box, rung, above):
    """Where its reason is told, and nowhere else."""
    found = recommend.recommend(model(), planned.plan_machine(box, ram="64G"), None, Answers())

    marked = [row.rung for row in found.alternatives if row.is_above]

    assert (found.rung, marked) == (rung, above)
    assert bool(found.above) == bool(marked)


@pytest.mark.parametrize(
    ("rung", "name", "gpus", "word"),
    [
        ("bitfit", "llama-3.1-8b", "RTX 4090", "biases"),
        ("bitfit", "qwen2.5-7b", "RTX 4090", ""),
        ("moe_upcycling", "gpt2", "RTX 4090", "gpt2"),
        ("moe_upcycling", "qwen2.5-7b", "RTX 4090", ""),
        ("full_8bit", "gpt2", None, "need a GPU"),
        ("offload", "gpt2", "MI300X", "NVIDIA"),
        ("qlora", "gpt2", "MI300X", ""),
    ],
)
def test_what_makes_no_sense_is_left_out(rung, name, gpus, word):
    """For the model or the machine."""
    box = planned.plan_machine(gpus) if gpus else HOST

    reason = unsupported(preset_of(rung), model(name), box)

    assert word in reason
    assert bool(reason) == bool(word)


def test_freezing_leaves_as_few_layers_alone_as_fit():
    """Half of them first, then three quarters."""
    base = made("lora", seq_len=2048, rank=8, alpha=16, targets=ALL_TARGETS)

    assert [plan.settings.frozen_layers for plan in plans(preset_of("freeze"), model(), base)] == [
        16,
        24,
    ]


def test_a_rung_whose_best_plan_does_not_run_yet_is_fitted_again_with_what_runs():
    """Two GPUs would share 8-bit states and gradients by ZeRO-2; each can hold them all."""
    box = planned.plan_machine("2x H200")
    plan = made("lora", seq_len=2048, rank=8, alpha=16)
    found = Options(model(), box, plan, Batch(rows=16))

    assert not found.fit("full_8bit").runs

    again = found.fit_that_runs("full_8bit")
    assert again is not None
    assert (again.runs, again.fits) == (True, True)
    assert again.plan.engine is not found.fit("full_8bit").plan.engine


def test_a_rung_that_runs_is_fitted_once():
    """Though another plan of it would run too."""
    found = options(model(), 40 * GIB)

    assert found.fit_that_runs("lora") is found.fit("lora")


@pytest.mark.parametrize("rank", [64, 8, 4])
def test_a_rank_that_does_not_fit_is_halved_down_to_the_least(rank):
    """The least rank of our own is 8; a smaller one that was asked for is tried alone."""
    base, least = model(), options(model(), 0, rank=min(rank, 8))
    room = least.fit("lora").memory.high_bytes

    found = options(base, room, rank=2)
    found.set_rank("lora", rank, 0.0)
    plan = found.fit("lora").plan

    assert (plan.settings.rank, plan.settings.alpha) == (min(rank, 8), 2 * min(rank, 8))
    assert found.fit("lora").fits


def test_a_rank_that_fits_in_no_size_leaves_the_rung_as_it_was():
    """The search ends at the least."""
    found = options(model(), options(model(), 0, rank=2).fit("lora").memory.high_bytes, rank=2)

    found.set_rank("lora", 64, 0.05)

    assert found.fit("lora").plan.settings.rank == 2


@pytest.mark.parametrize(("unlock", "told"), [("", ""), ("2 more GPUs do", "; 2 more GPUs do")])
def test_why_not_the_rung_above_ends_with_what_would_help(unlock, told):
    """Or with the reason, where nothing would."""
    assert words.above("full", "is large", unlock) == f"not full fine-tuning: it is large{told}"


def test_nothing_is_moved_to_a_ram_that_is_the_gpu_s_memory():
    """It would be counted twice."""
    spark, card_of_its_own = (planned.plan_machine(text) for text in ("GB10", "H200"))
    moved = next(preset for preset in all_presets() if preset.offload)
    assert "share their memory" in unsupported(moved, model(), spark)
    assert unsupported(moved, model(), card_of_its_own) == ""


def test_an_apple_gpu_takes_adapters_and_no_quantized_base():
    """What bitsandbytes takes there was never measured."""
    apple = replace(card(60 * GIB), backend="mps")

    assert "Apple" in unsupported(preset_of("qlora"), model(), apple)
    assert unsupported(preset_of("lora"), model(), apple) == ""


def test_a_need_that_just_fits_the_gpu_is_told_of_the_ram():
    """What fits to the last byte is not what is lacking."""
    found = options(model(), 60 * GIB).fit("lora")
    full = found.memory.high_bytes
    short = replace(found, budget_bytes=full, host_bytes=2 * GIB, host_budget_bytes=GIB)

    assert not short.fits
    assert words.need(short) == "needs 2.0 GiB of RAM of 1.0 GiB free"
    assert words.need(replace(short, budget_bytes=full - 1)).startswith("needs up to")


@pytest.mark.parametrize("dense", ["llama", "mistral", "qwen2", "qwen3"])
def test_the_mixture_of_a_dense_family_is_a_class_of_transformers(dense):
    """By the type that its config says."""
    made = upcycled(model(model_type=dense))

    architecture = getattr(pytest.importorskip("transformers"), made.architecture)
    assert architecture.config_class.model_type == made.model_type
    assert made.model_type == family_of(model(model_type=dense))
