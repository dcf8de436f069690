"""Every key of `advisor recommend --json`, schema 2: what `--json-keys` prints.

`[]` stands for each entry of a list. A test holds both against what is written.
"""

from __future__ import annotations

from advisor.registry.lookup import ENGINES
from profiles.data import formats
from tui.plain import table, wrap

_FORMATS = formats.names()

RECOMMENDATION = {
    "schema": "2; within it keys are only added",
    "model.id": "name on the hub, or of the folder",
    "model.path": "folder; null for a model that is not on this disk",
    "model.architecture": "as config.json says",
    "model.model_type": "as config.json says, of the text model",
    "model.num_params": "all weights",
    "model.active_params": "weights that one token meets; fewer for a mixture of experts",
    "model.origin": "of the counts: measured, table or predicted",
    "model.num_layers": "",
    "model.hidden_size": "",
    "model.vocab_size": "",
    "model.max_positions": "tokens that it can read",
    "model.num_experts": "routed experts of one layer; null for dense models",
    "model.weight_bytes": "size of the weight files, where they are known",
    "model.gated": "the hub asks for a licence to be accepted; null if unknown",
    "machine.name": "like 4x RTX 4090",
    "machine.origin": "measured, or user for a machine named by --gpu",
    "machine.backend": "cuda, rocm, mps or cpu",
    "machine.gpus[].name": "",
    "machine.gpus[].vram_bytes": "",
    "machine.gpus[].vram_free_bytes": "",
    "machine.gpus[].origin": "measured, or table for a named GPU",
    "machine.num_nodes": "equal hosts; everything else is of one of them",
    "machine.interconnect": "between the GPUs: nvlink or pcie",
    "machine.assumed[]": "how a planned machine's text was read, and how to name another",
    "machine.ram_free_bytes": "",
    "machine.ram_origin": "measured; table if published; user for --ram; default if assumed",
    "machine.disk_free_bytes": "",
    "machine.disk_origin": "the same, for --disk",
    "data.path": "data is null without --data",
    "data.format": " or ".join([", ".join(_FORMATS[:-1]), _FORMATS[-1]]),
    "data.num_rows": "usable rows",
    "data.num_tasks": "distinct values of a column `task`, else 1",
    "data.mean_tokens": "of a row",
    "data.max_tokens": "of the longest row",
    "data.origin": "of the counts: measured by the tokenizer, or predicted from characters",
    "wishes.*.value": "task, complexity, critical, value, quality, seq_len, effective_batch, "
    "domain",
    "wishes.*.origin": "user, default, or from the data; null for a wish that nobody had",
    "recommended.rung": "the method; null if nothing fits, then the rest comes nearest to it",
    "recommended.name": "the method in words",
    "recommended.fits": "its high estimate fits in what is free",
    "recommended.runs": "this version runs it; if not, see recipe",
    "recommended.why": "the end of the tree, or why not that",
    "recommended.why_not_above": "why not the next larger method, and what would make it fit",
    "recommended.learning_rate": "to start from",
    "recommended.epochs": "",
    "recommended.rows.tokens": "of all rows as they are cut at plan.seq_len; null without --data",
    "recommended.rows.learnt_tokens": "those among them that the loss is taken on",
    "recommended.rows.cut": "rows that are longer",
    "recommended.rows.left_out": "rows of which nothing is learnt at that length",
    "recommended.plan.*": "method, batch, rank, precision, strategy: what the estimate is of",
    "recommended.plan.settings.*": "the method's own, by its keys in a recipe",
    "recommended.settings[].name": "hyper-parameter to start from",
    "recommended.settings[].value": "as text",
    "recommended.settings[].reason": "",
    "recommended.memory.level": "1: the formula; level 2 is rehearsal",
    "recommended.memory.origin": "predicted",
    "recommended.memory.free_bytes": "on the fullest device that it uses",
    "recommended.memory.low_bytes": "of one device at the peak",
    "recommended.memory.expected_bytes": "",
    "recommended.memory.high_bytes": "it fits if this does",
    "recommended.memory.allocated_bytes": "tensors alone, as torch counts them",
    "recommended.memory.fragmentation_bytes": "",
    "recommended.memory.context_bytes": "of CUDA, or of the process on a CPU",
    "recommended.memory.communication_bytes": "NCCL's buffers",
    "recommended.memory.peak.moment": "the moment that wins",
    "recommended.memory.peak.place": "the operation at work then",
    "recommended.memory.moments[].moment": "forward, loss_forward, loss_backward, "
    "first_layer_backward, last_layer_backward, embedding_backward or optimizer_step",
    "recommended.memory.moments[].place": "",
    "recommended.memory.moments[].bytes": "allocated then",
    "recommended.memory.moments[].components.*": "bytes of weights, adapters, gradients, "
    "optimizer, paged_states, activations, logits, workspace, communication",
    "recommended.ram.need_bytes": "of all processes at the worst time; 0 without a GPU",
    "recommended.ram.free_bytes": "",
    "recommended.disk.need_bytes": "with the fewest checkpoints",
    "recommended.disk.free_bytes": "",
    "recommended.speed.origin": "predicted; speed is null where the device's rate is not known",
    "recommended.speed.low_tokens_per_second": "",
    "recommended.speed.tokens_per_second": "over all devices, rows as long as the longest",
    "recommended.speed.high_tokens_per_second": "",
    "recommended.speed.real_tokens_per_second": "without padding, for rows of the data's lengths",
    "recommended.speed.step_seconds": "of one optimizer step",
    "recommended.speed.rough": "only a guide: no rate of this device is known",
    "recommended.hours": "from the launch to the end; null without --data",
    "recommended.time.start[].phase": "before the first step, in their order",
    "recommended.time.start[].seconds": "",
    "recommended.time.until_first_step_seconds": "the start, all phases together",
    "recommended.time.training_seconds": "all steps",
    "recommended.time.evaluating_seconds": "after the start, as the next",
    "recommended.time.answering_seconds": "held-out prompts",
    "recommended.time.saving_seconds": "checkpoints and the result",
    "recommended.price_per_hour": "of the machine, from --price",
    "recommended.cost": "hours times price",
    "recommended.disk_bytes": "checkpoints, the result, and the model's download",
    "rehearsal.level": "2; rehearsal is null without --rehearse",
    "rehearsal.method": "the recommended one, or the recipe's where that has no rehearsal",
    "rehearsal.allocated_bytes": "peak of tensors, on one device",
    "rehearsal.formula_bytes": "the same by the formula",
    "rehearsal.difference": "the first over the second, less 1",
    "rehearsal.moments[].moment": "forward, loss_backward, layer_backward or optimizer_step",
    "rehearsal.moments[].bytes": "rehearsed",
    "rehearsal.moments[].formula_bytes": "",
    "rehearsal.low_bytes": "of the device; null if the plan is divided or not the recommended",
    "rehearsal.high_bytes": "",
    "rehearsal.fits": "the high end fits in what is free",
    "rehearsal.seconds": "that it took",
    "path[].question": "of the decision tree",
    "path[].answer": "",
    "path[].origin": "measured, predicted, user or default",
    "path[].evidence": "the number or word behind the answer",
    "leaf": "the end of the tree",
    "alternatives[].rung": "",
    "alternatives[].name": "in words",
    "alternatives[].chosen": "it is the recommended one",
    "alternatives[].fits": "in memory",
    "alternatives[].possible": "in memory and on the disk",
    "alternatives[].runs": "this version runs it",
    "alternatives[].low_bytes": "of one device at the peak",
    "alternatives[].expected_bytes": "",
    "alternatives[].high_bytes": "",
    "alternatives[].least_high_bytes": "with the fewest rows at a time, activations recomputed",
    "alternatives[].micro_batch": "rows at a time, on one device",
    "alternatives[].accumulation": "",
    "alternatives[].checkpointing": "activations are recomputed",
    "alternatives[].num_gpus": "",
    "alternatives[].strategy": f"one of {', '.join(ENGINES.names())}",
    "alternatives[].tokens_per_second": "without padding where the data's rows are known",
    "alternatives[].hours": "",
    "alternatives[].why_not": "null for the chosen one",
    "alternatives[].unlocks[].kind": "release, optimizer, loss, rows, stored, engine, processes, "
    "gpus, memory, ram or disk",
    "alternatives[].unlocks[].value": "bytes; bits for optimizer, tokens for rows, a number of "
    "further gpus",
    "alternatives[].unlocks[].words": "",
    "warnings[]": "",
}
RECIPE = "what --save writes, like recommended; differs where `why` is not null; null for none"
COMPARISON = {
    "machines[].machine": "like 4x RTX 4090",
    "machines[].num_nodes": "",
    "machines[].rung": "null if nothing fits",
    "machines[].name": "the method in words",
    "machines[].fits": "",
    "machines[].runs": "this version runs it",
    "machines[].num_gpus": "that the plan uses; 0 without GPUs",
    "machines[].strategy": "",
    "machines[].peak_bytes": "expected, of one device",
    "machines[].peak_high_bytes": "",
    "machines[].free_bytes": "",
    "machines[].tokens_per_second": "without padding where the data's rows are known",
    "machines[].hours": "",
    "machines[].price_per_hour": "",
    "machines[].cost": "",
    "machines[].why_not_above": "why not the next larger method, or why nothing fits",
}

UNMODELLED = {
    "unmodelled": "why no formula holds for the model",
    "rehearsals[].method": "full, lora or qlora, one row at a time",
    "rehearsals[].rank": "of its adapters",
    "rehearsals[].seq_len": "",
    "rehearsals[].fits": "",
    "rehearsals[].why_not_rehearsed": "null if it was",
    "rehearsals[].allocated_bytes": "peak of tensors",
    "rehearsals[].low_bytes": "of the device",
    "rehearsals[].expected_bytes": "",
    "rehearsals[].high_bytes": "",
    "rehearsals[].free_bytes": "",
}


def lines(width: int) -> list[str]:
    """All keys for people, a heading for each object."""
    compared = "advisor recommend --compare ... --json: schema, model and data as above, and"
    rehearsed = (
        "advisor recommend --rehearse --json, for a model that no formula holds for: schema, model "
        "and machine as above, and"
    )
    return [
        "advisor recommend --json",
        *_grouped(RECOMMENDATION | {"recipe": RECIPE}, width),
        "",
        *wrap(compared, width),
        *_grouped(COMPARISON, width),
        "",
        *wrap(rehearsed, width),
        *_grouped(UNMODELLED, width),
        "",
        *wrap("an error: error.code (the exit code), class, what, why, do and where", width),
    ]


def _grouped(keys: dict[str, str], width: int) -> list[str]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, meaning in keys.items():
        parent, _, name = key.rpartition(".")
        groups.setdefault(parent, []).append((name, meaning))
    found: list[str] = []
    for parent, rows in groups.items():
        found += [f"  {parent}"] if parent else []
        found += table(rows, indent="    " if parent else "  ", width=width)
    return found
