"""Greedy answers to a few held-out prompts, before and after training: to be read by people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from advisor.choice.duration import NEW_TOKENS
from profiles.data.encoding import Encoder
from profiles.data.formats.spec import Example
from profiles.runs.records.evaluation import Answer, AnswerFailed
from runner.training.attempt import Attempt
from runner.training.trainer import RunProtocol

_MAX_CHARS = 1000


def write(
    trainer: RunProtocol,
    rows: Sequence[Example],
    attempt: Attempt,
    *,
    encoder: Encoder,
    moment: str,
    max_length: int,
) -> None:
    """Answer the rows as `sample` events."""
    try:
        for row in rows:
            wanted = row.messages[-1].texts if row.messages else row.completion
            if wanted is not None:
                answer = Answer(
                    moment=moment,
                    step=trainer.state.global_step,
                    prompt=_shown(row)[:_MAX_CHARS],
                    wanted=wanted[:_MAX_CHARS],
                    answer=_generate(trainer, encoder, row, max_length)[:_MAX_CHARS],
                )
                attempt.events.append(answer)
            attempt.progress.tick()
    except Exception as error:  # noqa: BLE001  # an example is no reason to lose a run
        attempt.events.append(AnswerFailed(moment=moment, error=str(error)[:_MAX_CHARS]))


def _shown(row: Example) -> str:
    """What is asked last."""
    before = row.messages[:-1]
    return before[-1].content if before else row.prompt or ""


def _generate(trainer: RunProtocol, encoder: Encoder, row: Example, max_length: int) -> str:
    """The greedy answer to a prompt; of a long one the end is kept, as much as training sees.

    It ends where the model ends it, or with the mark that training teaches it to end replies with,
    which the model need not know: then of a base model the mark is its family's.
    """
    tokenizer: PreTrainedTokenizerBase = trainer.processing_class
    room = max(1, max_length - NEW_TOKENS)
    ids = torch.tensor([encoder.ask(row)[-room:]], device=trainer.args.device)
    network, was_training = trainer.model, trainer.model.training
    mark = encoder.renderer.write(row).end
    network.eval()
    with torch.no_grad():
        output = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=_ends(network, encoder, mark) or None,
        )
    network.train(was_training)
    answer = str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    return answer.partition(mark)[0] if mark else answer


def _ends(network: Any, encoder: Encoder, mark: str) -> list[int]:
    """Tokens at which an answer ends; a mark in several tokens is none of them."""
    own = network.generation_config.eos_token_id
    found = [own] if isinstance(own, int) else list(own or [])
    token = encoder.token_of(mark)
    return found if token is None else [*found, token]
