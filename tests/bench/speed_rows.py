"""Published runs as the estimator's own terms: a model, a plan, a machine, and tokens per second.

A row says its throughput in its framework's own unit. It converts only where the amount of work
behind that unit is known, from the row itself; where the lengths of its data are known as a
distribution only, the row is marked, for its error is then also that of the lengths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from models import Skip, model_of
from speed_units import Row, SkippedError, measured, number, required, row_tokens

from advisor.framework import Framework
from advisor.plan import Plan
from advisor.registry.low_rank import ALL_TARGETS, ATTENTION_TARGETS, MLP_TARGETS
from profiles.errors import UserError
from profiles.facts import Machine, Model, Origin
from profiles.machines.planned import plan_machine

H100_HBM2E_BYTES_PER_SECOND = 2.4e12
"""torchtitan's benchmark machines, as its document describes them."""
UNSAFE_FLAGS = {
    "config_override_unknown": "the configuration is not known",
    "config_incomplete": "the configuration is not known",
    "micro_batch_conflict": "the micro-batch is not known",
    "model_parallel_device_map": "layers spread over devices one after another",
    "n_gpus_ambiguous": "the number of GPUs is not known",
}
NAMES = {
    "query": ("q_proj",),
    "key": ("k_proj",),
    "value": ("v_proj",),
    "projection": ("o_proj",),
    "output_proj": ("o_proj",),
    "mlp": MLP_TARGETS,
    "w1": ("gate_proj",),
    "w2": ("down_proj",),
    "w3 (mlp)": ("up_proj",),
    "c_attn": ATTENTION_TARGETS[:3],
    "w_pack": ATTENTION_TARGETS[:3],
    "c_proj": ("o_proj", "down_proj"),
    "all-linear": ALL_TARGETS,
    "all": ALL_TARGETS,
}
"""Linears by other frameworks' names."""
HOST = Machine(
    host="bench",
    backend="cpu",
    gpus=(),
    cpu_name="unknown",
    num_cores=32,
    num_threads=64,
    ram_bytes=512 << 30,
    ram_free_bytes=500 << 30,
    disk_path="/",
    disk_free_bytes=1 << 40,
    origin=Origin.DEFAULT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row that can be predicted."""

    row: Row
    model: Model
    plan: Plan
    machine: Machine
    tokens_per_second: float
    """Measured, over all devices."""
    lengths_known: bool


def case_of(row: Row) -> Case:
    """The row in our terms; raises SkippedError with the reason where there is none."""
    if row.get("throughput_value") is None:
        raise SkippedError("no throughput")
    if not row.get("measured", True) or row.get("outcome", "ok") != "ok":
        raise SkippedError("not measured")
    for flag in row.get("flags") or ():
        if flag in UNSAFE_FLAGS:
            raise SkippedError(UNSAFE_FLAGS[flag])
    machine = machine_of(row)
    model = _model(row)
    plan, lengths_known = plan_of(row, model)
    return Case(
        row=row,
        model=model,
        plan=plan,
        machine=machine,
        tokens_per_second=measured(row, plan),
        lengths_known=lengths_known,
    )


def _model(row: Row) -> Model:
    name = str(row["model"])
    found = model_of(name)
    if isinstance(found, Skip):
        raise SkippedError(found.reason)
    if re.search(r"qwen-\d", name, re.IGNORECASE):
        found = replace(found, fused_qkv=True)
    if found.experts and "scattermoe" not in str(row.get("framework")):
        raise SkippedError("experts one after another, not in one grouped matmul")
    if found.unmodelled:
        raise SkippedError(f"model not modelled: {found.unmodelled}")
    return found


def machine_of(row: Row) -> Machine:
    """The row's GPUs, as many as trained."""
    said = str(row.get("gpu_type") or "unknown")
    count = number(row.get("n_gpus")) or 1
    text = re.sub(r"^\d+x\s+|\(.*?\)|NVIDIA|Tesla|GeForce|HBM\w*", " ", said).strip()
    hbm2e = "H100 96GB HBM2e" in said
    text = "H100 80GB" if hbm2e else text
    text = "A100 80GB" if text == "A100" else text
    per_node = min(count, 8)
    try:
        machine = plan_machine(f"{per_node}x {text}")
    except UserError as error:
        raise SkippedError(f"GPU not in the table: {said}") from error
    if hbm2e:
        rate = H100_HBM2E_BYTES_PER_SECOND
        gpus = tuple(replace(gpu, memory_bytes_per_second=rate) for gpu in machine.gpus)
        machine = replace(machine, gpus=gpus)
    return replace(machine, num_nodes=max(1, count // per_node))


def plan_of(row: Row, model: Model) -> tuple[Plan, bool]:
    """The row's plan, and whether the lengths of its rows are known."""
    method = _method(row)
    tokens, known = row_tokens(row)
    precision, framework = _precision(row, method)
    extras = " ".join(map(str, row.get("extra") or ())).lower()
    settings: dict[str, Any] = {}
    if method in {"lora", "qlora"}:
        settings = {
            "rank": number(row.get("rank")) or 16,
            "dropout": float(number(row.get("lora_dropout"), float) or 0),
            "targets": _targets(row),
        }
    if method == "qlora":
        settings["bits"] = number(row.get("quant_bits")) or 4
    return (
        Plan.of(
            method,
            **settings,
            seq_len=tokens,
            micro_batch=required(row, "micro_batch_size"),
            accumulation=_accumulation(row),
            optimizer=_optimizer(str(row.get("optimizer")).lower()),
            precision=precision,
            checkpointing=_checkpointing(row),
            # torchtitan's selective checkpoints repeat every second matmul.
            checkpointed_layers=model.num_layers // 2 if _is_selective(row) else None,
            loss=_loss(extras),
            strategy=_strategy(row, extras),
            offload="parameters" if "offload of params" in extras else "",
            num_gpus=number(row.get("n_gpus")) or 1,
            attention=_attention(row),
            framework=_framework(framework, row, extras),
        ),
        known,
    )


def _method(row: Row) -> str:
    said = str(row["method"]).lower()
    if said.startswith("full") and "dpo" not in said:
        return "full"
    if said in {"lora", "qlora", "freeze"}:
        bits = number(row.get("quant_bits")) or 16
        if bits not in {4, 8, 16, 32}:
            raise SkippedError(f"{bits}-bit weights")
        return "qlora" if bits < 16 and said == "lora" else said
    raise SkippedError(f"method not modelled: {row['method']}")


def _precision(row: Row, method: str) -> tuple[str, Framework]:
    """The plan's precision and how the framework gets there."""
    mode, dtype = str(row.get("precision_mode")).lower(), str(row.get("weight_dtype")).lower()
    half = "fp16" if re.search(r"fp16|float16", mode.replace("bfloat16", "")) else "bf16"
    pure = re.search(r"pure|bf16-true|no autocast|no gradscaler", mode)
    peft = re.search("sft_trainer|transformers|hf trainer|peft", str(row["framework"]).lower())
    if pure and half == "bf16" and method != "full" and peft:
        # PEFT keeps adapters in fp32 whatever the base is (autocast_adapter_dtype).
        return half, Framework(autocast=False, quantized_adapters_16bit=False)
    if pure and half == "bf16":
        return "bf16_pure", Framework(autocast=False)
    if pure:
        adapters = "lora fp32" in dtype or "lora float32" in dtype
        return half, Framework(
            autocast=False, trained_fp32=adapters, quantized_adapters_16bit=False
        )
    narrow = method == "full" and "float32" not in dtype and "float" in dtype
    return half, Framework(trained_fp32=not narrow)


def _framework(base: Framework, row: Row, extras: str) -> Framework:
    """Kernels that the framework replaces, and what it casts."""
    optimizer = str(row.get("optimizer")).lower()
    triton = "fused kernels" in extras or "use_liger_kernel" in extras
    compiled = "torch.compile" in extras
    said = str(row.get("framework")).lower()
    unsloth = "unsloth" in said
    upcast = "baseline" in said or "prepare_model_for_kbit" in str(row.get("weight_dtype"))
    return replace(
        base,
        double_quant="no double" not in str(row.get("quant_type")),
        fused_norm=triton or compiled or unsloth,
        fused_rope=triton or compiled or unsloth,
        fused_mlp="use_liger_kernel" in extras or compiled or unsloth,
        fused_adapters="fused qlora" in extras or unsloth,
        fsdp1="FSDP1" in str(row.get("strategy")) or "lit-gpt" in said,
        replicated_adapters="replicated" in str(row.get("strategy")),
        unmasked=True,
        efficient_attention="memory-efficient" in str(row.get("attention_impl")),
        foreach_optimizer="foreach" in optimizer,
        optimizer_in_backward="fused into backward" in extras,
        fp32_leftovers=upcast,
    )


def _attention(row: Row) -> str:
    said = str(row.get("attention_impl")).lower()
    if "eager" in said:
        return "eager"
    return "sdpa" if "sdpa" in said else "flash"


def _loss(extras: str) -> str:
    if "liger" in extras:
        return "liger"
    return "fused" if "crossentropy" in extras else "full"


def _optimizer(said: str) -> str:
    small = "_8bit" if "8bit" in said else ""
    if "paged" in said:
        return f"paged_adamw{small}"
    for name in ("adafactor", "lion", "sgd"):
        if name in said:
            return name + (small if name == "lion" else "")
    return f"adamw{small}"


def _checkpointing(row: Row) -> bool:
    said = str(row.get("gradient_checkpointing")).lower()
    if said.startswith("y") or _is_selective(row):
        return True
    if said.startswith("n"):
        return False
    if "y by default" in said:
        return True
    raise SkippedError("checkpointing is not known")


def _is_selective(row: Row) -> bool:
    return "selective" in str(row.get("gradient_checkpointing"))


def _strategy(row: Row, extras: str) -> str:
    said = str(row.get("strategy")).lower()
    if re.search(
        r"\btp\b|\btp\d|cp [2-9]|expert parallel [2-9]|sequence_parallel_size", f"{said} {extras}"
    ):
        raise SkippedError("tensor, context, sequence or expert parallel")
    if re.search(r"float8", extras):
        raise SkippedError("8-bit float matmuls")
    for word, name in (("fsdp", "fsdp"), ("zero-3", "zero3"), ("zero3", "zero3"), ("ddp", "ddp")):
        if word in said:
            return name
    return "zero2" if "zero-2" in said or "zero2" in said else "single"


def _targets(row: Row) -> tuple[str, ...]:
    said = row.get("target_modules")
    names = said if isinstance(said, list) else [str(said)]
    found: list[str] = []
    for name in names:
        key = str(name).lower()
        found += NAMES.get(key, (key,) if key in ALL_TARGETS else ())
    if not found and "q_proj,v_proj default" in str(said):
        found = ["q_proj", "v_proj"]
    if not found:
        raise SkippedError("the adapted linears are not known")
    return tuple(dict.fromkeys(found))


def _accumulation(row: Row) -> int:
    count = number(row.get("grad_accumulation"))
    if count is not None:
        return count
    # Per token it matters little; per step it is the amount of work.
    if "token" in str(row.get("throughput_unit")) or "iterations" in str(row["throughput_unit"]):
        return 1
    raise SkippedError("the accumulation is not known")
