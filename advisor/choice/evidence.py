"""The facts that the tree asks for, from the rungs' fits, the model and the data."""

from __future__ import annotations

from advisor.choice import words
from advisor.choice.answers import Answers
from advisor.choice.options import Options
from advisor.choice.tree import LIGHT_FULL, Evidence
from advisor.choice.upcycle import family_of, obstacle
from profiles.facts import Dataset, Experts, Origin


def gather(options: Options, dataset: Dataset | None, answers: Answers) -> Evidence:
    """What decides in the tree is memory: full fine-tuning with AdamW, LoRA in 16 bits.

    Where the first fits, the second is not asked for.
    """
    model = options.model
    full = options.obstacle("full")
    plentiful = not full and bool(options.machine.gpus)
    lora = "" if plentiful else options.obstacle("lora")
    light = _light(options) if answers.critical.value and not plentiful else ""
    family = family_of(model)
    return Evidence(
        full_fits=plentiful,
        full_words=full or _full_words(options),
        lora_fits=not lora,
        lora_words=lora or ("" if plentiful else words.need(options.least("lora"))),
        light_fits=bool(light),
        light_words=_light_words(options, light),
        has_experts=model.experts is not None,
        experts_words=_experts_words(model.experts),
        num_tasks=options.num_tasks,
        tasks_words=_tasks_words(dataset),
        tasks_origin=Origin.DEFAULT if dataset is None else Origin.MEASURED,
        can_upcycle=bool(family),
        upcycle_words=f"{model.model_type} becomes {family}" if family else obstacle(model),
    )


def _full_words(options: Options) -> str:
    words_of_need = words.need(options.least("full"))
    return words_of_need if options.machine.gpus else f"{words_of_need}, but on a CPU"


def _light(options: Options) -> str:
    """The first lighter form of full fine-tuning that can be had, or empty."""
    return next((rung for rung in LIGHT_FULL.methods if not options.obstacle(rung)), "")


def _light_words(options: Options, light: str) -> str:
    if light:
        return f"{words.title(light)} {words.need(options.fit(light))}"
    return "neither 8-bit AdamW, GaLore and APOLLO nor the last layers alone"


def _experts_words(experts: Experts | None) -> str:
    if experts is None:
        return "its config names no experts"
    return f"{experts.num_experts} experts, {experts.top_k} a token; memory holds them all"


def _tasks_words(dataset: Dataset | None) -> str:
    if dataset is None:
        return "no data was given"
    if dataset.num_tasks > 1:
        return f"{dataset.num_tasks} values in the column `task`"
    return "no column `task` tells them apart"
