"""Behaviour of the step time: what it is made of, and what it refuses to say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from llama import LLAMA_3_8B, model
from plans import changed, made

from advisor.cost import links
from advisor.cost.rates import BANDWIDTH_SHARE
from advisor.cost.speed import SpeedEstimate, cost, estimate, flops_per_token
from advisor.cost.traffic import work
from advisor.framework import Framework
from advisor.plan import Plan
from advisor.registry.low_rank import ALL_TARGETS
from profiles.facts import GIB, Experts, Gpu, Machine, Model, Origin

FULL = made("full", seq_len=2048, loss="full", precision="bf16_pure")
LORA = made("lora", seq_len=2048, rank=16, targets=ALL_TARGETS, loss="full")
A100 = Gpu(
    index=0,
    name="A100",
    vendor="nvidia",
    vram_bytes=80 * GIB,
    vram_free_bytes=79 * GIB,
    origin=Origin.TABLE,
    compute_capability="8.0",
    has_bf16=True,
    bf16_flops=312e12,
    fp16_flops=312e12,
    fp32_flops=19.5e12,
    achievable_share=0.87,
    memory_bytes_per_second=2.0e12,
)
TINY = model(
    hidden_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=20,
    intermediate_size=200,
    vocab_size=70,
)


def machine(
    *gpus: Gpu, interconnect: str | None = None, cores: int = 16, nodes: int = 1
) -> Machine:
    return Machine(
        host="h",
        backend="cuda" if gpus else "cpu",
        gpus=gpus,
        cpu_name="c",
        num_cores=cores,
        num_threads=2 * cores,
        ram_bytes=128 * GIB,
        ram_free_bytes=100 * GIB,
        disk_path="/",
        disk_free_bytes=GIB,
        origin=Origin.TABLE,
        interconnect=interconnect,
        num_nodes=nodes,
    )


def estimated(dims: Model, plan: Plan, where: Machine) -> SpeedEstimate:
    found = estimate(dims, plan, where)
    assert found is not None
    return found


def term(found: SpeedEstimate, name: str) -> float:
    return dict(found.terms)[name]


def test_unknown_rate_gives_no_time() -> None:
    """Without the GPU's own rate in the plan's precision there is no estimate."""
    unknown = replace(A100, bf16_flops=None)
    assert estimate(LLAMA_3_8B, LORA, machine(unknown)) is None
    assert estimate(LLAMA_3_8B, LORA, machine(replace(A100, has_bf16=False))) is None
    slow = changed(LORA, precision="fp32")
    assert estimate(LLAMA_3_8B, slow, machine(replace(A100, fp32_flops=None))) is None
    assert estimate(LLAMA_3_8B, LORA, machine(replace(A100, memory_bytes_per_second=None))) is None


@pytest.mark.parametrize(
    ("plan", "measured"),
    [
        (changed(LORA, micro_batch=4, seq_len=4096, dropout=0.1), 3324),
        (changed(FULL, micro_batch=4, seq_len=4096), 3063),
    ],
    ids=["lora", "full"],
)
def test_measured_speed_of_a_7b_model_on_an_a100(plan: Plan, measured: float) -> None:
    """fms-acceleration's runs of Mistral 7B (attention adapters, checkpointing) are met."""
    mistral = model(vocab_size=32000)
    attention = ALL_TARGETS[:4] if not plan.method.trains_base else ()
    plan = changed(
        plan,
        checkpointing=True,
        attention="flash",
        targets=attention,
        framework=replace(plan.framework, autocast=False, foreach_optimizer=True),
    )
    found = estimated(mistral, plan, machine(A100))
    assert found.tokens_per_second == pytest.approx(measured, rel=0.1)
    assert found.low_tokens_per_second < measured < found.high_tokens_per_second


def test_share_of_peak_is_below_what_matmuls_reach() -> None:
    """The interval encloses the estimate, and no plan is faster than the part's best matmul."""
    found = estimated(LLAMA_3_8B, changed(LORA, micro_batch=2), machine(A100))
    assert found.model_flops_share is not None
    assert 0.2 < found.model_flops_share < 0.87
    assert found.low_step_seconds < found.step_seconds < found.high_step_seconds
    assert found.low_tokens_per_second < found.tokens_per_second < found.high_tokens_per_second


@pytest.mark.parametrize(
    "change",
    [
        {"checkpointing": True},
        {"method": "qlora"},
        {"accumulation": 2},
        {"attention": "eager"},
        {"seq_len": 4096},
    ],
)
def test_more_work_takes_longer(change: dict[str, Any]) -> None:
    """Recomputing, dequantizing, whole scores and longer rows lengthen the step."""
    base = estimated(LLAMA_3_8B, LORA, machine(A100))
    more = estimated(LLAMA_3_8B, changed(LORA, **change), machine(A100))
    assert more.step_seconds > base.step_seconds


def test_fused_kernels_move_fewer_bytes() -> None:
    """A framework that fuses elementwise work is faster by exactly that."""
    fused = replace(LORA.framework, fused_norm=True, fused_rope=True, fused_mlp=True)
    plain = estimated(LLAMA_3_8B, changed(LORA, micro_batch=8), machine(A100))
    quick = estimated(LLAMA_3_8B, changed(LORA, micro_batch=8, framework=fused), machine(A100))
    saved = term(plain, "memory") - term(quick, "memory")
    assert saved > 0
    assert plain.step_seconds - quick.step_seconds == pytest.approx(saved)


def test_weights_are_restored_once_for_each_use() -> None:
    """4-bit linears: half a byte read and two written, forward, again, and backward."""
    plan = changed(LORA, method="qlora", framework=Framework(double_quant=False))
    linears = 6_979_321_856
    assert work(LLAMA_3_8B, plan).dequantized == pytest.approx(2.5 * linears * 2, rel=0.02)
    again = changed(plan, checkpointing=True)
    # The recomputation stops before the last linear's own product, but not before its adapter's.
    assert work(LLAMA_3_8B, again).dequantized == pytest.approx(2.5 * linears * 3, rel=0.02)


def test_few_tokens_wait_for_the_weights() -> None:
    """A matmul of few rows takes as long as reading its matrix: twice the tokens cost nothing."""
    one, two = (
        term(estimated(LLAMA_3_8B, changed(LORA, seq_len=n), machine(A100)), "matmul")
        for n in (8, 16)
    )
    read = 2 * 2 * 7.5e9 / (BANDWIDTH_SHARE * 2.0e12)
    assert two == pytest.approx(one, rel=0.05)
    assert one == pytest.approx(read, rel=0.1)


def test_small_models_wait_for_their_host() -> None:
    """Where kernels are short, the time to launch them is the time of the step."""
    found = estimated(TINY, changed(LORA, seq_len=64), machine(A100))
    assert term(found, "launch") > 0.8 * (found.step_seconds - 0.01)
    assert found.high_step_seconds > 2 * found.low_step_seconds


def test_fp32_runs_at_the_rate_of_fp32() -> None:
    """Without autocast nothing runs on tensor cores."""
    narrow = estimated(LLAMA_3_8B, LORA, machine(A100))
    wide = estimated(LLAMA_3_8B, changed(LORA, precision="fp32"), machine(A100))
    assert term(wide, "matmul") > 10 * term(narrow, "matmul")


def test_only_the_experts_that_a_token_visits_cost_time() -> None:
    """Of a mixture, the chosen experts compute; the others cost memory alone."""
    experts = Experts(num_experts=8, top_k=2, width=14336, num_layers=32)
    sparse = model(experts=experts, intermediate_size=0, model_type="mixtral")
    dense = estimated(LLAMA_3_8B, changed(LORA, targets=ALL_TARGETS[:4]), machine(A100))
    mixed = estimated(sparse, changed(LORA, targets=ALL_TARGETS[:4]), machine(A100))
    assert 2 < term(mixed, "matmul") / term(dense, "matmul") < 5
    flops = (
        flops_per_token(sparse, LORA).model_flops / flops_per_token(LLAMA_3_8B, LORA).model_flops
    )
    assert flops < 2.5


def pair(**changes: Any) -> tuple[Gpu, Gpu]:
    gpu = replace(A100, **changes)
    return gpu, replace(gpu, index=1)


def test_sharding_over_pcie_is_slower_than_over_nvlink() -> None:
    """Gathering weights in every micro-batch costs more on a slower link."""
    plan = changed(FULL, strategy="fsdp", num_gpus=2)
    fast = estimated(LLAMA_3_8B, plan, machine(*pair(num_nvlinks=12), interconnect="nvlink"))
    slow = estimated(LLAMA_3_8B, plan, machine(*pair(), interconnect="pcie"))
    assert slow.step_seconds > fast.step_seconds


def test_a_network_between_nodes_is_slower_and_less_certain() -> None:
    """Its rate is assumed, so the interval widens."""
    plan = changed(FULL, strategy="zero3", num_gpus=4, micro_batch=2)
    here = machine(*pair(num_nvlinks=12), *pair(num_nvlinks=12), interconnect="nvlink")
    near = estimated(LLAMA_3_8B, plan, here)
    far = estimated(LLAMA_3_8B, plan, replace(here, gpus=here.gpus[:2], num_nodes=2))
    assert far.step_seconds > near.step_seconds
    wide, narrow = (f.high_step_seconds / f.low_step_seconds for f in (far, near))
    assert wide > narrow


def test_replicas_send_their_gradients_once_a_step() -> None:
    """DDP communicates per step, sharding per micro-batch."""
    two = machine(*pair(num_nvlinks=12), interconnect="nvlink")
    sent = {
        (strategy, times): term(
            estimated(
                LLAMA_3_8B,
                changed(FULL, strategy=strategy, num_gpus=2, accumulation=times),
                two,
            ),
            "communication",
        )
        for strategy in ("ddp", "fsdp")
        for times in (1, 4)
    }
    assert sent["ddp", 4] == sent["ddp", 1]
    assert sent["fsdp", 4] == pytest.approx(4 * sent["fsdp", 1])


def test_offloading_costs_the_host_s_time() -> None:
    """The step runs in the host's memory, and gradients and weights cross PCIe."""
    plan = changed(FULL, strategy="zero2", num_gpus=2)
    two = machine(*pair(num_nvlinks=12, pcie_generation=4, pcie_lanes=16), interconnect="nvlink")
    here = estimated(LLAMA_3_8B, plan, two)
    hosted = estimated(LLAMA_3_8B, changed(plan, offload="optimizer"), two)
    streamed = estimated(LLAMA_3_8B, changed(plan, strategy="zero3", offload="parameters"), two)
    assert term(hosted, "optimizer") > 5 * term(here, "optimizer")
    assert term(streamed, "communication") > term(hosted, "communication")


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "lion", "sgd", "adafactor"])
def test_every_optimizer_reads_and_writes_its_states(optimizer: str) -> None:
    """Between reading weight and gradient, and AdamW's seven accesses with clipping's three."""
    found = estimated(LLAMA_3_8B, changed(FULL, optimizer=optimizer), machine(A100))
    accesses = term(found, "optimizer") * BANDWIDTH_SHARE * 2.0e12 / (2 * 8.03e9)
    assert 5 < accesses < 10.1


def test_a_paged_optimizer_without_room_pages() -> None:
    """What does not fit comes and goes over PCIe in every step."""
    roomy, narrow = replace(A100, vram_bytes=200 * GIB), replace(A100, vram_bytes=40 * GIB)
    plan = changed(FULL, optimizer="paged_adamw")
    fits = term(estimated(LLAMA_3_8B, plan, machine(roomy)), "optimizer")
    pages = term(estimated(LLAMA_3_8B, plan, machine(narrow)), "optimizer")
    assert pages > 10 * fits


def test_the_slowest_device_counts() -> None:
    """Devices that train together wait for one another."""
    slow = replace(A100, index=1, bf16_flops=100e12)
    plan = changed(LORA, strategy="ddp", num_gpus=2, micro_batch=4)
    mixed = estimated(LLAMA_3_8B, plan, machine(A100, slow))
    fast = estimated(LLAMA_3_8B, plan, machine(A100, replace(A100, index=1)))
    assert mixed.step_seconds > 1.8 * fast.step_seconds


def test_unmeasured_parts_have_a_wider_interval() -> None:
    """The share of the data sheet that a part reaches is then that of its kind."""
    plan = changed(LORA, micro_batch=8)
    known = estimated(LLAMA_3_8B, plan, machine(A100))
    guessed = estimated(LLAMA_3_8B, plan, machine(replace(A100, achievable_share=None)))
    widths = [f.high_step_seconds / f.low_step_seconds for f in (known, guessed)]
    assert widths[1] > 1.2 * widths[0]


def test_cpu_is_a_rough_guide_with_a_wide_interval() -> None:
    """A CPU gets a guide from its cores, marked as such."""
    found = estimated(TINY, changed(LORA, seq_len=32, micro_batch=2, rank=3), machine())
    assert found.rough
    assert found.high_step_seconds > 4 * found.low_step_seconds


def test_cost_is_hours_times_price() -> None:
    """Money for the whole machine."""
    assert cost(2.5, 4.0) == 10.0


def test_links_between_gpus_are_as_fast_as_is_known_of_them() -> None:
    """Counted ones first, then the table's, then what is usual for the generation."""
    unknown = replace(A100, compute_capability=None)
    known = replace(A100, nvlink_bytes_per_second=250e9)

    assert links.nvlink_rate(A100) == links.LINK_SHARE * 300e9
    assert links.nvlink_rate(unknown) == links.LINK_SHARE * links.SMALL_NVLINK
    assert links.nvlink_rate(known) == links.LINK_SHARE * 250e9
    counted = replace(known, num_nvlinks=4)
    assert links.nvlink_rate(counted) == links.LINK_SHARE * 4 * links.NVLINK_BYTES_PER_SECOND


@pytest.mark.parametrize(
    ("nodes", "num_gpus", "leaves"), [(2, 4, True), (2, 2, False), (1, 2, False), (1, 4, False)]
)
def test_a_plan_leaves_the_node_where_it_has_more_gpus_than_that(
    nodes: int, num_gpus: int, *, leaves: bool
) -> None:
    """The machine's GPUs are those of one node."""
    plan = made("full", seq_len=512, strategy="ddp", num_gpus=num_gpus)

    assert links.leaves_node(plan, machine(A100, A100, nodes=nodes)) is leaves
