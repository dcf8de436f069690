"""Greedy answers to a few held-out prompts, before and after training: to be read by people."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from advisor.choice.duration import NEW_TOKENS
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import Answer, AnswerFailed
from runner.training.attempt import Attempt
from runner.training.trainer import RunProtocol

_MAX_CHARS = 1000


def write(
    trainer: RunProtocol, rows: Dataset, attempt: Attempt, *, moment: str, max_length: int
) -> None:
    """Answer the rows as `sample` events."""
    try:
        for row in rows:
            _write_one(trainer, row, attempt.events, moment=moment, max_length=max_length)
            attempt.progress.tick()
    except Exception as error:  # noqa: BLE001  # an example is no reason to lose a run
        attempt.events.append(AnswerFailed(moment=moment, error=str(error)[:_MAX_CHARS]))


def _write_one(
    trainer: RunProtocol, row: dict[str, Any], events: Journal, *, moment: str, max_length: int
) -> None:
    prompt, wanted = _prompt_of(row)
    if wanted is None:
        return
    answer = Answer(
        moment=moment,
        step=trainer.state.global_step,
        prompt=_shown(prompt)[:_MAX_CHARS],
        wanted=wanted[:_MAX_CHARS],
        answer=_generate(trainer, prompt, max_length)[:_MAX_CHARS],
    )
    events.append(answer)


def _prompt_of(row: dict[str, Any]) -> tuple[Any, str | None]:
    if "messages" in row:
        return row["messages"][:-1], row["messages"][-1]["content"]
    if isinstance(row.get("prompt"), list):
        return row["prompt"], row["completion"][-1]["content"]
    return row.get("prompt"), row.get("completion")


def _shown(prompt: Any) -> str:
    return str(prompt) if isinstance(prompt, str) else str(prompt[-1]["content"])


def _generate(trainer: RunProtocol, prompt: Any, max_length: int) -> str:
    """The greedy answer to a prompt; of a long one the end is kept, as much as training sees."""
    tokenizer: PreTrainedTokenizerBase = trainer.processing_class
    if isinstance(prompt, str):
        inputs = tokenizer(prompt, return_tensors="pt")
    else:
        inputs = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    room = max(1, max_length - NEW_TOKENS)
    inputs = {k: v[:, -room:].to(trainer.args.device) for k, v in inputs.items()}
    network, was_training = trainer.model, trainer.model.training
    network.eval()
    with torch.no_grad():
        output = network.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True
        )
    network.train(was_training)
    return str(
        tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    )
