"""Warnings beside a recommendation: what is uncertain, shared, cut or short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.choice import storage, words
from advisor.choice.choose import Choice
from advisor.choice.fit import weighed
from advisor.choice.ladder import spread
from advisor.choice.options import Options
from profiles.facts import Dataset


def cautions(options: Options, dataset: Dataset | None, chosen: Choice) -> tuple[str, ...]:
    """Every warning, the machine's and the data's own first."""
    found = list(options.machine.notes) + list(dataset.warnings if dataset else ())
    seq_len = chosen.fit.plan.seq_len
    tokens = dataset.tokens if dataset else None
    if tokens and tokens.at(seq_len) != tokens.counts:  # else the data's own warnings tell it
        found.append(words.truncation(tokens, seq_len))
    found += _devices(options, chosen)
    found += _room(options, chosen)
    return tuple(found)


def _devices(options: Options, chosen: Choice) -> Iterator[str]:
    machine, plan = options.machine, chosen.fit.plan
    for gpu in machine.gpus:
        for process in gpu.holders:
            yield words.holder(gpu, process)
    if len(machine.gpus) > plan.num_gpus:
        yield words.idle_gpus(
            plan.num_gpus, len(machine.gpus), options.batch, _short_ram(options, chosen)
        )
    if options.batch.asked and plan.effective_batch != options.batch.rows:
        yield words.batch_not_kept(options.batch, chosen.fit)
    if chosen.fit.fits and chosen.fit.speed is None:
        yield words.UNKNOWN_RATE


def _short_ram(options: Options, chosen: Choice) -> str:
    """What the RAM lacks for a process on each GPU; empty if it has that, or if one is used."""
    plan, machine = chosen.fit.plan, options.machine
    every = spread(replace(plan, offload=""), len(machine.gpus))
    fits = [weighed(options.model_of(chosen.rung), machine, one) for one in every]
    lacking = [words.host_need(one) for one in fits if one.short_ram_bytes]
    return lacking[0] if lacking and len(lacking) == len(fits) else ""


def _room(options: Options, chosen: Choice) -> Iterator[str]:
    """Of disk, RAM and weights, what is not known or little."""
    machine, model = options.machine, options.model_of(chosen.rung)
    if chosen.kept_checkpoints < storage.KEPT:
        yield words.few_checkpoints(chosen.kept_checkpoints)
    if machine.gpus and not model.path and not storage.converts(model, chosen.fit.plan):
        copied = storage.loading_bytes(replace(model, dtype="other"), chosen.fit.plan)
        if chosen.fit.fits and copied > machine.ram_free_bytes:
            yield words.untold_type(copied, machine.ram_free_bytes)
    if model.gated and not model.path:
        yield words.gated(model.id)
    if model.untrainable:
        yield words.untrainable(model)
    if model.ignores_code:
        yield words.IGNORED_CODE
