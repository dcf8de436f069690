"""Inputs that cannot be true are refused before anything is computed from them."""

from __future__ import annotations

from typing import NoReturn

from advisor.choice.answers import Answers
from advisor.choice.storage import weight_bytes
from advisor.choice.words import gib
from advisor.registry.conflicts import no_head
from advisor.registry.lookup import DOMAINS, METHODS, TASKS, preset_of, unfit
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Machine, Model, Origin

_OF_THE_TREE = ("complexity", "critical", "value", "quality")
MIN_SEQ_LEN = 8
MAX_BATCH = 1 << 20


def check(model: Model, machine: Machine, dataset: Dataset | None, answers: Answers) -> None:
    """Refuse what no recommendation can be made from; UserError (USAGE) says why."""
    _check_model(model, machine)
    _check_machine(machine)
    if dataset is not None and dataset.num_rows < 1:
        _refuse("there is nothing to learn from", "no usable row", "add rows", dataset.path)
    if answers.task.value not in TASKS:
        there_are = ", ".join(TASKS.names())
        _refuse(
            f"there is no task {answers.task.value!r}",
            TASKS.unknown(answers.task.value),
            f"name one of {there_are}",
            "--task",
        )
    _check_domain(answers)
    if reason := unfit(TASKS[answers.task.value], model):
        _refuse(
            f"{model.id} cannot learn {answers.task.value}",
            reason,
            "choose a language model, or give data of such a task",
            "--task",
        )
    if answers.seq_len is not None:
        _check_length(model, answers.seq_len.value)
    if answers.effective_batch is not None:
        rows = answers.effective_batch.value
        if not 1 <= rows <= MAX_BATCH:
            _refuse(
                f"a batch of {rows} rows cannot be",
                f"an optimizer step takes 1 to {MAX_BATCH} rows",
                "ask for a number of rows between them, for example 16",
                "--batch",
            )


def _check_model(model: Model, machine: Machine) -> None:
    sizes = {
        "hidden size": model.hidden_size,
        "layers": model.num_layers,
        "attention heads": model.num_heads,
        "vocabulary": model.vocab_size,
        "parameters": model.num_params,
    }
    wrong = [f"{name} {value}" for name, value in sizes.items() if value < 1]
    if wrong:
        _refuse(
            f"{model.id} is no model that can be planned with",
            f"its config says: {', '.join(wrong)}",
            "look at the model's config.json",
            model.path or model.id,
        )
    if "float8" in model.dtype or "fp8" in model.dtype:
        _refuse(
            f"{model.id} is stored in {model.dtype}",
            "training starts from weights in 16 or 32 bits; 8-bit floats are not dequantized here",
            "take the model's bfloat16 weights",
            model.path or model.id,
        )
    if model.unmodelled:
        budget = max((gpu.vram_free_bytes for gpu in machine.gpus), default=machine.ram_free_bytes)
        _refuse(
            f"no estimate holds for {model.id}",
            f"{model.unmodelled}; its weights alone take {gib(weight_bytes(model))} in the files, "
            f"a device here has {gib(budget)} free, and what activations take is not known",
            "let it be rehearsed instead of computed: add --rehearse",
            model.path or model.id,
        )


def _check_machine(machine: Machine) -> None:
    for gpu in machine.gpus:
        if gpu.vram_bytes < 1:
            _refuse(
                f"the memory of GPU {gpu.index} is not known",
                f"the driver reports none for {gpu.name}, and without it nothing can be planned",
                'name a machine to plan for: --gpu "RTX 4090"',
                gpu.name,
            )


def _check_domain(answers: Answers) -> None:
    if answers.domain is None:
        return
    name = answers.domain.value
    if name not in DOMAINS:
        there_are = ", ".join(DOMAINS.names())
        _refuse(
            f"there are no settings for {name!r}",
            DOMAINS.unknown(name),
            f"name one of {there_are}, or leave --for out and let the tree decide",
            "--for",
        )
    method, task = METHODS[preset_of(DOMAINS[name].rungs[0]).method], TASKS[answers.task.value]
    if reason := no_head(method, task):
        _refuse(
            f"--for {name} does not go with {task.name}",
            reason,
            "leave --for out: the decision tree takes what a new head learns with",
            "--for",
        )
    asked = [key for key in _OF_THE_TREE if getattr(answers, key).origin is Origin.USER]
    if asked:
        options = " and ".join(f"--{key}" for key in asked)
        _refuse(
            f"--for {name} does not go with what the decision tree alone asks for: {options}",
            "the documents' method and settings stand in the tree's place",
            f"leave {options} out, or --for",
            "--for",
        )


def _check_length(model: Model, seq_len: int) -> None:
    if seq_len < MIN_SEQ_LEN:
        _refuse(
            f"rows of {seq_len} tokens cannot be",
            f"a row holds a prompt and a reply: {MIN_SEQ_LEN} tokens are the least",
            "ask for longer rows",
            "--seq",
        )
    if 0 < model.max_positions < seq_len:
        _refuse(
            f"rows of {seq_len} tokens are longer than what {model.id} can read",
            f"its config gives it {model.max_positions} positions",
            f"ask for up to {model.max_positions}, or set rope scaling in the model's config first",
            "--seq",
        )


def _refuse(what: str, why: str, do: str, where: str) -> NoReturn:
    raise UserError(what, why=why, do=do, where=where, code=ExitCode.USAGE)
