"""What a machine, a model and a data set are, as plain facts. Nothing computes or does I/O here.

Units stand in the names (`vram_bytes`, `bf16_flops` in FLOP/s); facts know where numbers came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from profiles.row_counts import RowCounts

GIB = 1024**3


class Origin(StrEnum):
    """Where a number came from."""

    MEASURED = "measured"
    TABLE = "table"
    PREDICTED = "predicted"
    USER = "user"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that holds memory on a GPU."""

    pid: int
    name: str
    user: str
    vram_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator. Speeds are dense rates; `None` means unknown, never a guess."""

    index: int
    name: str
    vendor: str
    """"nvidia", "amd" or "apple"."""
    vram_bytes: int
    vram_free_bytes: int
    origin: Origin
    spec_id: str | None = None
    """Row of gpus.toml whose speeds were taken, if any matched."""
    compute_capability: str | None = None
    has_bf16: bool | None = None
    bf16_flops: float | None = None
    fp16_flops: float | None = None
    fp32_flops: float | None = None
    achievable_share: float | None = None
    """Best matmul rate measured on this part, as a share of the data sheet (MAMF)."""
    alone: bool = False
    """No machine has several of them: a laptop's, or a chip that shares the processor's memory."""
    unified: bool = False
    """Its memory is the processor's too."""
    memory_bytes_per_second: float | None = None
    uuid: str | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    temperature_celsius: int | None = None
    utilization_percent: int | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    num_nvlinks: int = 0
    nvlink_bytes_per_second: float | None = None
    """Of all links together, one direction, by the table."""
    holders: tuple[GpuProcess, ...] = ()

    @property
    def held_bytes(self) -> int:
        """Memory that is not free now, whoever holds it."""
        return self.vram_bytes - self.vram_free_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A host as probed, or as described by the user (`planned`); its cores are physical ones."""

    host: str
    backend: str
    """"cuda", "rocm", "mps" or "cpu"."""
    gpus: tuple[Gpu, ...]
    cpu_name: str
    num_cores: int
    num_threads: int
    ram_bytes: int
    ram_free_bytes: int
    disk_path: str
    disk_free_bytes: int
    origin: Origin
    ram_origin: Origin = Origin.MEASURED  # TABLE: published; DEFAULT: assumed from the GPUs
    disk_origin: Origin = Origin.MEASURED
    interconnect: str | None = None
    """Between the GPUs of a node: "nvlink", "pcie", or None for one GPU or unknown."""
    num_nodes: int = 1
    """Equal hosts that work together; everything else here is of one of them."""
    driver: str | None = None
    cuda_version: str | None = None
    """The newest that the driver runs, like "12.4"."""
    gpu_fault: str | None = None
    """Why a driver that is installed gives no GPU, though nobody asked for the CPU."""
    assumed: tuple[str, ...] = ()
    """How the text of a planned machine was read where it left a choice, and how to say another."""
    notes: tuple[str, ...] = ()
    """What could not be read, what looks wrong, as sentences."""

    @property
    def planned(self) -> bool:
        """Described by the user rather than probed."""
        return self.origin is Origin.USER


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The mixture that stands in place of the MLP in some or all layers."""

    num_experts: int
    """Routed experts of one layer."""
    top_k: int
    """Routed experts that a token visits."""
    width: int
    """Intermediate size of one routed expert."""
    num_layers: int
    """Layers that have experts; the others have a dense MLP."""
    shared_width: int = 0
    """Summed intermediate size of the experts that every token visits."""
    shared_gate: bool = False
    """A linear of one output weighs the shared experts (Qwen2-MoE)."""
    router_bias: bool = False
    expert_bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2): queries, keys and values through low ranks."""

    query_rank: int | None
    """None: one linear makes the queries."""
    kv_rank: int
    nope_dim: int
    """Per head, the part of queries and keys without rotary positions."""
    rope_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder-only language model, by the dimensions that memory and speed depend on."""

    id: str
    path: str | None
    """Local folder with config.json and weights, or None."""
    architecture: str
    model_type: str
    """Of the text model, where it is wrapped."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    """Of the dense MLP; 0 where every layer has experts."""
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    attention_bias: bool = False
    """On q, k and v."""
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    qk_norm: str = ""
    """"head": each head's q and k, shared weights; "full": the whole projections; or none."""
    norm: str = "rms"
    """"rms", "layer" (weight and bias), "layer_no_bias", or "layer_bare" (neither)."""
    norms_per_layer: int = 2
    parallel: bool = False
    """Attention and MLP read the same input and are added together."""
    gated_mlp: bool = True
    """Gate, up and down; else up and down only."""
    fused_qkv: bool = False
    """One linear makes q, k and v."""
    fused_gate_up: bool = False
    sliding_window: int | None = None
    """Tokens that a sliding layer attends to."""
    num_sliding_layers: int = 0
    num_positions: int = 0
    """Rows of a learned position embedding, 0 with rotary positions or ALiBi."""
    is_bounded: bool = False
    """A longer text than `max_positions` ends in an error, rather than being read badly."""
    is_encoder: bool = False
    """Every token reads all others, and none is predicted: it serves for heads of its own."""
    experts: Experts | None = None
    latent: Latent | None = None
    vision_params: int = 0
    """Weights of towers for images and sound, part of `num_params`; frozen in text training."""
    other_params: int = 0
    """Weights of parts that these dimensions do not describe, part of `num_params`; below 0 where
    the dimensions describe more than there is (a layer without attention)."""
    unmodelled: str = ""
    """Why the formulas do not hold ("36 of 48 layers use linear attention"); empty if they do."""
    untrainable: str = ""
    """Why no run can train it, though it can be planned with; empty if one can."""
    ignores_code: bool = False
    """config.json names code of its own, which is never run: transformers' class is taken."""
    dtype: str = "bfloat16"
    num_params: int
    params_origin: Origin
    weight_bytes: int | None = None
    """Size of the weight files on disk."""
    has_chat_template: bool | None = None
    gated: bool | None = None
    """The hub gives the weights only to those who accepted a licence; None if unknown."""

    @property
    def query_width(self) -> int:
        """Q = heads x head dimension (differs from hidden_size in some families)."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Kv = key/value heads x head dimension."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStats:
    """Tokens per example, before truncation."""

    min: int
    median: int
    p95: int
    max: int
    mean: float
    total: int
    origin: Origin
    """MEASURED with the model's tokenizer, PREDICTED from characters without it."""
    longest_line: int = 0
    """Where the longest example begins; its row in a file without lines."""
    max_length: int | None = None
    """At which `counts` are taken."""
    lengths: tuple[tuple[int, int], ...] = ()
    """Tokens, and how many examples have as many; the shortest first. Of a preference pair these
    are the longer text's, and"""
    beside: tuple[tuple[int, int], ...] = ()
    """those of the shorter texts; empty for rows of one text. `mean` is over all texts."""
    starts: tuple[tuple[int, int], ...] = ()
    """Tokens before the first one that is learnt, and how many examples have as many; those of
    which nothing is learnt are in `unlearnt`."""
    unlearnt: tuple[tuple[int, int], ...] = ()
    """Tokens of rows of which nothing is learnt at any length, and how many rows have as many."""
    edges: tuple[tuple[int, int], ...] = ()
    """Tokens before a border of what is learnt, and parts that begin there less those that end."""

    @property
    def counts(self) -> RowCounts:
        """What is read and learnt within max_length if one was asked, else of whole rows."""
        return self.at(self.max_length)

    def at(self, max_length: int | None) -> RowCounts:
        """What is read and learnt of the rows when they are cut at this length."""
        limit = self.max if max_length is None else max_length
        lost = sum(rows for start, rows in self.starts if start >= limit)
        num_longer = sum(rows for length, rows in self.lengths if length > limit)
        unlearnt_longer = sum(rows for length, rows in self.unlearnt if length > limit)
        every = (*self.lengths, *self.beside)
        unread = sum((length - limit) * rows for length, rows in every if length > limit)
        # The texts of a pair begin alike, so that where nothing is learnt both are cut
        left_out = sum(min(length, limit) * rows for length, rows in self.unlearnt) + limit * lost
        left_out *= 2 if self.beside else 1
        return RowCounts(
            num_rows=sum(rows for _, rows in self.lengths),
            num_dropped=lost + sum(rows for _, rows in self.unlearnt),
            num_cut=num_longer - lost - unlearnt_longer,
            num_tokens=self.total - unread - left_out,
            num_learnt=sum((limit - at) * parts for at, parts in self.edges if at < limit),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One key of the rows of a data set."""

    name: str
    types: tuple[tuple[str, int, int], ...]
    """Type of the value ("a text", "null"), its rows, the first one's line; commonest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A validated data set file."""

    path: str
    format: str
    """A name of `profiles.data.formats`, like "alpaca"."""
    num_rows: int
    """Usable examples; of a mix of files, those of an epoch with the repeated ones."""
    num_bytes: int
    sha256: str
    num_empty: int
    """Rows left out: no reply, or nothing but white space."""
    num_duplicates: int
    """Usable rows that repeat an earlier row exactly; they are kept."""
    num_truncated: int
    """Rows longer than the asked max_length, 0 if none was asked."""
    num_tasks: int
    """Distinct values of a `task` column if there is one, else 1."""
    tokens: TokenStats | None
    num_distinct_rows: int | None = None
    """Of a mix of files: rows of an epoch, each once. None for one file."""
    container: str = ""
    """How the file holds its rows: "JSON list", "CSV, commas between the cells"."""
    read_with: dict[str, Any] = field(default_factory=dict)
    """Keys of a recipe's [data] by which it was read, where a person chose them."""
    problem: str = ""
    """Why nothing can be trained on it as it is, empty if it is ready."""
    columns: tuple[Column, ...] = ()
    """The first 64 keys."""
    scripts: tuple[tuple[str, float], ...] = ()
    """Script ("Latin", "CJK") and its share of all letters, the largest first."""
    labels: tuple[tuple[str, int], ...] = ()
    """Label and number of rows, the commonest first, where the rows have labels."""
    num_bad: int = 0
    """Faulty rows left out."""
    num_near_duplicates: int = 0
    """Usable rows that repeat an earlier row but for white space and case."""
    num_conflicts: int = 0
    """Usable rows that ask what an earlier row asks and answer otherwise."""
    num_untrainable: int = 0
    """Rows of which max_length leaves no token to learn from."""
    num_one_sided: int = 0
    """Usable rows with a reply and nothing that it replies to."""
    num_short_replies: int = 0
    """Usable rows with a reply shorter than 10 characters."""
    num_html: int = 0
    """Usable rows with HTML tags or entities in a text."""
    cleaned: dict[str, int] = field(default_factory=dict)
    """Rows changed or left out by what was asked for, such as "html" and "mask email"."""
    values: tuple[tuple[str, int], ...] = ()
    """Of the column by which rows are to be divided: value and usable rows, as they appear."""
    personal: tuple[tuple[str, int, tuple[int, ...]], ...] = ()
    """Kind of personal data or keys that is left: usable rows with any, the first lines."""
    warnings: tuple[str, ...] = ()
