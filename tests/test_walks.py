"""Walks through the whole decision: machine, model, task and answers in, leaf and rung out.

Expected ends are argued from the documents (METHODS §1 to §4) and from arithmetic on bytes: full
fine-tuning with AdamW keeps 16 bytes a parameter (fp32 weight, gradient, two moments), 8-bit AdamW
10, 16-bit LoRA 2, LLM.int8 1, NF4 0.52; activations of recomputed layers, the CUDA context and
what the allocator loses add one to a few GiB. Cases stand well clear of the limits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from known import HOST, dataset, model

from advisor.choice import recommend, tree
from advisor.choice.answers import Answer, Answers
from advisor.choice.ladder import steps
from advisor.choice.tree import native
from profiles.facts import GIB, GpuProcess, Origin
from profiles.machines import planned


class Case(NamedTuple):
    """A situation and where it must end."""

    why: str
    model: str
    gpus: str | None
    leaf: tree.Leaf
    rung: str | None
    runs: str | None
    """The rung that our runner would run, None if there is none."""
    answers: dict[str, Any] | None = None
    held_gib: tuple[float, ...] = ()
    """Of each GPU, by alice."""
    ram_gib: int | None = None
    rows: int = 0
    """0: no data."""
    tasks: int = 1
    reply: int = 150


MEDIUM, HIGH, LOW = tree.LORA_MEDIUM, tree.LORA_HIGH, tree.ADAPTER
LLAMA, BIG, SMALL = "llama-3.1-8b", "llama-3.1-70b", "qwen2.5-0.5b"
CRITICAL = {"critical": True}
CHEAP = {"quality": False}
LABELS = {"quality": False, "task": "classify"}
SEVERAL = {"rows": 1000, "tasks": 5}

ONE_GPU = [
    Case("weights 15 of 24 GiB; full would be 120", LLAMA, "RTX 4090", MEDIUM, "lora", "lora"),
    Case("a complex task: LoRA, more rank", LLAMA, "RTX 4090", HIGH, "lora", "lora",
         {"complexity": "high"}),
    Case("a simple task: LoRA of low rank for adapters", LLAMA, "RTX 4090", LOW, "lora",
         "lora", {"complexity": "low"}),
    Case("16-bit weights alone fill a T4; int8 ones are 9 GiB and keep their inputs", LLAMA, "T4",
         tree.QLORA, "qlora", "qlora"),
    Case("QLoRA of low rank for prompt tuning", LLAMA, "T4", tree.PROMPT, "qlora", "qlora", CHEAP),
    Case("QLoRA of low rank for BitFit", LLAMA, "T4", tree.BITFIT, "qlora", "qlora", LABELS),
    Case("int8 is 8.6 GiB before anything else, NF4 5.4", "qwen2.5-7b", "RTX 3080", tree.QLORA,
         "qlora", "qlora"),
    Case("70B in NF4: 37 GiB; in int8: 68", BIG, "A100 40GB", tree.QLORA, None, None,
         ram_gib=60),
    Case("the documents: a 70B in 4 bits needs 48 GB", BIG, "A100 80GB", tree.QLORA, "qlora",
         "qlora", held_gib=(20,)),
    Case("16 bytes x 0.5 G are 7.4 GiB of 8: no room for activations", SMALL, "RTX 3070", MEDIUM,
         "lora", "lora"),
    Case("the same on 45 GiB is plentiful, and value comes first", SMALL, "L40S", tree.LORA_VALUE,
         "lora", "lora"),
    Case("129 GiB on 192: plentiful on one card", LLAMA, "MI300X", tree.LORA_VALUE, "lora",
         "lora"),
    Case("a V100 has no bf16, which changes no bytes", LLAMA, "V100-SXM2-32GB", MEDIUM, "lora",
         "lora"),
    Case("a V100 is plentiful for a small model", SMALL, "V100-SXM2-32GB", tree.LORA_VALUE, "lora",
         "lora"),
]  # fmt: skip

CRITICAL_TASKS = [
    Case("no full fine-tuning of any kind fits 24 GiB: the documents' tree goes on", LLAMA,
         "RTX 4090", MEDIUM, "lora", "lora", CRITICAL),
    Case("16 x 1.5 = 23 GiB of 24, 8-bit moments make it 14", "qwen2.5-1.5b", "RTX 4090",
         tree.LIGHT_FULL, "full_8bit", "full_8bit", CRITICAL),
    Case("8 bytes x 8 G + moments of embeddings: 72 GiB and no GaLore; a quarter of the layers"
         " trains", LLAMA, "A100 80GB", tree.LIGHT_FULL, "freeze", "freeze", CRITICAL),
    Case("70B: 141 GiB a GPU, 88 with 8-bit moments; a quarter of it trains in 45", BIG,
         "8x H100", tree.LIGHT_FULL, "freeze", "freeze", CRITICAL),
    Case("70B on 16 GPUs: 66 GiB a GPU of 140", BIG, "16x H200", tree.FULL, "full", "full",
         CRITICAL),
]  # fmt: skip

MANY_GPUS = [
    Case("the documents' case: 70B on 4 x 24 GB; NF4 shards are 9 GiB, int8 is not sharded", BIG,
         "4x RTX 4090", tree.QLORA, "qlora", "qlora"),
    Case("70B: full 141 GiB a GPU, 16-bit shards 16", BIG, "8x H100", MEDIUM, "lora", "lora"),
    Case("full: 16 GiB a GPU of 80; value first by default", LLAMA, "8x H100", tree.LORA_VALUE,
         "lora", "lora"),
    Case("critical and plentiful", LLAMA, "8x H100", tree.FULL, "full", "full", CRITICAL),
    Case("no value for money wanted", LLAMA, "8x H100", tree.FULL, "full", "full",
         {"value": False}),
    Case("two 24 GB cards: full is 60 GiB each", LLAMA, "2x RTX 4090", MEDIUM, "lora", "lora"),
    Case("cards of two sizes: the larger one alone holds 16-bit weights", LLAMA,
         "RTX 4090 + RTX 3070", MEDIUM, "lora", "lora"),
]  # fmt: skip

SHARED_OR_NONE = [
    Case("half the card is taken: 12 GiB are less than 16-bit weights", LLAMA, "RTX 4090",
         tree.QLORA, "qlora", "qlora", held_gib=(13,)),
    Case("one of two cards is full: the other does it alone", LLAMA, "2x RTX 4090", MEDIUM,
         "lora", "lora", held_gib=(0, 23)),
    Case("one of eight is full: seven hold 17 GiB each", LLAMA, "8x H100", tree.FULL, "full",
         "full", CRITICAL, held_gib=(0, 0, 0, 0, 0, 0, 0, 79)),
    Case("no GPU: full is 7.4 GiB of 60, but on a CPU", SMALL, None, MEDIUM, "lora",
         "lora"),
    Case("no GPU: full is 120 GiB, LoRA's fp32 base 30 of 60", LLAMA, None, MEDIUM, "lora",
         "lora"),
    Case("no GPU: a fp32 base of 30 GiB is too much for 24; linears in NF4 are 4", LLAMA, None,
         tree.QLORA, "qlora", "qlora", ram_gib=24),
    Case("no GPU and 32 GiB: 70B in NF4 is 37", BIG, None, tree.QLORA, None, None, ram_gib=32),
    Case("a card that is too small for NF4 takes the weights from 256 GiB of RAM", BIG, "RTX 4090",
         tree.QLORA, "offload", None, ram_gib=256),
    Case("and with 60 GiB of RAM for 131 GiB of weights there is no way", BIG, "RTX 4090",
         tree.QLORA, None, None),
]  # fmt: skip

MIXTURES = [
    Case("a mixture keeps all 57 GiB in memory, though 3 B are active", "qwen3-30b-a3b", "H100",
         native(MEDIUM), "lora", "lora"),
    Case("simple task: LoRA of low rank", "qwen3-30b-a3b", "H200", native(LOW), "lora", "lora",
         {"complexity": "low"}),
    Case("complex task: adapters on the experts too", "qwen3-30b-a3b", "H200", native(HIGH),
         "lora_on_experts", "lora_on_experts", {"complexity": "high"}),
    Case("13 GiB of 24", "olmoe-1b-7b", "RTX 4090", native(MEDIUM), "lora", "lora"),
    Case("experts have 4 bits too: 17 GiB of 24", "qwen3-30b-a3b", "RTX 4090",
         native(tree.QLORA), "qlora", "qlora"),
    Case("and of Mixtral 27 to 30 of 80", "mixtral-8x7b", "A100 80GB", native(tree.QLORA),
         "qlora", "qlora"),
    Case("which are too many for 24", "mixtral-8x7b", "RTX 4090", native(tree.QLORA), None, None,
         ram_gib=32),
    Case("cheap and small: of the four families that is QLoRA", "mixtral-8x7b", "A100 80GB",
         native(tree.PROMPT), "qlora", "qlora", CHEAP, ram_gib=60),
    Case("87 GiB over two GPUs", "mixtral-8x7b", "2x A100 80GB", native(MEDIUM), "lora", "lora"),
    Case("16 x 30.5 = 455 GiB over eight: 57 each of 140", "qwen3-30b-a3b", "8x H200",
         native(tree.FULL), "full", "full", CRITICAL),
    Case("the same, value first", "qwen3-30b-a3b", "8x H200", native(tree.LORA_VALUE), "lora",
         "lora"),
    Case("several tasks do not upcycle what has experts", "olmoe-1b-7b", "RTX 4090",
         native(MEDIUM), "lora", "lora", **SEVERAL),
]  # fmt: skip

SEVERAL_TASKS = [
    Case("8 experts make 9.6 G parameters: 18 GiB a GPU", "qwen2.5-1.5b", "8x A100 80GB",
         tree.UPCYCLED, "moe_upcycling", "moe_upcycling", **SEVERAL),
    Case("47.5 G parameters: 88 GiB a GPU, 55 with 8-bit moments; 40 is less than both", LLAMA,
         "8x A100 40GB", tree.UPCYCLED, "lora_experts", "lora_experts", **SEVERAL),
    Case("94 GiB: AdamW's 88 and the layers in flight are too much, 8-bit moments do", LLAMA,
         "8x H100 NVL", tree.UPCYCLED, "moe_upcycling_8bit", "lora", **SEVERAL),
    Case("limited compute: LoRA experts", LLAMA, "RTX 4090", tree.LORA_EXPERTS, "lora_experts",
         "lora_experts", **SEVERAL),
    Case("not even one 16-bit LoRA: the ladder goes on", LLAMA, "T4", tree.LORA_EXPERTS,
         "qlora", "qlora", **SEVERAL),
    Case("no mixture is made of GPT-2", "gpt2", "8x H100", tree.LORA_EXPERTS, "lora_experts",
         "lora_experts", **SEVERAL),
]  # fmt: skip

BY_THE_DATA = [
    Case("replies of four tokens are labels: low", LLAMA, "RTX 4090", LOW, "lora", "lora",
         rows=2000, reply=4),
    Case("50 000 replies of 150 tokens are much to learn: high", LLAMA, "RTX 4090", HIGH, "lora",
         "lora", rows=50_000),
    Case("the user's word comes before the data's", LLAMA, "RTX 4090", MEDIUM, "lora", "lora",
         {"complexity": "medium"}, rows=50_000),
]  # fmt: skip

CASES = [
    *(ONE_GPU + CRITICAL_TASKS + MANY_GPUS + SHARED_OR_NONE),
    *(MIXTURES + SEVERAL_TASKS + BY_THE_DATA),
]


def walked(case):
    """The recommendation of a case."""
    data = None
    if case.rows:
        data = dataset(rows=case.rows, tasks=case.tasks)
        end = 100 + case.reply
        tokens = replace(data.tokens, edges=((100, case.rows), (end, -case.rows)))
        data = replace(data, tokens=tokens)
    answers = Answers(
        **{name: Answer(value, Origin.USER) for name, value in (case.answers or {}).items()}
    )
    return recommend.recommend(model(case.model), machine_of(case), data, answers)


def machine_of(case):
    """With alice's memory taken away."""
    if case.gpus is None:
        return replace(HOST, ram_free_bytes=(case.ram_gib or 60) * GIB)
    machine = planned.plan_machine(case.gpus, ram=f"{case.ram_gib}G" if case.ram_gib else None)
    held = [int(gib * GIB) for gib in case.held_gib] or [0] * len(machine.gpus)
    gpus = [
        replace(
            gpu,
            vram_free_bytes=gpu.vram_free_bytes - taken,
            holders=(GpuProcess(pid=4711, name="python", user="alice", vram_bytes=taken),)
            if taken
            else (),
        )
        for gpu, taken in zip(machine.gpus, held, strict=True)
    ]
    return replace(machine, gpus=tuple(gpus))


@pytest.mark.parametrize("case", CASES, ids=[case.why for case in CASES])
def test_the_walk_ends_where_documents_and_arithmetic_say(case):
    """Leaf, rung, and what the runner would run."""
    found = walked(case)

    runs = found.runnable.rung if found.runnable else None
    assert (found.leaf, found.rung, runs) == (case.leaf, case.rung, case.runs)


@pytest.mark.parametrize("case", CASES, ids=[case.why for case in CASES])
def test_what_is_recommended_is_sound(case):
    """It fits, says why, keeps the batch, and names a reason for everything that was not taken."""
    found = walked(case)

    if found.rung is None:
        assert "nothing fits" in found.detour
        assert not any(other.possible for other in found.alternatives if other.rung in steps())
        assert found.runnable is None
        return
    assert found.fit.fits
    assert bool(found.detour) == (found.rung != found.leaf.methods[0])
    assert found.runs == (found.rung == case.runs)
    if found.runnable:
        assert found.runnable.fit.fits
        assert found.runnable.fit.runs
        assert bool(found.runnable.why) == (not found.runs)
    rows = {other.rung: other for other in found.alternatives}
    assert rows.pop(found.rung).why_not == ""
    assert all(other.why_not for other in rows.values())
    assert all(bool(other.unlocks) != other.fits for other in rows.values())
    assert all(step.evidence for step in found.path)


def test_the_table_reaches_every_leaf_and_every_rung_that_can_be_reached():
    """APOLLO and GaLore are between: their limits are tested in test_fallback.py."""
    leaves = {case.leaf for case in CASES}
    assert {value for value in vars(tree).values() if isinstance(value, tree.Leaf)} <= leaves
    assert {native(leaf) for leaf in (MEDIUM, HIGH, LOW, tree.FULL, tree.LORA_VALUE)} <= leaves
    assert {native(tree.QLORA), native(tree.PROMPT)} <= leaves
    rungs = {case.rung for case in CASES}
    assert set(steps()) - {"galore", "apollo"} <= rungs
    assert {"lora_on_experts", "moe_upcycling", "moe_upcycling_8bit", "lora_experts"} <= rungs
