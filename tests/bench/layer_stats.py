"""What looking at the layers costs: CPU time of steps with and without it, in turn, as a ratio.

Run as `python tests/bench/layer_stats.py`. A LoRA of a small random mixture of experts learns from
rows with padding; steps that count where tokens go stand between steps that do not. A record, with
the norms of all adapters, is timed alone and spread over the fewest steps that it is of.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch  # the line above must come first
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from advisor.plan import Plan
from runner.training.layers import Norms, interval
from runner.training.routing import RouterHooks

_BUDGET = 0.01
_SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "moe_intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_experts_per_tok": 2,
}


class Switched(RouterHooks):
    """Counts only while it is on."""

    is_on = True

    def _begin(self, *given: Any) -> None:
        if self.is_on:
            super()._begin(*given)


def made(num_experts: int) -> Any:
    """The mixture with adapters on its attention."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3_moe", **_SHAPE, num_experts=num_experts)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    lora = LoraConfig(
        r=16, target_modules=["q_proj", "v_proj", "o_proj"], task_type=TaskType.CAUSAL_LM
    )
    return get_peft_model(model, lora).train()


def step_of(model: Any, rows: int, tokens: int) -> Callable[[], float]:
    """A function that makes an optimizer step and returns its CPU seconds."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, _SHAPE["vocab_size"], (rows, tokens))
    mask = torch.ones_like(ids)
    mask[1:, tokens // 2 :] = 0

    def step() -> float:
        began = time.process_time()
        model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return step


def cpu_seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median of some rounds, the first left out."""
    found = []
    for _ in range(rounds + 1):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return median(found[1:])


def main() -> int:
    """Measure and print; 1 if it is more than the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="of each kind")
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = made(asked.experts)
    hooks, step = Switched(model), step_of(model, asked.rows, asked.tokens)
    pairs: list[tuple[float, float]] = []
    for number in range(asked.steps + 1):
        times = {}
        for hooks.is_on in (False, True) if number % 2 else (True, False):
            times[hooks.is_on] = step()
            hooks.end_step()
        pairs.append((times[False], times[True]))
    usual = median(without for without, _ in pairs[1:])
    ratio = median(counting / without for without, counting in pairs[1:])
    norms, plan = Norms(), Plan.of("lora", seq_len=asked.tokens)
    record = cpu_seconds(lambda: norms.look(model, plan), 10) + cpu_seconds(hooks.take, 1)
    share = record / usual / interval(None, 1)
    print(f"a step {usual:.4f} s; counting {ratio - 1:+.2%}; a record {record:.4f} s, {share:.2%}")
    print(f"together {ratio - 1 + share:+.2%} of a step, of {_BUDGET:.0%} that it may cost")
    return int(ratio - 1 + share > _BUDGET)


if __name__ == "__main__":
    sys.exit(main())
