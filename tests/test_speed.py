"""Behaviour of the FLOP count and the step time."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from llama import LLAMA_3_8B, model

from advisor.plan import ALL_TARGETS, Plan
from advisor.speed import Flops, estimate, flops_per_token
from profiles.facts import GIB, Gpu, Machine, Model, Origin

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

FULL = Plan(method="full", seq_len=2048, loss="full")
LORA = Plan(method="lora", seq_len=2048, rank=16, targets=ALL_TARGETS, loss="full")
A100 = Gpu(
    index=0,
    name="A100",
    vendor="nvidia",
    vram_bytes=80 * GIB,
    vram_free_bytes=79 * GIB,
    origin=Origin.TABLE,
    has_bf16=True,
    bf16_flops=312e12,
    fp16_flops=312e12,
    fp32_flops=19.5e12,
    achievable_share=0.87,
    memory_bytes_per_second=2.0e12,
)


def machine(*gpus: Gpu, interconnect: str | None = None, cores: int = 16) -> Machine:
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
    )


@pytest.mark.parametrize(("plan", "billions"), [(FULL, 48.25), (LORA, 33.44)], ids=["full", "lora"])
def test_documented_flops_of_llama_3_8b(plan: Plan, billions: float) -> None:
    """GFLOP per token at 2048 tokens, as in bottlenecks.md §3.1."""
    assert round(flops_per_token(LLAMA_3_8B, plan).model_flops / 1e9, 2) == billions


@pytest.mark.parametrize(("plan", "share"), [(FULL, 0.234), (LORA, 0.452)], ids=["full", "lora"])
def test_checkpointing_costs_twice_as_much_relatively_with_lora(plan: Plan, share: float) -> None:
    """Recomputation adds 23.4 % to full fine-tuning and about 45 % to LoRA."""
    found = flops_per_token(LLAMA_3_8B, replace(plan, checkpointing=True))
    assert found.hardware_flops / found.model_flops - 1 == pytest.approx(share, abs=0.005)


def test_chunked_loss_recomputes_the_head() -> None:
    """The fused head projects once more in its backward pass; the model's own FLOPs stay."""
    whole = flops_per_token(LLAMA_3_8B, LORA)
    tiled = flops_per_token(LLAMA_3_8B, replace(LORA, loss="chunked"))
    assert tiled == Flops(
        model_flops=whole.model_flops,
        hardware_flops=whole.hardware_flops + 2 * 128256 * 4096,
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


def counted(dims: Model, plan: Plan) -> int:
    """FLOPs of a forward and backward pass of the real model, by torch's own counter."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        hidden_size=dims.hidden_size,
        intermediate_size=dims.intermediate_size,
        num_attention_heads=dims.num_heads,
        num_key_value_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        num_hidden_layers=dims.num_layers,
        vocab_size=dims.vocab_size,
        attn_implementation="eager",
        use_cache=False,
    )
    built = transformers.LlamaForCausalLM(config)
    if plan.adapts:
        lora = peft.LoraConfig(
            r=plan.rank, target_modules=list(plan.targets), task_type="CAUSAL_LM"
        )
        built = peft.get_peft_model(built, lora)
    if plan.checkpointing:
        built.gradient_checkpointing_enable({"use_reentrant": False})
        if plan.adapts:
            # As TRL's SFTTrainer does.
            built.enable_input_require_grads()
    built.train()
    ids = torch.zeros(plan.micro_batch, plan.seq_len, dtype=torch.long)
    with counter(display=False) as found:
        built(input_ids=ids, labels=ids).loss.backward()
    return int(found.get_total_flops())


SHORT_FULL = replace(FULL, seq_len=32, micro_batch=2)
SHORT_LORA = replace(LORA, seq_len=32, micro_batch=2, rank=3)
SUBSETS = [
    ALL_TARGETS,
    ("q_proj", "v_proj"),
    ("k_proj",),
    ("v_proj",),
    ("o_proj",),
    ("gate_proj",),
    ("up_proj", "down_proj"),
    ("down_proj",),
]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_full_flops_equal_the_counter(*, checkpointing: bool) -> None:
    """Full fine-tuning's FLOPs are exact."""
    plan = replace(SHORT_FULL, checkpointing=checkpointing)
    assert flops_per_token(TINY, plan).hardware_flops * 64 == counted(TINY, plan)


@pytest.mark.parametrize(
    ("targets", "checkpointing"), list(itertools.product(SUBSETS, [False, True]))
)
def test_lora_flops_equal_the_counter(targets: tuple[str, ...], *, checkpointing: bool) -> None:
    """LoRA's FLOPs are exact for any targets, the first layer's savings included."""
    plan = replace(SHORT_LORA, targets=targets, checkpointing=checkpointing)
    assert flops_per_token(TINY, plan).hardware_flops * 64 == counted(TINY, plan)


def test_unknown_rate_gives_no_time() -> None:
    """Without the GPU's own rate in the plan's precision there is no estimate."""
    unknown = replace(A100, bf16_flops=None)
    assert estimate(LLAMA_3_8B, LORA, machine(unknown)) is None
    assert estimate(LLAMA_3_8B, LORA, machine(replace(A100, has_bf16=False))) is None
    slow = replace(LORA, precision="fp32")
    assert estimate(LLAMA_3_8B, slow, machine(replace(A100, fp32_flops=None))) is None
    assert estimate(LLAMA_3_8B, LORA, machine(replace(A100, memory_bytes_per_second=None))) is None


def test_plausible_speed_of_lora_on_an_a100() -> None:
    """An 8B LoRA runs at some thousand tokens per second, under the part's best matmul rate."""
    found = estimate(LLAMA_3_8B, replace(LORA, micro_batch=2), machine(A100))
    assert found is not None
    assert 2_000 < found.tokens_per_second < 8_000
    assert found.model_flops_share is not None
    assert 0.2 < found.model_flops_share < 0.87
    assert found.low_step_seconds < found.step_seconds < found.high_step_seconds
    assert found.low_tokens_per_second < found.tokens_per_second < found.high_tokens_per_second


@pytest.mark.parametrize(
    "change", [{"checkpointing": True}, {"method": "qlora"}, {"accumulation": 2}]
)
def test_more_work_takes_longer(change: dict[str, Any]) -> None:
    """Recomputing, dequantizing and accumulating lengthen the step."""
    base = estimate(LLAMA_3_8B, LORA, machine(A100))
    more = estimate(LLAMA_3_8B, replace(LORA, **change), machine(A100))
    assert base is not None
    assert more is not None
    assert more.step_seconds > base.step_seconds


def test_sharding_over_pcie_is_slower_than_over_nvlink() -> None:
    """Gathering weights in every micro-batch costs more on a slower link."""
    plan = replace(FULL, strategy="fsdp", num_gpus=2)
    pair = (A100, replace(A100, index=1, num_nvlinks=12)), "nvlink"
    fast = estimate(LLAMA_3_8B, plan, machine(*pair[0], interconnect=pair[1]))
    slow = estimate(LLAMA_3_8B, plan, machine(*pair[0], interconnect="pcie"))
    assert fast is not None
    assert slow is not None
    assert slow.step_seconds > fast.step_seconds


def test_the_slowest_device_counts() -> None:
    """Devices that train together wait for one another."""
    slow = replace(A100, index=1, bf16_flops=100e12)
    plan = replace(LORA, strategy="ddp", num_gpus=2)
    mixed = estimate(LLAMA_3_8B, plan, machine(A100, slow))
    fast = estimate(LLAMA_3_8B, plan, machine(A100, replace(A100, index=1)))
    assert mixed is not None
    assert fast is not None
    assert mixed.step_seconds > 2 * fast.step_seconds


def test_cpu_is_a_rough_guide_with_a_wide_interval() -> None:
    """A CPU gets a guide from its cores, marked as such."""
    found = estimate(TINY, SHORT_LORA, machine())
    assert found is not None
    assert found.rough
    assert found.high_step_seconds > 4 * found.low_step_seconds
