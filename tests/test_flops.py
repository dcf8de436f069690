"""FLOPs: equal to torch's own counter on real, tiny models, and to the documents' numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from llama import LLAMA_3_8B
from plans import changed, made

from advisor.cost.flops import Flops, flops_per_token
from advisor.plan import Plan
from advisor.registry.low_rank import ALL_TARGETS
from profiles.models.dimensions import from_config

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

FULL = made("full", seq_len=2048, loss="full")
LORA = made("lora", seq_len=2048, rank=16, targets=ALL_TARGETS, loss="full")
SHORT_FULL = changed(FULL, seq_len=32, micro_batch=2)
SHORT_LORA = changed(LORA, seq_len=32, micro_batch=2, rank=3)
ROWS, ROW = SHORT_FULL.micro_batch, SHORT_FULL.seq_len
SIZES = {
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "num_hidden_layers": 2,
    "vocab_size": 70,
}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
LATENT = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {}),
    "gemma": ("GemmaConfig", {}),
    "gemma2": ("Gemma2Config", {}),
    "olmo2": ("Olmo2Config", {"head_dim": 24}),
    "phi3": ("Phi3Config", {"head_dim": 24, "pad_token_id": 0}),
    "phi": ("PhiConfig", {"head_dim": 24}),
    "gpt_neox": ("GPTNeoXConfig", {"head_dim": 24, "num_key_value_heads": 4}),
    "cohere": ("CohereConfig", {"head_dim": 24}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2MoeConfig", {**MIXTURE, "shared_expert_intermediate_size": 56}),
    "qwen3_moe": ("Qwen3MoeConfig", MIXTURE),
    "deepseek_v3": ("DeepseekV3Config", LATENT),
}
"""Every way in which a family's layer differs: biases, norms, fused linears, experts, low ranks."""
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


def config_of(family: str) -> Any:
    transformers = pytest.importorskip("transformers")
    name, changes = CONFIGS[family]
    return getattr(transformers, name)(**(SIZES | changes), use_cache=False)


def predicted(family: str, plan: Plan, part: str = "hardware_flops") -> int:
    config = config_of(family)
    model = from_config(config.to_dict(), name=family, where="test")
    return int(getattr(flops_per_token(model, plan), part)) * plan.tokens_per_micro_batch


def counted(family: str, plan: Plan, names: tuple[str, ...] = (), *, backward: bool = True) -> int:
    """FLOPs of a forward and backward pass of the real model; `names` of its own linears."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode
    config = config_of(family)
    config._attn_implementation = "eager"
    # The counter knows no formula for the grouped matmul.
    config._experts_implementation = "eager"
    built = pytest.importorskip("transformers").AutoModelForCausalLM.from_config(config)
    if not plan.method.trains_base:
        peft = pytest.importorskip("peft")
        targets = list(names or plan.settings.target_names)
        lora = peft.LoraConfig(r=plan.settings.rank, target_modules=targets, task_type="CAUSAL_LM")
        built = peft.get_peft_model(built, lora)
    if plan.checkpointing:
        built.gradient_checkpointing_enable({"use_reentrant": False})
        if not plan.method.trains_base:
            # As TRL's SFTTrainer does.
            built.enable_input_require_grads()
    built.train()
    ids = torch.randint(0, 70, (ROWS, ROW))
    with counter(display=False) as found:
        loss = built(input_ids=ids, labels=ids).loss
        if backward:
            loss.backward()
    return int(found.get_total_flops())


@pytest.mark.parametrize(("plan", "billions"), [(FULL, 48.25), (LORA, 33.44)], ids=["full", "lora"])
def test_documented_flops_of_llama_3_8b(plan: Plan, billions: float) -> None:
    """GFLOP per token at 2048 tokens, as in bottlenecks.md §3.1."""
    assert round(flops_per_token(LLAMA_3_8B, plan).model_flops / 1e9, 2) == billions


@pytest.mark.parametrize(("plan", "share"), [(FULL, 0.234), (LORA, 0.452)], ids=["full", "lora"])
def test_checkpointing_costs_twice_as_much_relatively_with_lora(plan: Plan, share: float) -> None:
    """Recomputation adds 23.4 % to full fine-tuning and about 45 % to LoRA."""
    found = flops_per_token(LLAMA_3_8B, changed(plan, checkpointing=True))
    assert found.hardware_flops / found.model_flops - 1 == pytest.approx(share, abs=0.005)


def test_recomputing_half_the_layers_costs_half() -> None:
    """A plan that recomputes some layers pays for those."""
    whole = flops_per_token(LLAMA_3_8B, changed(FULL, checkpointing=True))
    half = flops_per_token(LLAMA_3_8B, changed(FULL, checkpointing=True, checkpointed_layers=16))
    extra = whole.hardware_flops - whole.model_flops
    assert half.hardware_flops - half.model_flops == extra // 2


def test_chunked_loss_recomputes_the_head() -> None:
    """The fused head projects once more in its backward pass; the model's own FLOPs stay."""
    whole = flops_per_token(LLAMA_3_8B, LORA)
    tiled = flops_per_token(LLAMA_3_8B, changed(LORA, loss="chunked"))
    assert tiled == Flops(
        model_flops=whole.model_flops,
        hardware_flops=whole.hardware_flops + 2 * 128256 * 4096,
        forward_flops=whole.forward_flops,
    )


@pytest.mark.parametrize(
    ("family", "checkpointing"), list(itertools.product(CONFIGS, [False, True]))
)
def test_full_flops_equal_the_counter(family: str, *, checkpointing: bool) -> None:
    """Full fine-tuning's FLOPs are exact in every family."""
    plan = changed(SHORT_FULL, checkpointing=checkpointing)
    assert predicted(family, plan) == counted(family, plan)


@pytest.mark.parametrize(
    ("family", "plan"),
    [("llama", SHORT_FULL), ("llama", SHORT_LORA), ("qwen3_moe", SHORT_FULL)],
)
def test_forward_flops_equal_the_counter(family: str, plan: Plan) -> None:
    """What an evaluation needs, whatever training adds to it."""
    found = predicted(family, changed(plan, checkpointing=True), "forward_flops")
    assert found == counted(family, plan, backward=False)


@pytest.mark.parametrize(
    ("targets", "checkpointing"), list(itertools.product(SUBSETS, [False, True]))
)
def test_lora_flops_equal_the_counter(targets: tuple[str, ...], *, checkpointing: bool) -> None:
    """LoRA's FLOPs are exact for any targets, the first layer's savings included."""
    plan = changed(SHORT_LORA, targets=targets, checkpointing=checkpointing)
    assert predicted("llama", plan) == counted("llama", plan)


OWN_NAMES = {
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "gemma2": ALL_TARGETS,
    "qwen3_moe": ALL_TARGETS[:4],
    "mixtral": ALL_TARGETS[:4],
}


@pytest.mark.parametrize(
    ("family", "checkpointing"), list(itertools.product(OWN_NAMES, [False, True]))
)
def test_lora_flops_of_families_equal_the_counter(family: str, *, checkpointing: bool) -> None:
    """Fused linears have one adapter; experts without adapters pass gradients on only."""
    targets = ALL_TARGETS if family in {"phi3", "gemma2"} else ALL_TARGETS[:4]
    plan = changed(SHORT_LORA, targets=targets, checkpointing=checkpointing)
    assert predicted(family, plan) == counted(family, plan, OWN_NAMES[family])


def test_freezing_the_lower_layers_spares_their_backward_pass() -> None:
    """Frozen layers run forward only, and so does the embedding."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode
    config = config_of("llama")
    config._attn_implementation = "eager"
    built = pytest.importorskip("transformers").AutoModelForCausalLM.from_config(config)
    built.model.embed_tokens.requires_grad_(False)
    built.model.layers[0].requires_grad_(False)
    ids = torch.randint(0, 70, (ROWS, ROW))
    with counter(display=False) as found:
        built(input_ids=ids, labels=ids).loss.backward()
    plan = changed(SHORT_FULL, method="freeze", frozen_layers=1)
    assert predicted("llama", plan) == found.get_total_flops()


@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
def test_fused_head_equals_the_counter(monkeypatch: Any, *, trains: bool) -> None:
    """TRL's tiles of logits are projected twice, whether the head is frozen or trained."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode
    kernels = pytest.importorskip("trl.kernels.chunked_logprob")
    # The counter does not see the product that is added in place.
    monkeypatch.setattr(kernels, "_addmm_fp32", lambda into, a, b: into.add_(a @ b))
    hidden = torch.randn(64, 96, requires_grad=True)
    weight = torch.randn(70, 96, requires_grad=trains)
    with counter(display=False) as found:
        apply = kernels.ChunkedLogProbFunction.apply
        apply(hidden, weight, None, torch.zeros(64).long(), 1.0, 32)[0].sum().backward()
    whole, tiled = (
        flops_per_token(LLAMA_3_8B, changed(FULL if trains else LORA, loss=loss)).hardware_flops
        for loss in ("full", "chunked")
    )
    head = 128256 * 4096
    assert found.get_total_flops() == 64 * 70 * 96 * (
        (6 if trains else 4) + (tiled - whole) // head
    )


def test_a_window_limits_what_its_layers_attend_to() -> None:
    """Rows beyond the window cost nothing more in the layers that slide."""
    sliding = replace(LLAMA_3_8B, sliding_window=1024, num_sliding_layers=32)
    long, short = (flops_per_token(sliding, changed(FULL, seq_len=n)) for n in (4096, 1024))
    assert long == short
