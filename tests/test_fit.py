"""The search for micro-batch, accumulation, checkpointing and devices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import HOST, dataset, model
from plans import changed, made

from advisor.choice import bound, devices, fit, ladder
from advisor.choice.devices import Batch
from advisor.choice.lengths import Lengths
from advisor.cost import memory, speed
from advisor.registry.lookup import preset_of
from advisor.registry.low_rank import ALL_TARGETS
from profiles.facts import GIB
from profiles.machines import planned

LORA = made("lora", seq_len=2048, rank=16, alpha=32, targets=ALL_TARGETS)
FULL = changed(LORA, method="full", rank=0, alpha=0, targets=())
SIXTEEN = Batch(rows=16)


def machine(text, **host):
    """A planned machine with these changes."""
    return replace(planned.plan_machine(text), **host)


def with_free(text, *free_gib):
    """A planned machine whose GPUs have this much free."""
    found = machine(text)
    gpus = tuple(
        replace(gpu, vram_free_bytes=int(gib * GIB))
        for gpu, gib in zip(found.gpus, free_gib, strict=True)
    )
    return replace(found, gpus=gpus)


def everything(base, box, plan, rows):
    """Every configuration over all GPUs, judged without cleverness."""
    num_gpus = len(box.gpus)
    for spread in ladder.spread(plan, num_gpus):
        for micro_batch in range(1, 17):
            if rows // num_gpus % micro_batch:
                continue
            for checkpointing in (False, True):
                yield fit.judge(
                    base,
                    box,
                    replace(
                        spread,
                        micro_batch=micro_batch,
                        accumulation=rows // num_gpus // micro_batch,
                        checkpointing=checkpointing,
                    ),
                )


@pytest.mark.parametrize(
    ("name", "gpus", "plan"),
    [
        ("llama-3.1-8b", "RTX 4090", LORA),
        ("llama-3.1-8b", "RTX 4090", changed(LORA, method="qlora")),
        ("qwen2.5-1.5b", "RTX 4090", changed(LORA, seq_len=512)),
        ("qwen2.5-0.5b", "RTX 3070", LORA),
        ("llama-3.1-8b", "8x H100", FULL),
        ("llama-3.1-8b", "4x A100 80GB", LORA),
        ("llama-3.1-70b", "8x A100 80GB", LORA),
    ],
)
def test_the_choice_is_about_as_fast_as_the_fastest_that_fits(name, gpus, plan):
    """Within the 5 % that the speed estimate cannot tell apart, and a little for large batches."""
    box = machine(gpus)
    found = fit.best(model(name), box, plan, SIXTEEN)

    rates = [
        one.speed.tokens_per_second for one in everything(model(name), box, plan, 16) if one.fits
    ]

    assert found.fits
    assert found.speed.tokens_per_second >= 0.9 * max(rates)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen2.5-1.5b"])
def test_short_rows_are_not_padded_more_than_it_pays(name):
    """Rows of 250 tokens, cut at 1024: real tokens count, not padding."""
    lengths = Lengths(mean=250.0, median=200.0, p95=600.0, max=900)
    plan, box = changed(LORA, seq_len=1024), machine("RTX 4090")

    found = fit.best(model(name), box, plan, Batch(rows=16, lengths=lengths))

    rates = [
        fit.judge(model(name), box, one.plan, lengths).real_tokens_per_second
        for one in everything(model(name), box, plan, 16)
        if one.fits
    ]
    assert found.real_tokens_per_second >= 0.9 * max(rates)
    assert found.real_tokens_per_second < found.speed.high_tokens_per_second


@pytest.mark.parametrize("seq_len", [128, 512, 4096])
def test_more_rows_are_padded_to_more(seq_len):
    """Never beyond the longest row, nor the cut."""
    tokens = dataset().tokens
    lengths = Lengths.of(tokens, seq_len)

    padded = [lengths.padded(rows) for rows in range(1, 65)]

    assert padded == sorted(padded)
    assert padded[0] == min(tokens.mean, seq_len)
    assert padded[-1] <= min(tokens.max, seq_len)


def test_activations_are_recomputed_only_where_kept_ones_do_not_fit():
    """An 8B on 80 GB keeps them; on 24 GB it cannot."""
    roomy = fit.best(model(), machine("A100 80GB"), LORA, SIXTEEN)
    tight = fit.best(model(), machine("RTX 4090"), LORA, SIXTEEN)

    assert (roomy.plan.checkpointing, tight.plan.checkpointing) == (False, True)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 12, 16, 30, 64, 100])
@pytest.mark.parametrize("gpus", ["RTX 4090", "2x RTX 4090", "6x RTX 4090", "8x RTX 4090"])
def test_a_batch_that_the_user_wants_is_kept_exactly(rows, gpus):
    """With fewer GPUs, where their number would not divide it."""
    found = fit.best(model(), machine(gpus), LORA, Batch(rows=rows, asked=True))

    assert found.fits
    assert found.plan.effective_batch == rows


def test_a_batch_that_no_layout_keeps_is_the_nearest():
    """A 70B in 16 bits needs several GPUs, and 11 rows divide over one only: 8, not a refusal."""
    batch = Batch(rows=11, asked=True)

    found = fit.best(model("llama-3.1-70b"), machine("8x A100 40GB"), LORA, batch)

    assert found.fits
    assert (found.plan.num_gpus, found.plan.effective_batch) == (8, 8)


@pytest.mark.parametrize(("gpus", "rows"), [("6x RTX 4090", 18), ("3x RTX 4090", 18)])
def test_a_batch_of_our_own_choosing_is_rounded_up_for_all_gpus(gpus, rows):
    """Nobody asked for 16."""
    found = fit.best(model(), machine(gpus), LORA, SIXTEEN)

    assert found.plan.effective_batch == rows


def test_the_fullest_gpu_counts():
    """Two GPUs, one half taken: half the memory for both, or all of one."""
    box = with_free("2x RTX 4090", 24, 12)

    assert devices.budget_bytes(box, 2) == 12 * GIB
    assert devices.budget_bytes(box, 1) == 24 * GIB


def test_a_full_gpu_is_left_out():
    """Somebody else fills the second; 16-bit LoRA fits the first."""
    found = fit.best(model(), with_free("2x RTX 4090", 1, 24), LORA, SIXTEEN)

    assert (found.plan.num_gpus, found.plan.engine.name) == (1, "single")
    assert found.budget_bytes == 24 * GIB


def test_a_driver_reserve_idles_no_gpu():
    """A few hundred MiB of difference are no reason to train on one of two."""
    found = fit.best(model(), with_free("2x A100 80GB", 79.8, 79.2), LORA, SIXTEEN)

    assert found.plan.num_gpus == 2


def test_sharding_comes_only_where_copies_do_not_fit():
    """LoRA of an 8B is copied to each of eight GPUs, of a 70B it is sharded."""
    small = fit.best(model(), machine("8x H100"), LORA, SIXTEEN)
    large = fit.best(model("llama-3.1-70b"), machine("8x H100"), LORA, SIXTEEN)

    assert (small.plan.engine.name, large.plan.engine.name) == ("ddp", "fsdp")


def test_what_the_runner_runs_is_taken_where_speeds_are_alike():
    """ZeRO-2 and FSDP differ by less than the estimate knows."""
    found = fit.best(model(), machine("8x H100"), FULL, SIXTEEN)

    assert found.runs


def test_without_a_known_rate_a_plan_is_found_all_the_same():
    """No tokens/s, no hours, but a batch that fits."""
    box = machine("RTX 4090")
    unknown = replace(box.gpus[0], bf16_flops=None, fp16_flops=None)

    found = fit.best(model(), replace(box, gpus=(unknown,)), LORA, SIXTEEN)

    assert found.fits
    assert found.speed is None


def test_nothing_that_fits_leaves_the_nearest():
    """So that the page can say how much is missing: of all that there is too little of."""
    much = {"ram_free_bytes": 8 << 40, "disk_free_bytes": 8 << 40}
    found = fit.best(model("llama-3.1-70b"), machine("4x RTX 4090", **much), FULL, SIXTEEN)
    poor = fit.best(model("llama-3.1-70b"), machine("4x RTX 4090"), FULL, SIXTEEN)

    assert not found.fits
    assert (found.plan.engine.name, found.plan.micro_batch) == ("fsdp", 1)
    assert found.missing_bytes == found.memory.high_bytes - found.budget_bytes
    assert poor.missing_bytes == found.missing_bytes + (
        poor.host_bytes - poor.host_budget_bytes + poor.disk_bytes - poor.disk_budget_bytes
    )


def test_offload_needs_ram():
    """131 GiB of weights in 64 GiB of RAM is no plan, in 256 it is."""
    plan = changed(LORA, offload="parameters")
    poor = fit.best(model("llama-3.1-70b"), machine("RTX 4090"), plan, SIXTEEN)
    rich = fit.best(
        model("llama-3.1-70b"), machine("RTX 4090", ram_free_bytes=256 * GIB), plan, SIXTEEN
    )

    assert (poor.fits, rich.fits) == (False, True)
    assert poor.memory.high_bytes <= poor.budget_bytes
    assert poor.host_bytes > 131 * GIB * 0.95


@pytest.mark.parametrize("rung", ["full", "full_8bit", "galore", "freeze", "lora", "qlora"])
@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "llama-3.1-8b", "qwen3-30b-a3b"])
def test_what_the_parameters_rule_out_is_never_more_than_the_estimate(rung, name):
    """The search skips layouts by it, so it must not be too high."""
    base = model(name)
    for plan in ladder.plans(preset_of(rung), base, LORA):
        for spread in ladder.spread(plan, 8):
            one = fit.smallest(spread, 2)

            assert bound.least_bytes(base, one) <= memory.estimate(base, one).low_bytes


def test_a_search_needs_few_estimates(monkeypatch):
    """A recommendation has a tenth of a second for all methods."""
    counts = {"memory": 0, "speed": 0}
    for name, module in (("memory", memory), ("speed", speed)):

        def counted(*args, name=name, real=module.estimate, **kw):
            counts[name] += 1
            return real(*args, **kw)

        monkeypatch.setattr(module, "estimate", counted)

    fit.best(model(), machine("8x H100"), FULL, SIXTEEN)

    assert counts["memory"] <= 20
    assert counts["speed"] <= 8


def test_a_card_before_ampere_pays_for_repeated_keys():
    """Flash attention needs compute capability 8.0; the kernel before it wants every head."""
    t4, l4 = machine("1x T4"), machine("1x L4")
    plan = changed(LORA, precision="fp16")
    needs = [
        fit.judge(
            model(), t4, changed(plan, framework=devices.framework_on(where))
        ).memory.allocated_bytes
        for where in (t4, l4)
    ]
    assert devices.framework_on(l4) == plan.framework
    assert needs[0] > needs[1]


def test_a_mac_keeps_the_scores_of_attention():
    """SDPA has no fused kernel with a backward pass there: its cost grows with the square."""
    mac, card = machine("Apple M2 Ultra 192GB"), machine("MI300X")
    assert devices.framework_on(mac).unfused_attention

    def grown(box):
        plans = [
            changed(LORA, seq_len=n, framework=devices.framework_on(box)) for n in (1024, 4096)
        ]
        short, long = (fit.judge(model(), box, plan).memory.allocated_bytes for plan in plans)
        return long - short

    one_layer = 2 * 32 * (4096**2 - 1024**2)  # 16-bit scores of 32 heads
    assert grown(mac) > grown(card) + one_layer


@pytest.mark.parametrize(("box", "on_cpu"), [("RTX 4090", False), (None, True)])
def test_a_plan_that_was_made_for_another_machine_runs_as_this_one_does(box, on_cpu):
    """A plan for a CPU on a GPU, and the other way round."""
    machine = planned.plan_machine(box) if box else HOST
    elsewhere = changed(LORA, framework=replace(LORA.framework, on_cpu=not on_cpu))

    found = fit.judge(model("qwen2.5-0.5b"), machine, elsewhere)

    assert found.plan.framework.on_cpu is on_cpu
    assert found.memory == fit.judge(model("qwen2.5-0.5b"), machine, found.plan).memory


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.parametrize(("precision", "width"), [("bf16", 4), ("bf16_pure", 2), ("fp32", 4)])
def test_the_bound_that_spares_the_estimate_counts_weights_gradients_and_states(
    precision, width, optimizer
):
    """Never more than the estimate, and not far below it."""
    plan = made("full", seq_len=128, precision=precision, optimizer=optimizer, checkpointing=True)
    states = {"adamw": 2 * width, "adamw_8bit": 2, "paged_adamw_8bit": 0}[optimizer]
    least = bound.least_bytes(model(), plan)

    assert least == (2 * width + states) * model().num_params
    assert least <= memory.estimate(model(), plan).allocated_bytes
