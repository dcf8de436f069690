"""Published runs in the estimator's own words: one written-out row for each framework."""

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"
sys.path.insert(0, str(BENCH))

import memory_accuracy  # noqa: E402 - a folder of scripts, no package
import speed_rows  # noqa: E402
from models import Skip, model_of  # noqa: E402
from rows import case_of, measures  # noqa: E402

from advisor.cost.memory import estimate  # noqa: E402


def row(**changes):
    """A LoRA run of fms-acceleration on two GPUs, whose fields the other rows change."""
    found = {
        "id": "written-here",
        "core_set": True,
        "source": "a test",
        "framework": 'fms-hf-tuning sft_trainer (trl SFTTrainer) + fms-acceleration config "none"',
        "framework_version": "fms-acceleration @ CSV date",
        "software": {"transformers": "4.45.2", "bitsandbytes": "0.43.3"},
        "model": "mistralai/Mistral-7B-v0.1",
        "n_params": 7241732096,
        "method": "lora",
        "rank": 16,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "quant_bits": 16,
        "quant_type": "none",
        "micro_batch_size": 4,
        "grad_accumulation": 1,
        "seq_len": 4096,
        "seq_len_kind": "packed (packing=True) to max_seq_len 4096",
        "gradient_checkpointing": "y",
        "optimizer": "adamw_torch (foreach)",
        "weight_dtype": "bfloat16",
        "precision_mode": "bf16 autocast",
        "attention_impl": "flash_attention_2",
        "extra": [],
        "n_gpus": 2,
        "strategy": "FSDP1 FULL_SHARD",
        "gpu_type": "NVIDIA A100 80GB",
        "peak_memory_measures": "torch_mem_alloc (torch.cuda.max_memory_allocated)",
        "peak_memory_gib": 30.0,
        "flags": [],
    }
    return found | changes


LITGPT = {
    "framework": "litgpt finetune_lora",
    "framework_version": "litgpt 0.3-0.5 (2024)",
    "software": {},
    "model": "google/gemma-2b",
    "n_params": 2506172416,
    "target_modules": ["query", "value"],
    "micro_batch_size": 2,
    "grad_accumulation": "128/(micro*devices)",
    "seq_len": 512,
    "seq_len_kind": "max_seq_length=512 truncation; batches padded to longest in batch",
    "gradient_checkpointing": "n",
    "optimizer": "torch.optim.AdamW",
    "precision_mode": "bf16-true (pure bf16, no AMP, no fp32 master)",
    "attention_impl": "torch SDPA - default",
    "n_gpus": 1,
    "strategy": "single",
    "gpu_type": "NVIDIA A10G 24GB",
}


def test_a_trainer_under_fsdp():
    case = case_of(row())
    plan, framework = case.plan, case.plan.framework
    assert (plan.method.name, plan.engine.name, plan.num_gpus, plan.packing) == (
        "lora",
        "fsdp",
        2,
        True,
    )
    assert (plan.attention, plan.loss, plan.checkpointing) == ("flash", "full", True)
    assert framework.fsdp1
    assert framework.reentrant_checkpoints
    assert framework.expanded_kv, "Mistral repeats keys before flash attention until 4.48"
    assert framework.upcast_in_model
    assert framework.trained_fp32
    assert not framework.expandable_segments
    assert case.measures == "allocated"
    assert not case.is_bound


def test_a_quantized_base_with_fused_kernels():
    foak = row()["framework"].replace("none", "accelerated-peft-autogptq-foak-liger")
    quantized = {"quant_bits": 4, "quant_type": "GPTQ (AutoGPTQ triton v2)", "method": "qlora"}
    case = case_of(row(framework=foak, model="TheBloke/Mistral-7B-v0.1-GPTQ", **quantized))
    assert case.model.id == "mistralai/Mistral-7B-v0.1"
    assert case.plan.base_bits == 4
    assert case.plan.loss == "liger"
    assert case.plan.framework.gptq_group == 128
    assert case.plan.framework.fused_adapters
    assert case.plan.framework.replicated_adapters


def test_a_loop_over_transformers():
    made = row(
        framework="fitcheck scripts/measure.py (plain torch loop, transformers+peft)",
        software={"transformers": "5.0.0"},
        model="HuggingFaceTB/SmolLM2-360M",
        n_params=361821120,
        method="qlora",
        quant_bits=4,
        quant_type="bnb nf4 (no double quant)",
        seq_len_kind="fixed: every sample exactly seq_len random tokens",
        attention_impl="eager",
        optimizer="torch.optim.AdamW (fp32 states)",
        gpu_type="Tesla T4 16GB (sm_75)",
        n_gpus=1,
        strategy="single",
    )
    plan, framework = case_of(made).plan, case_of(made).plan.framework
    assert (plan.attention, plan.framework.double_quant, plan.engine.name) == (
        "eager",
        False,
        "single",
    )
    assert (framework.autocast, framework.fp32_leftovers, framework.efficient_attention) == (
        False,
        True,
        True,
    )
    assert framework.returned_logits == "step"
    assert not framework.shifted_logits


def test_lit_gpt_builds_its_own_block():
    case = case_of(row(**LITGPT))
    assert case.model.fused_qkv
    assert not case.model.tied_embeddings
    assert case.model.num_params == 2506172416 + 256000 * 2048
    assert case.plan.settings.target_names == ("q_proj", "v_proj")
    assert case.plan.accumulation > 1
    assert (case.plan.loss, case.plan.precision) == ("listed", "bf16_pure")
    assert case.plan.framework.carried_logits
    assert case.plan.framework.efficient_attention, "no flash kernel for heads of 256 on an A10G"


def test_lit_gpt_of_2023_measures_its_first_step():
    changes = LITGPT | {"framework": "lit-gpt finetune/adapter_v2.py", "method": "adapter_v2"}
    plan = case_of(row(**changes, rank=None)).plan
    assert plan.method.name == "lit_llama_adapter_v2"
    assert plan.framework.first_step
    assert not plan.framework.carried_logits


def test_torchtune():
    made = row(
        framework="torchtune",
        framework_version="0.4/0.5-dev",
        model="meta-llama/Llama-3.2-3B-Instruct",
        n_params=3212749824,
        method="full",
        rank=None,
        target_modules="all (full fine-tune)",
        gradient_checkpointing="y + offload",
        optimizer="bitsandbytes PagedAdamW8bit, optimizer_in_bwd=True",
        extra=["torch.compile", "CEWithChunkedOutputLoss (chunked CE)"],
        peak_memory_measures="torch memory_stats active_bytes.all.peak",
        n_gpus=1,
        strategy="single",
    )
    plan, framework = case_of(made).plan, case_of(made).plan.framework
    assert (plan.optimizer.name, plan.precision, plan.loss) == (
        "paged_adamw_8bit",
        "bf16_pure",
        "fused",
    )
    assert framework.offloaded_checkpoints
    assert framework.optimizer_in_backward
    assert framework.chunked_head
    without_paged = memory_accuracy.predict(case_of(made)).peak * 2**30
    assert without_paged < estimate(case_of(made).model, plan).allocated_bytes


def test_reserved_memory_of_rows_of_many_lengths():
    made = row(
        framework="ms-swift 1.5 (HF Trainer)",
        software={"torch": "2.1.1"},
        model="Qwen/Qwen-1_8B-Chat",
        n_params=1836828672,
        target_modules=["c_attn"],
        seq_len_kind="dataset cls-fudan-news-zh, padded to longest",
        peak_memory_measures="torch.cuda.max_memory_reserved per device, GiB=1024^3",
        n_gpus=1,
        strategy="single",
    )
    case = case_of(made)
    assert case.model.fused_qkv
    assert case.plan.settings.target_names == ("q_proj", "k_proj", "v_proj")
    assert case.measures == "reserved"
    predicted = memory_accuracy.predict(case)
    allocated = estimate(case.model, case.plan).allocated_bytes / 2**30
    assert allocated < predicted.peak < predicted.high


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"framework": "AgileRL GRPO learn()"}, "GRPO"),
        ({"framework": "a framework of next year"}, "not described"),
        ({"model": "nobody/knows-this-7B"}, "in no table"),
        ({"n_params": 13_000_000_000}, "13000000000 weights"),
        ({"method": "lora (DPO)"}, "method"),
        ({"seq_len": "unknown"}, "length"),
        ({"rank": "unknown"}, "rank"),
        ({"optimizer": "muon"}, "optimizer"),
        ({"strategy": "megatron TP2"}, "strategy"),
    ],
)
def test_a_row_is_skipped_for_a_reason(changes, reason):
    skipped = case_of(row(**changes))
    assert isinstance(skipped, Skip)
    assert reason in skipped.reason


def test_a_cap_is_an_upper_bound():
    assert case_of(row(seq_len="data-dependent (max_seq_len 4096)")).is_bound
    assert case_of(row(flags=["data_dependent_seq_len"])).is_bound


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("device-level: max(NVML 10 ms poll)", "device"),
        ("nvidia-smi memory.used peak minus idle", "device"),
        ("torch.cuda.max_memory_reserved per device", "reserved"),
        ("torch memory_stats active_bytes.all.peak", "allocated"),
        ("unspecified", "device"),
    ],
)
def test_what_a_number_counts(text, kind):
    assert measures({"peak_memory_measures": text}) == kind


def test_models_by_other_names():
    assert model_of("TheBloke/Llama-2-70B-GPTQ").id == "meta-llama/Llama-2-70b-hf"
    assert model_of("mistralai/Mistral-7B-v0.2").hidden_size == 4096
    assert model_of("stabilityai/stablelm-base-alpha-3b").num_layers == 16
    assert isinstance(model_of("meta-llama/Llama-2-7b-hf", 70_000_000_000), Skip)


def test_an_odd_row_ends_nothing(tmp_path, capsys):
    runs, out = tmp_path / "runs.jsonl", tmp_path / "pred.jsonl"
    unseen = row(id="unseen", model="Qwen/Qwen2.5-14B-Instruct", n_params=None)
    odd = row(id="odd", extra=7, software="none", n_gpus=None, target_modules=[None])
    lines = [json.dumps(made) for made in (row(), unseen, odd, {"id": "empty"})]
    runs.write_text("\n".join(lines), encoding="utf-8")
    memory_accuracy.main([str(runs), "--out", str(out)])
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in found] == ["written-here", "unseen", "odd", "empty"]
    for line in found[:2]:
        assert 0 < line["low_gib"] <= line["peak_gib"] <= line["high_gib"]
    assert all(line["skip"] for line in found[2:])
    assert "ALL, allocated" in capsys.readouterr().out


def test_a_row_with_a_throughput_is_a_case_of_the_speed_estimate():
    """The framework's own kernels, the method and the rate in tokens per second."""
    made = speed_rows.case_of(
        row(
            **LITGPT
            | {
                "framework": "lit-gpt finetune/lora.py",
                "micro_batch_size": 1,
                "seq_len": 1044,
                "seq_len_kind": "padded to longest in micro-batch; Alpaca",
                "grad_accumulation": 128,
                "extra": ["unsloth: fused qlora"],
                "gpu_type": "NVIDIA A100-SXM4-40GB",
                "throughput_value": 1.62,
                "throughput_unit": "minutes per 1k iterations",
            }
        )
    )

    assert made.plan.method.name == "lora"
    assert (made.plan.framework.fused_adapters, made.plan.framework.fsdp1) == (True, True)
    assert made.tokens_per_second == pytest.approx(1000 * made.plan.seq_len / (1.62 * 60), rel=0.01)
