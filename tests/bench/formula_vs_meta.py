"""Score the memory formula against the meta rehearsal, over a grid of configurations.

    python tests/bench/formula_vs_meta.py [--layers N] [--only WORD] [--worst 20]

Both count what torch allocates on one device in a steady step. The rehearsal runs the real
transformers and PEFT code on tensors without memory; the formula only knows dimensions. `--layers`
cuts the models short: quicker, and stricter, since less repeats.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from advisor.cost import memory
from advisor.plan import Plan
from profiles.facts import Model
from profiles.models import catalog
from profiles.models.dimensions import from_config
from runner.rehearsal_main import settings_of
from runner.rehearse import rehearse

MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen3-8B",
    "mistralai/Mistral-7B-v0.1",
    "google/gemma-2-2b",
    "google/gemma-3-1b-pt",
    "microsoft/Phi-3-mini-4k-instruct",
    "microsoft/phi-2",
    "allenai/OLMo-2-1124-7B",
    "HuggingFaceTB/SmolLM3-3B",
    "ibm-granite/granite-3.1-2b-instruct",
    "tiiuae/falcon-7b",
    "EleutherAI/pythia-1b",
    "Qwen/Qwen3-30B-A3B",
    "mistralai/Mixtral-8x7B-v0.1",
    "allenai/OLMoE-1B-7B-0924",
    "deepseek-ai/DeepSeek-V2-Lite",
)
METHODS = (
    {"method": "full", "precision": "bf16"},
    {"method": "full", "precision": "bf16_pure"},
    {"method": "lora", "rank": 16, "targets": "all"},
    {"method": "lora", "rank": 16, "targets": "attention"},
    {"method": "qlora", "rank": 16, "targets": "all"},
)


@dataclass(frozen=True)
class Score:
    """One configuration, both ways."""

    name: str
    meta_bytes: int
    formula_bytes: int
    meta_winner: str
    formula_winner: str

    @property
    def error(self) -> float:
        """Signed, relative to the rehearsal."""
        return self.formula_bytes / self.meta_bytes - 1


def main(arguments: list[str]) -> int:
    """Run the grid and print what it says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, help="use only so many layers of each model")
    parser.add_argument("--only", default="", help="only names that hold this word")
    parser.add_argument("--worst", type=int, default=10)
    options = parser.parse_args(arguments)
    scores, started = [], time.monotonic()
    for found in grid(options.layers, options.only):
        scores.append(found)
        print(line(found), file=sys.stderr, flush=True)
    report(scores, options.worst, time.monotonic() - started)
    return 0


def grid(num_layers: int | None, only: str) -> Iterator[Score]:
    """Every model by method, checkpointing, loss and length."""
    cases = itertools.product(MODELS, METHODS, (False, True), ("chunked", "full"), (512, 4096))
    for name, method, checkpointing, loss, seq_len in cases:
        words = [f"{name.rpartition('/')[2]}", method["method"], method.get("precision", "bf16")]
        words += [f"targets {method.get('targets')}", f"{loss} loss", f"{seq_len} tokens"]
        words += ["recomputed"] if checkpointing else []
        text = ", ".join(words)
        if only in text:
            model, config = model_of(name, num_layers)
            plan = Plan.of(seq_len=seq_len, checkpointing=checkpointing, loss=loss, **method)
            yield compare(text, model, config, plan)


def model_of(name: str, num_layers: int | None) -> tuple[Model, dict[str, Any]]:
    """The catalog's model and its configuration, cut short if asked."""
    config = catalog.config_of(name)
    if config is None:
        raise SystemExit(f"{name} is not in the catalog")
    if num_layers:
        key = "num_hidden_layers" if "num_hidden_layers" in config else "n_layer"
        config = config | {key: num_layers}
    return from_config(config, name=name, where=name), config


def compare(name: str, model: Model, config: dict[str, Any], plan: Plan) -> Score:
    """The same plan both ways."""
    told = rehearse(config, settings_of(plan), seq_len=plan.seq_len, micro_batch=plan.micro_batch)
    found = memory.estimate(model, plan)
    place = f"{found.winner} ({found.peak.place})"
    return Score(name, told.peak_bytes, found.allocated_bytes, told.winner, place)


def line(score: Score) -> str:
    """One configuration for people."""
    gib = 1024**3
    return (
        f"{score.error:+7.2%}  meta {score.meta_bytes / gib:8.3f} GiB in {score.meta_winner:15}"
        f" formula {score.formula_bytes / gib:8.3f} GiB in {score.formula_winner:45} {score.name}"
    )


def report(scores: list[Score], worst: int, seconds: float) -> None:
    """Median and worst absolute error, and where the worst are."""
    errors = sorted(abs(score.error) for score in scores)
    print(f"{len(scores)} configurations in {seconds:.0f} s")
    print(f"median {statistics.median(errors):.2%}, p95 {errors[int(0.95 * len(errors))]:.2%},")
    print(f"worst {errors[-1]:.2%}")
    for score in sorted(scores, key=lambda s: -abs(s.error))[:worst]:
        print(line(score))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
