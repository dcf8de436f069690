"""The recommendation around the walk: alternatives, settings, warnings, refusals, the recipe.

Where walks end is in test_walks.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import HOST, dataset, model

from advisor import draft
from advisor.choice import recommend, tree
from advisor.choice.answers import Answer, Answers
from advisor.choice.ladder import placed, steps
from advisor.framework import OURS
from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, GpuProcess, Origin
from profiles.machines import planned


def user(**answers):
    """Answers with these answers given by the user."""
    return Answers(**{name: Answer(value, Origin.USER) for name, value in answers.items()})


def on(gpus, **host):
    """A planned machine."""
    return replace(planned.plan_machine(gpus), **host)


def here(gpus, **host):
    """The same as if it had been probed."""
    return replace(on(gpus, **host), origin=Origin.MEASURED)


def rows(found):
    """The alternatives by rung."""
    return {other.rung: other for other in found.alternatives}


def setting(found, name):
    """The value of a proposed setting."""
    return next(s.value for s in found.hyperparameters if s.name == name)


def test_every_method_is_a_row():
    """The ladder, the small methods, and nothing that makes no sense."""
    found = recommend.recommend(model("qwen2.5-7b"), on("RTX 4090"), None, Answers())
    llama = recommend.recommend(model(), on("RTX 4090"), None, Answers())

    every = {*steps(), *placed("beside"), *placed("row")}
    assert set(rows(found)) == every - {"llama_adapter"}  # which PEFT has for Llama and Mistral
    assert "bitfit" not in rows(llama)
    assert "llama_adapter" in rows(llama)


def test_a_row_says_why_not_and_what_would_unlock_it():
    """Full fine-tuning of an 8B on 24 GiB."""
    full = rows(recommend.recommend(model(), on("RTX 4090"), None, Answers()))["full"]

    assert not full.possible
    assert "of 24.0 GiB free" in full.why_not
    assert any("more per device" in way.words for way in full.unlocks)


def test_a_row_says_whether_it_runs():
    """By method, optimizer, strategy and bits."""
    found = rows(recommend.recommend(model(), on("RTX 4090"), dataset(tasks=3), Answers()))

    runs = {name for name, row in found.items() if row.runs}
    assert runs == {
        *("full", "full_8bit", "freeze", "galore", "apollo", "lora", "qlora", "qlora_8bit"),
        *("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2", "ia3", "ln_tuning"),
        *("adapter", "llama_adapter", "shira", "moe_upcycling", "moe_upcycling_8bit"),
        "lora_experts",
    }


def test_mixtures_have_their_rows():
    """LoRA on experts where there are some; upcycling and LoRA experts for several tasks."""
    native = recommend.recommend(model("olmoe-1b-7b"), on("H200"), None, Answers())
    tasks = recommend.recommend(model("qwen2.5-1.5b"), on("8x H100"), dataset(tasks=4), Answers())

    assert "lora_on_experts" in rows(native)
    assert {"moe_upcycling", "moe_upcycling_8bit", "lora_experts"} <= set(rows(tasks))


def test_somebody_else_on_the_gpu_is_named():
    """And what she holds is what would unlock LoRA."""
    box = on("RTX 4090")
    alice = GpuProcess(pid=4711, name="python", user="alice", vram_bytes=13 * GIB)
    gpu = replace(box.gpus[0], vram_free_bytes=11 * GIB, holders=(alice,))

    found = recommend.recommend(model(), replace(box, gpus=(gpu,)), None, Answers())

    assert any("13.0 GiB of 24.0 GiB are used by alice" in w for w in found.warnings)
    assert "the 13.0 GiB that alice holds" in [way.words for way in rows(found)["lora"].unlocks]


def test_gpus_that_stay_idle_are_told():
    """One of two is full."""
    box = on("2x RTX 4090")
    gpus = (box.gpus[0], replace(box.gpus[1], vram_free_bytes=GIB))

    found = recommend.recommend(model(), replace(box, gpus=gpus), None, Answers())

    assert any(warning.startswith("1 of 2 GPUs are used") for warning in found.warnings)


def test_a_card_without_bf16_gets_fp16():
    """V100: bf16 would be emulated."""
    found = recommend.recommend(model(), on("V100-SXM2-32GB"), None, Answers())

    assert {row.fit.plan.precision for row in found.alternatives} == {"fp16"}
    assert setting(found, "precision") == "fp16"


def test_without_a_gpu_the_plan_is_fp32_in_host_memory():
    """And the budget is free RAM."""
    found = recommend.recommend(model("qwen2.5-0.5b"), HOST, None, Answers())

    assert (found.fit.plan.precision, found.fit.budget_bytes) == ("fp32", HOST.ram_free_bytes)


def test_rows_are_as_long_as_the_data_needs():
    """900 tokens, rounded up to a multiple of 64; more room where they are only predicted."""
    measured = dataset()
    predicted = replace(measured, tokens=replace(measured.tokens, origin=Origin.PREDICTED))

    for data, length in ((measured, 960), (predicted, 1024)):
        found = recommend.recommend(model("qwen2.5-0.5b"), HOST, data, Answers())
        assert found.fit.plan.seq_len == length


def test_the_wanted_effective_batch_is_kept():
    """Whatever the split into micro-batches."""
    found = recommend.recommend(model(), on("2x RTX 4090"), dataset(), user(effective_batch=32))

    assert found.fit.plan.effective_batch == 32


def test_a_batch_that_cannot_be_kept_is_told():
    """Eleven rows divide over one GPU only, and a 70B needs several."""
    found = recommend.recommend(
        model("llama-3.1-70b"), on("8x A100 40GB"), None, user(effective_batch=11)
    )

    assert any("not 11" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("rung", "answers", "name", "expected"),
    [
        ("lora", {}, "llama-3.1-8b", 2e-4),
        ("lora", {}, "llama-3.1-70b", 1e-4),
        ("full", {"critical": True}, "llama-3.1-8b", 1e-5),
        ("full", {"critical": True}, "qwen2.5-0.5b", 2e-5),
    ],
)
def test_the_learning_rate_is_in_the_documents_range(rung, answers, name, expected):
    """Lower for large models, higher for small ones."""
    found = recommend.recommend(model(name), on("8x H100"), None, user(**answers))

    assert (found.rung, found.learning_rate) == (rung, expected)


def test_few_rows_get_some_dropout():
    """Rows that are few are learned by heart."""
    few = recommend.recommend(model(), on("A100 80GB"), dataset(rows=200), Answers())
    many = recommend.recommend(model(), on("A100 80GB"), dataset(rows=5000), Answers())

    assert (few.fit.plan.settings.dropout, many.fit.plan.settings.dropout) == (0.05, 0.0)


def test_adapters_on_experts_get_no_dropout():
    """However few the rows: PEFT cannot, and preflight refuses it."""
    base, few = model("olmoe-1b-7b"), dataset(rows=200)
    found = recommend.recommend(base, on("RTX 4090"), few, user(complexity="high"))
    plain = recommend.recommend(base, on("RTX 4090"), few, user(complexity="medium"))

    assert (found.rung, found.fit.plan.settings.dropout) == ("lora_on_experts", 0.0)
    assert (plain.rung, plain.fit.plan.settings.dropout) == ("lora", 0.05)


@pytest.mark.parametrize(("count", "rank"), [(1000, 8), (20_000, 16)])
def test_much_data_gets_the_upper_end_of_the_ranks(count, rank):
    """Called a heuristic."""
    found = recommend.recommend(
        model(), on("RTX 4090"), dataset(rows=count), user(complexity="medium")
    )

    assert found.fit.plan.settings.rank == rank
    assert "heuristic" in next(s.reason for s in found.hyperparameters if s.name == "rank")


@pytest.mark.parametrize(
    ("count", "epochs"), [(9_999, 3.0), (10_000, 2.0), (99_999, 2.0), (100_000, 1.0)]
)
def test_the_fewer_rows_the_more_often_they_are_seen(count, epochs):
    """Once is enough for very many."""
    found = recommend.recommend(model(), on("RTX 4090"), dataset(rows=count), Answers())
    assert found.epochs == epochs


def test_the_rank_is_lowered_until_it_fits():
    """Much data asks for rank 64; on a nearly full card a smaller one is taken."""
    box = on("T4")
    for free_mib in range(8000, 9600, 200):
        gpu = replace(box.gpus[0], vram_free_bytes=free_mib << 20)

        found = recommend.recommend(
            model(), replace(box, gpus=(gpu,)), dataset(rows=20_000), Answers()
        )

        assert found.rung is None or found.fit.fits, free_mib


def test_warm_up_is_a_tenth_but_not_more_than_a_hundred_steps():
    """3750 steps of 16 rows: 100 of them are 2.7 %."""
    long = recommend.recommend(model(), on("8x H100"), dataset(rows=20_000), Answers())
    short = recommend.recommend(model(), on("8x H100"), dataset(), Answers())

    assert (long.runnable.warmup, short.runnable.warmup) == (0.04, 0.1)


def test_a_mixture_keeps_its_router_and_a_new_one_is_balanced():
    """Frozen under adapters, trained with its own coefficient, 0.1 where it starts from nothing."""
    adapters = recommend.recommend(model("olmoe-1b-7b"), on("RTX 4090"), None, Answers())
    whole = recommend.recommend(model("olmoe-1b-7b"), on("8x H100"), None, user(critical=True))
    new = recommend.recommend(model("qwen2.5-1.5b"), on("8x H100"), dataset(tasks=4), Answers())

    assert setting(adapters, "router") == "frozen"
    assert (setting(whole, "router"), setting(whole, "aux loss")) == ("trained", "the model's own")
    assert setting(new, "aux loss") == "0.1"


def test_a_full_disk_takes_the_next_rung():
    """Full fine-tuning writes 16 bytes a parameter for each checkpoint; LoRA hardly anything."""
    box = here("8x H100", disk_free_bytes=100 * GIB)

    found = recommend.recommend(model(), box, None, user(critical=True))

    assert found.rung == "lora"
    assert "disk" in rows(found)["full"].why_not


def test_a_smaller_disk_keeps_fewer_checkpoints():
    """Two instead of three, and it is told."""
    box = here("8x H100", disk_free_bytes=330 * GIB)

    found = recommend.recommend(model(), box, None, user(critical=True))

    assert (found.rung, found.runnable.kept_checkpoints) == ("full", 2)
    assert any("room for 2 checkpoints" in warning for warning in found.warnings)


def test_a_model_that_is_not_here_is_downloaded_to_the_disk():
    """Its weight files count."""
    local = recommend.recommend(model(), on("RTX 4090"), None, Answers())
    remote = recommend.recommend(
        model(path=None, weight_bytes=16 * GIB, gated=True), on("RTX 4090"), None, Answers()
    )

    assert remote.disk_bytes - local.disk_bytes == 16 * GIB
    assert any("gated" in warning for warning in remote.warnings)


REFUSED = [
    ({"max_positions": 2048}, {"seq_len": 4096}, "positions"),
    ({}, {"seq_len": 4}, "4 tokens"),
    ({}, {"seq_len": -5}, "-5 tokens"),
    ({}, {"effective_batch": 0}, "0 rows"),
    ({}, {"effective_batch": -8}, "-8 rows"),
    ({"hidden_size": 0}, {}, "hidden size 0"),
    ({"num_params": -1}, {}, "parameters -1"),
    ({"dtype": "float8_e4m3fn"}, {}, "float8"),
    ({"dtype": "fp8"}, {}, "fp8"),
    ({"unmodelled": "36 of 48 layers use linear attention"}, {}, "--rehearse"),
]


@pytest.mark.parametrize(("changes", "answers", "word"), REFUSED)
def test_inputs_that_cannot_be_true_are_refused(changes, answers, word):
    """With what, why, what to do, and where."""
    with pytest.raises(UserError) as caught:
        recommend.recommend(model(**changes), on("RTX 4090"), None, user(**answers))

    error = caught.value
    assert error.code is ExitCode.USAGE
    assert word in f"{error.what} {error.why} {error.do}"
    assert error.do
    assert error.where


def test_a_gpu_without_known_memory_is_refused():
    """Nothing can be planned for it."""
    box = on("RTX 4090")
    gpu = replace(box.gpus[0], vram_bytes=0, vram_free_bytes=0)

    with pytest.raises(UserError, match="memory of GPU 0 is not known"):
        recommend.recommend(model(), replace(box, gpus=(gpu,)), None, Answers())


def test_unknown_positions_limit_nothing():
    """0 means that the config does not say."""
    found = recommend.recommend(model(max_positions=0), on("A100 80GB"), None, user(seq_len=16_384))

    assert found.fit.plan.seq_len == 16_384


def test_the_complexity_is_proposed_with_its_evidence():
    """Measured on the data, and called a heuristic."""
    found = recommend.recommend(model(), on("RTX 4090"), dataset(), Answers())
    step = next(step for step in found.path if "complex" in step.question)

    assert (step.origin, step.answer) == (Origin.MEASURED, "medium")
    assert "1000 rows, replies of 150 tokens" in step.evidence


@pytest.mark.parametrize("answers", [{}, {"complexity": "low"}, {"critical": True}])
@pytest.mark.parametrize("gpus", ["T4", "RTX 4090", "4x RTX 4090", "8x H100", None])
def test_the_recipe_says_what_our_runner_runs(gpus, answers):
    """The plan of the written recipe is the plan that was judged."""
    found = recommend.recommend(model(), on(gpus) if gpus else HOST, dataset(), user(**answers))

    written = draft.recipe_of(found, model="m", data="d", version="1")

    plan = found.runnable.fit.plan
    # How the kernels run is the machine's business, not the recipe's.
    assert written.to_plan(OURS) == replace(plan, framework=OURS)
    assert written.learning_rate == found.runnable.learning_rate
    assert written.train.warmup == found.runnable.warmup


def test_no_recipe_is_written_where_nothing_that_runs_fits():
    """With the reason."""
    found = recommend.recommend(model("llama-3.1-70b"), on("T4"), dataset(), Answers())

    with pytest.raises(UserError) as caught:
        draft.recipe_of(found, model="m", data="d", version="1")

    assert found.leaf is tree.QLORA
    assert "nothing fits" in caught.value.why
