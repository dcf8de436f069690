"""Machines, models and data sets that several tests plan with."""

from __future__ import annotations

from dataclasses import replace

from profiles.facts import Dataset, Machine, Model, Origin, TokenStats

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


def model(name="llama-3.1-8b", **changes):
    """A known model; dimensions from its config.json."""
    shapes = {
        "llama-3.1-8b": (4096, 32, 32, 8, 128, 14336, 128256, False, 8_030_261_248),
        "llama-3.1-70b": (8192, 80, 64, 8, 128, 28672, 128256, False, 70_553_706_496),
        "qwen2.5-1.5b": (1536, 28, 12, 2, 128, 8960, 151936, True, 1_543_714_304),
        "qwen2.5-0.5b": (896, 24, 14, 2, 64, 4864, 151936, True, 494_032_768),
    }
    h, layers, heads, kv_heads, head_dim, f, vocab, tied, params = shapes[name]
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
    return replace(found, **changes)


def dataset(rows=1000, tasks=1):
    """Alpaca rows of at most 900 tokens."""
    tokens = TokenStats(
        min=10,
        median=200,
        p95=600,
        max=900,
        mean=250.0,
        total=250 * rows,
        trainable_total=150 * rows,
        origin=Origin.MEASURED,
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
