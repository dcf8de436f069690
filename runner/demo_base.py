"""Make the demonstration's base model: a tiny Llama, trained from a seed in well under a minute.

Run as `python -P -m runner.demo_base FOLDER`. Leaves what a downloaded base model has: config,
safetensors, tokenizer, chat template.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from profiles.chat_families import TEMPLATES
from runner.demo_text import base_lines

SEED = 7
VOCABULARY = 512
NUM_STEPS = 440
BATCH = 32
LEARNING_RATE = 3e-3
_REPORT_EVERY = 60
PAD, IGNORED = 0, -100
_SPECIAL = ("<pad>", "<s>", "</s>")


def make_tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the lines, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = TEMPLATES["plain"]
    return fast


def make_model() -> LlamaForCausalLM:
    """About 0.4 million parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def pretrain(model: LlamaForCausalLM, lines: list[torch.Tensor]) -> None:
    """Next-token training on whole lines; prints the loss now and then."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.02, total_iters=40)
    for step in range(1, NUM_STEPS + 1):
        rows = lines[(step - 1) * BATCH : step * BATCH]
        batch = pad_sequence(rows, batch_first=True, padding_value=PAD)
        labels = batch.masked_fill(batch == PAD, IGNORED)
        loss = model(input_ids=batch, labels=labels, attention_mask=(batch != PAD).long()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
        if step % _REPORT_EVERY == 0:
            print(f"  step {step}/{NUM_STEPS}  loss {loss.item():.3f}", file=sys.stderr)


def main(argv: list[str]) -> int:
    """Write the model into a folder."""
    folder = Path(argv[1])
    started = time.monotonic()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(SEED)
    lines = list(base_lines(NUM_STEPS * BATCH, SEED))
    tokenizer = make_tokenizer(lines)
    ids = tokenizer(lines, add_special_tokens=False)["input_ids"]
    model = make_model()
    pretrain(model, [torch.tensor([*line, tokenizer.eos_token_id]) for line in ids])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    seconds = time.monotonic() - started
    print(f"  base model ready in {seconds:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
