"""Every method that runs, with settings that change what it does, for tests that hold for all."""

from __future__ import annotations

import tomllib
from typing import NamedTuple

from advisor.plan import Plan
from advisor.recipe_sections import method_section
from advisor.registry.lookup import METHODS
from advisor.registry.spec import keys_of


class Case(NamedTuple):
    """A method with settings, and a learning rate at which a dozen steps show."""

    method: str
    settings: str = ""
    """Lines of [method]."""
    rate: float = 1e-2
    family: str = "llama"
    """Of the tiny model."""

    def plan(self, **values):
        """As estimates and rehearsals take it."""
        told = {"name": self.method} | tomllib.loads(self.settings)
        settings = method_section(METHODS[self.method]).model_validate(told).settings
        given = {key: getattr(settings, key) for key in keys_of(type(settings))}
        return Plan.of(self.method, **given, **values)


EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
"""Of the tiny mixture."""
CASES = {
    "lora": Case("lora", "dropout = 0.1"),
    "rslora": Case("lora", "rslora = true"),
    "gaussian": Case("lora", 'init = "gaussian"'),
    "pissa": Case("lora", 'init = "pissa"\nrslora = true', 1e-3),
    "olora": Case("lora", 'init = "olora"', 1e-3),
    "lora-fa": Case("lora", "freeze_a = true"),
    "lora+": Case("lora", "b_rate = 8.0", 1e-3),
    "dora": Case("lora", "dora = true\nfreeze_a = true", 1e-2),
    "dora, dropout": Case("lora", "dora = true\ndropout = 0.1", 1e-2, family="qwen2"),
    "dora, pissa": Case("lora", 'dora = true\ninit = "pissa"', 1e-3),
    "lora, last layers": Case("lora", 'layers = "last 1"\nexclude = ["k_proj"]', 1e-2),
    "lora, first layers": Case(
        "lora", 'layers = [0]\ninit = "pissa"\nranks = { q_proj = 4, up_proj = 24 }', 1e-3
    ),
    "lora, experts": Case("lora", 'rslora = true\nrouter = "adapted"', 1e-3, family="mixtral"),
    "lora, router": Case("lora", 'router = "trained"\ntargets = "attention"', 3e-3, "mixtral"),
    "lora, whole modules": Case("lora", 'modules_to_save = ["lm_head", "norms"]', 5e-3),
    "lora, biases": Case("lora", 'bias = "all"\nmodules_to_save = ["lm_head"]', family="qwen2"),
    "lora, some biases": Case("lora", 'bias = "lora_only"\ntargets = ["q_proj"]', family="qwen2"),
    "prompt tuning": Case("prompt_tuning", 'virtual_tokens = 8\ninit_text = "count to"', 0.3),
    "adalora": Case("adalora", "tinit = 3\ntfinal = 4", 2e-2),
    "vera": Case("vera", "rank = 32", 2e-2),
    "loha": Case("loha", "rank = 4\nalpha = 8"),
    "lokr": Case("lokr", "rank = 4\nalpha = 8"),
    "shira": Case("shira", "rank = 8", 1e-3),
    "oft": Case("oft", "block = 16", 1e-3),
    "eva": Case("eva", "rank = 4\nrho = 1.0", 1e-3),
    "p-tuning": Case("p_tuning", "virtual_tokens = 8", 3e-3),
    "prefix tuning": Case("prefix_tuning", "virtual_tokens = 8", 3e-2),
    "p-tuning v2": Case("p_tuning_v2", "virtual_tokens = 8\nencoder_width = 48", 1e-2),
    "ia3": Case("ia3", rate=3e-2),
    "ia3, one layer": Case("ia3", 'layers = "last 1"', rate=1e-1),
    "layer norms": Case("ln_tuning", rate=1e-2),
    "layer norms, one layer": Case("ln_tuning", "layers = [1]", rate=3e-2),
    "bitfit": Case("bitfit", rate=3e-2, family="qwen2"),
    "bitfit, one layer": Case("bitfit", "layers = [1]", rate=3e-2, family="qwen2"),
    "llama-adapter": Case("llama_adapter", "prompts = 6\nskipped_layers = 1", 3e-2),
    "full": Case("full", rate=1e-3),
    "houlsby": Case("adapter", "reduction = 4"),
    "pfeiffer": Case("adapter", 'placement = "pfeiffer"\nactivation = "relu"', family="qwen2"),
    "parallel": Case("adapter", 'placement = "parallel"\nreduction = 8'),
    "lora experts": Case("lora_experts", "experts = 3\nrank = 4\nalpha = 8\ndropout = 0.1"),
    "last layers": Case("freeze", "frozen_layers = 1", 1e-3),
    "some layers": Case("freeze", "layers = [0]", 1e-3, family="qwen2"),
}
QUANTIZED = {
    "qlora": Case("qlora", "b_rate = 8.0\nrslora = true", 1e-3),
    "qlora, dora": Case("qlora", "dora = true", 1e-2),
    "qlora, 8 bit": Case("qlora", "bits = 8\ndropout = 0.1", 1e-2),
    "qlora-fa": Case("qlora", "freeze_a = true"),
    "qlora, mixture": Case("qlora", 'targets = "attention"', 1e-3, family="mixtral"),
    "qlora, experts": Case("qlora", 'router = "trained"', 1e-3, family="mixtral"),
    "prompt tuning, 4 bit": Case("prompt_tuning", "virtual_tokens = 8\nbits = 4", 0.3),
    "p-tuning, 4 bit": Case("p_tuning", "virtual_tokens = 8\nbits = 4", 3e-3),
}
"""Beside a base of few bits, on which alone they predict what they did."""
