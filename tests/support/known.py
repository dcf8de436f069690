"""Machines, models and data sets that several tests plan with."""

from __future__ import annotations

from dataclasses import replace

from profiles.facts import Dataset, Experts, Machine, Model, Origin, TokenStats

HOST = Machine(
    host="here",
    backend="cpu",
    gpus=(),
    cpu_name="cpu",
    num_cores=8,
    num_threads=16,
    ram_bytes=64 << 30,
    ram_free_bytes=60 << 30,
    disk_path="/",
    disk_free_bytes=1 << 40,
    origin=Origin.MEASURED,
)


RECIPE = """\
schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
[method]
name = "lora"
"""
SHAPES = {
    "llama-3.1-8b": (4096, 32, 32, 8, 128, 14336, 128256, False, 8_030_261_248),
    "llama-3.1-70b": (8192, 80, 64, 8, 128, 28672, 128256, False, 70_553_706_496),
    "llama-3.2-1b": (2048, 16, 32, 8, 64, 8192, 128256, True, 1_235_814_400),
    "qwen2.5-0.5b": (896, 24, 14, 2, 64, 4864, 151936, True, 494_032_768),
    "qwen2.5-1.5b": (1536, 28, 12, 2, 128, 8960, 151936, True, 1_543_714_304),
    "qwen2.5-7b": (3584, 28, 28, 4, 128, 18944, 152064, False, 7_615_616_512),
    "qwen3-30b-a3b": (2048, 48, 32, 4, 128, 0, 151936, False, 30_532_122_624),
    "mixtral-8x7b": (4096, 32, 32, 8, 128, 0, 32000, False, 46_702_792_704),
    "olmoe-1b-7b": (2048, 16, 16, 16, 128, 0, 50304, False, 6_919_161_856),
    "gpt2": (768, 12, 12, 12, 64, 3072, 50257, True, 124_439_808),
}
"""Hidden size, layers, heads, key/value heads, head size, MLP width, vocabulary, tied embeddings,
parameters; from the models' config.json."""
MORE = {
    "qwen2.5-0.5b": {"model_type": "qwen2", "attention_bias": True},
    "qwen2.5-1.5b": {"model_type": "qwen2", "attention_bias": True},
    "qwen2.5-7b": {"model_type": "qwen2", "attention_bias": True},
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe",
        "qk_norm": "head",
        "experts": Experts(num_experts=128, top_k=8, width=768, num_layers=48),
    },
    "mixtral-8x7b": {
        "model_type": "mixtral",
        "experts": Experts(num_experts=8, top_k=2, width=14336, num_layers=32),
    },
    "olmoe-1b-7b": {
        "model_type": "olmoe",
        "qk_norm": "full",
        "experts": Experts(num_experts=64, top_k=8, width=1024, num_layers=16),
    },
    "gpt2": {
        "model_type": "gpt2",
        "norm": "layer",
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "gated_mlp": False,
        "fused_qkv": True,
        "num_positions": 1024,
        "max_positions": 1024,
    },
}


def model(name="llama-3.1-8b", **changes):
    """A known model; dimensions from its config.json."""
    h, layers, heads, kv_heads, head_dim, f, vocab, tied, params = SHAPES[name]
    found = Model(
        id=name,
        path=f"/models/{name}",
        architecture="LlamaForCausalLM",
        model_type="llama",
        hidden_size=h,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=f,
        vocab_size=vocab,
        max_positions=8192,
        tied_embeddings=tied,
        num_params=params,
        params_origin=Origin.TABLE,
        has_chat_template=True,
    )
    return replace(found, **(MORE.get(name, {}) | changes))


def dataset(rows=1000, tasks=1):
    """Alpaca rows of at most 900 tokens."""
    tokens = TokenStats(
        min=10,
        median=200,
        p95=600,
        max=900,
        mean=250.0,
        total=250 * rows,
        origin=Origin.MEASURED,
        lengths=((250, rows),),
        starts=((100, rows),),
        edges=((100, rows), (250, -rows)),
    )
    return Dataset(
        path="/data/rows.json",
        format="alpaca",
        num_rows=rows,
        num_bytes=rows * 1000,
        sha256="0" * 64,
        num_empty=0,
        num_duplicates=0,
        num_truncated=0,
        num_tasks=tasks,
        tokens=tokens,
    )
