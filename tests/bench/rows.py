"""Rows of reference/vram_runs.md in the estimator's own words.

Decides what a row says whatever its framework is: model, method, batch, devices, and what was
measured. What a framework does differently is for frameworks.py to say. No row is known by its id,
its source or its model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from frameworks import refusal_of, setup_of
from models import Skip, model_of

from advisor.plan import Plan
from advisor.registry.low_rank import ALL_TARGETS, ATTENTION_TARGETS, MLP_TARGETS

if TYPE_CHECKING:
    from profiles.facts import Model

Row = dict[str, Any]
_QKV: Final = ATTENTION_TARGETS[:3]
_TARGETS: Final = {
    **{name: (name,) for name in ALL_TARGETS},
    "query": ("q_proj",),
    "key": ("k_proj",),
    "value": ("v_proj",),
    "projection": ("o_proj",),
    "output_proj": ("o_proj",),
    "dense": ("o_proj",),
    "mlp": MLP_TARGETS,
    "fc1": ("up_proj",),
    "w1": ("gate_proj",),
    "w2": ("down_proj",),
    "fc2": ("down_proj",),
    "w3": ("up_proj",),
    "c_attn": _QKV,
    "W_pack": _QKV,
    "query_key_value": _QKV,
    "qkv_proj": _QKV,
    "gate_up_proj": MLP_TARGETS[:2],
    "head": ("lm_head",),
    "all-linear": ALL_TARGETS,
    "all": ALL_TARGETS,
}
"""Other frameworks' names of the linears of a layer."""
_OPTIMIZERS: Final = (
    (r"paged.*8.?bit", "paged_adamw_8bit"),
    (r"paged", "paged_adamw"),
    (r"galore", "galore"),
    (r"adafactor", "adafactor"),
    (r"lion.*8.?bit", "lion_8bit"),
    (r"lion", "lion"),
    (r"adam.*8.?bit", "adamw_8bit"),
    (r"adam", "adamw"),
    (r"sgd", "sgd"),
)
_STRATEGIES: Final = (
    (r"fsdp|zero.?3|full.?shard", "fsdp"),
    (r"zero.?2", "zero2"),
    (r"zero.?1", "zero1"),
    (r"ddp|data.?parallel", "ddp"),
    (r"^single", "single"),
)
_TABLES: Final = ((_STRATEGIES, "strategy"), (_OPTIMIZERS, "optimizer"))
_METHODS: Final = {
    "full": "full",
    "lora": "lora",
    "qlora": "qlora",
    "adapter_v2": "lit_llama_adapter_v2",
    "adapter (llama-adapter)": "lit_llama_adapter",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A row that can be estimated."""

    model: Model
    plan: Plan
    measures: str
    """"allocated" and "reserved" by torch's allocator, or "device"."""
    is_bound: bool
    """Real lengths are unknown, and none exceeds the plan's."""


def case_of(row: Row) -> Case | Skip:
    """What the estimator is asked for a row, or why it cannot be."""
    refused = refusal_of(row)
    if refused:
        return refused
    model = model_of(str(row.get("model")), row.get("n_params"))
    if isinstance(model, Skip):
        return model
    if model.unmodelled:
        return Skip(f"model: {model.unmodelled}")
    plan = _plan(row)
    if isinstance(plan, Skip):
        return plan
    setup = setup_of(row, model, plan)
    if isinstance(setup, Skip):
        return setup
    model, plan = setup
    # fms-acceleration's plug-in and torchao's NF4Tensor always quantize the scales too.
    if not re.search("fms-|^torchtune", str(row.get("framework"))):
        double = bool(re.search(r"(?<!no )double|-dq", str(row.get("quant_type"))))
        plan = replace(plan, framework=replace(plan.framework, double_quant=double))
    unknown = "data_dependent_seq_len" in (row.get("flags") or ())
    return Case(model, plan, measures(row), unknown or not isinstance(row["seq_len"], int))


def measures(row: Row) -> str:
    """What the published number counts; "device" if it does not say."""
    text = str(row.get("peak_memory_measures")).lower()
    if re.search(r"nvml|nvidia-smi|device-level", text):
        return "device"
    if re.search(r"reserved", text) and not re.search(r"allocated|active", text):
        return "reserved"
    return "allocated" if re.search(r"alloc|active", text) else "device"


def _plan(row: Row) -> Plan | Skip:
    """All that a row says alike in every framework."""
    method, kind = _METHODS.get(str(row.get("method")).lower()), str(row.get("seq_len_kind"))
    length, batch = _cap(row.get("seq_len")), _first(row.get("micro_batch_size"))
    strategy, optimizer = (_found(table, row, key) for table, key in _TABLES)
    if method is None:
        return Skip(f"method: {row.get('method')}")
    if length is None or batch is None:
        return Skip("the length of rows, or their number, is not known")
    if strategy is None or optimizer is None:
        return Skip(f"strategy {row.get('strategy')}, optimizer {row.get('optimizer')}")
    adapts, num_gpus = method in {"lora", "qlora"}, int(_first(row.get("n_gpus")) or 1)
    targets, rank = _targets(row) if adapts else (), _first(row.get("rank"))
    if adapts and not (targets and rank):
        return Skip(f"rank {row.get('rank')}, targets {row.get('target_modules')}")
    bits = _bits(row)
    settings: dict[str, Any] = {"bits": bits} if bits < 16 and method != "full" else {}
    if adapts:
        method = "qlora" if bits < 16 else "lora"
        dropout = _first(row.get("lora_dropout")) or 0.0
        settings |= {"rank": int(rank or 0), "dropout": dropout, "targets": targets}
    return Plan.of(
        method,
        **settings,
        seq_len=length,
        micro_batch=int(batch),
        accumulation=_accumulation(row),
        optimizer=optimizer,
        checkpointing=str(row.get("gradient_checkpointing")).startswith("y"),
        packing=bool(re.search(r"^packed|^fixed, packed|full sequences", kind)),
        strategy=strategy if num_gpus > 1 else "single",
        num_gpus=num_gpus,
        attention=_attention(row),
        loss="full",
    )


def _first(value: object) -> float | None:
    """The number that a field is, or that its text begins with: "8 (default)"."""
    found = re.match(r"[\d.]+", str(value))
    return float(found[0]) if found else None


def _cap(value: object) -> int | None:
    """The length of rows, or the one that none exceeds: "data-dependent (max_seq_len 4096)"."""
    found = re.fullmatch(r"(?:data-dependent \((?:max_seq_len |<=))?(\d+)\)?", str(value))
    return int(found[1]) if found else None


def _found(table: tuple[tuple[str, str], ...], row: Row, key: str) -> str | None:
    text = str(row.get(key)).lower()
    return next((name for pattern, name in table if re.search(pattern, text)), None)


def _accumulation(row: Row) -> int:
    """Only whether there are several matters; a formula of the batch sizes means that."""
    steps = row.get("grad_accumulation")
    return steps if isinstance(steps, int) else 2 if "/" in str(steps) else 1


def _targets(row: Row) -> tuple[str, ...]:
    names = row.get("target_modules") or ()
    names = [names] if isinstance(names, str) else names
    found = [_TARGETS.get(re.split(r"[ (,]", str(name))[0], ()) for name in names]
    return tuple(dict.fromkeys(target for targets in found for target in targets))


def _bits(row: Row) -> int:
    bits = row.get("quant_bits")
    return bits if bits in {4, 8} else 16


def _attention(row: Row) -> str:
    text = str(row.get("attention_impl")).lower()
    if text.startswith("eager"):
        return "eager"
    return "flash" if re.search("flash[_-]att", text) else "sdpa"
