"""The model families that are known here: how each builds its layers.

Decides from a model type what its config.json leaves unsaid: norms, biases, fused linears, which
layers slide. Read from the modeling files of transformers 5.23; for the three types that it has no
class for (phi3small, nemotron-nas, bailing_moe) from the sources in catalog.jsonl. A family that
is not listed is refused: a formula that merely resembles a model gives confident nonsense.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from profiles.models.safe_config import bad_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is the same in all models of a family; switches are named by their config key."""

    architecture: str
    norm: str = "rms"
    """As `Model.norm`."""
    norms: int = 2
    attention_bias: bool | str = "attention_bias"
    """On q, k and v."""
    output_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    head_bias: bool | str = False
    qk_norm: str = ""
    """As `Model.qk_norm`."""
    qk_norm_switch: bool | str = True
    parallel: bool | str = False
    gated_mlp: bool = True
    fused_qkv: bool = False
    fused_gate_up: bool = False
    extra_positions: int | None = None
    """Rows of a learned position table beyond the longest text; None: there is no such table."""
    is_bounded: bool = False
    """Positions are looked up in a table, learned or not, which longer texts reach beyond."""
    counts_padding: bool = False
    """`max_position_embeddings` counts the two rows of the table that no token has."""
    is_encoder: bool = False
    """As `Model.is_encoder`."""
    sliding: str = ""
    """Which layers slide if the config lists none: "all", "every" N-th does not (`period`),
    "late" (from max_window_layers on), "early" (even ones before it), "rotary"; or none."""
    period: int = 0


def _unbiased(architecture: str) -> Family:
    return Family(architecture=architecture, attention_bias=False, output_bias=False)


def _biased(architecture: str) -> Family:
    """Plain MLPs, LayerNorms with biases, and a bias on every linear of a layer: GPT-2's kind."""
    return Family(
        architecture=architecture,
        norm="layer",
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        gated_mlp=False,
    )


_LLAMA = Family(architecture="LlamaForCausalLM", mlp_bias="mlp_bias")
_MISTRAL = replace(_unbiased("MistralForCausalLM"), sliding="all")
_QWEN2 = replace(_unbiased("Qwen2ForCausalLM"), attention_bias=True, sliding="late")
_QWEN3 = Family(architecture="Qwen3ForCausalLM", qk_norm="head", sliding="late")
_GEMMA = Family(architecture="GemmaForCausalLM")
_OLMO2 = Family(architecture="Olmo2ForCausalLM", qk_norm="full")
_COHERE = Family(architecture="CohereForCausalLM", norm="layer_no_bias", norms=1, parallel=True)
_GPT2 = replace(_biased("GPT2LMHeadModel"), fused_qkv=True, extra_positions=0, is_bounded=True)
_GLM = Family(architecture="GlmForCausalLM", output_bias=False, fused_gate_up=True)
_DEEPSEEK = Family(architecture="DeepseekV3ForCausalLM")
_BERT = replace(
    _biased("BertForSequenceClassification"), extra_positions=0, is_bounded=True, is_encoder=True
)
_BARE = replace(_unbiased(""), gated_mlp=False, fused_qkv=True)


def _named(family: Family, architecture: str) -> Family:
    return replace(family, architecture=architecture)


FAMILIES: Final = {
    "llama": _LLAMA,
    "llama4_text": Family(architecture="Llama4ForCausalLM", sliding="rotary"),
    "mllama_text_model": _unbiased("MllamaForCausalLM"),
    "internlm3": _LLAMA,  # transformers 5.23 builds Llama's classes for it
    "mistral": _MISTRAL,
    "ministral": _named(_MISTRAL, "MinistralForCausalLM"),
    "ministral3": _named(_MISTRAL, "Ministral3ForCausalLM"),
    "mixtral": _named(_MISTRAL, "MixtralForCausalLM"),
    "qwen2": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_moe": replace(
        _named(_QWEN2, "Qwen2MoeForCausalLM"), attention_bias="qkv_bias", sliding="early"
    ),
    "qwen3": _QWEN3,
    "qwen3_moe": replace(_named(_QWEN3, "Qwen3MoeForCausalLM"), sliding="all"),
    "qwen3_vl_text": replace(_QWEN3, sliding=""),
    "qwen3_vl_moe_text": replace(_named(_QWEN3, "Qwen3MoeForCausalLM"), sliding=""),
    "qwen3_next": replace(_named(_QWEN3, "Qwen3NextForCausalLM"), sliding=""),
    "qwen3_5_text": replace(_named(_QWEN3, "Qwen3_5ForCausalLM"), sliding=""),
    "qwen3_5_moe_text": replace(_named(_QWEN3, "Qwen3_5MoeForCausalLM"), sliding=""),
    "smollm3": replace(_named(_LLAMA, "SmolLM3ForCausalLM"), sliding="rotary"),
    "granite": _named(_LLAMA, "GraniteForCausalLM"),
    "granitemoe": _named(_GEMMA, "GraniteMoeForCausalLM"),
    "granitemoehybrid": replace(_named(_GEMMA, "GraniteMoeHybridForCausalLM"), fused_gate_up=True),
    "seed_oss": replace(_named(_LLAMA, "SeedOssForCausalLM"), output_bias="attention_out_bias"),
    "gemma": _GEMMA,
    "gemma2": replace(_named(_GEMMA, "Gemma2ForCausalLM"), norms=4, sliding="every", period=2),
    "gemma3_text": replace(
        _named(_GEMMA, "Gemma3ForCausalLM"), norms=4, qk_norm="head", sliding="every", period=6
    ),
    "gemma3n_text": replace(
        _named(_GEMMA, "Gemma3nForCausalLM"), norms=4, qk_norm="head", sliding="every", period=5
    ),
    "gemma4_text": replace(
        _named(_GEMMA, "Gemma4ForCausalLM"), norms=4, qk_norm="head", sliding="every", period=6
    ),
    "phi": replace(_biased("PhiForCausalLM"), norms=1, head_bias=True, parallel=True),
    "phi3": replace(_named(_MISTRAL, "Phi3ForCausalLM"), fused_qkv=True, fused_gate_up=True),
    "phi3small": replace(_biased("Phi3SmallForCausalLM"), gated_mlp=True),
    "phimoe": Family(
        architecture="PhimoeForCausalLM", norm="layer", head_bias="lm_head_bias", sliding="all"
    ),
    "gpt_neox": replace(
        _biased("GPTNeoXForCausalLM"),
        attention_bias="attention_bias",
        output_bias="attention_bias",
        parallel="use_parallel_residual",
        fused_qkv=True,
    ),
    "gptj": replace(
        _biased("GPTJForCausalLM"),
        norms=1,
        attention_bias=False,
        output_bias=False,
        head_bias=True,
        parallel=True,
        is_bounded=True,
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": _named(_GPT2, "GPTBigCodeForCausalLM"),
    "falcon": replace(
        _named(_BARE, "FalconForCausalLM"),
        norm="layer",
        attention_bias="bias",
        output_bias="bias",
        mlp_bias="bias",
        parallel="parallel_attn",
    ),
    "mpt": replace(_named(_BARE, "MptForCausalLM"), norm="layer_no_bias", is_bounded=True),
    "bloom": replace(_biased("BloomForCausalLM"), fused_qkv=True),
    "opt": replace(
        _biased("OPTForCausalLM"),
        attention_bias="enable_bias",
        output_bias="enable_bias",
        mlp_bias="enable_bias",
        extra_positions=2,
        is_bounded=True,
    ),
    "olmo": Family(architecture="OlmoForCausalLM", norm="layer_bare"),
    "olmo2": _OLMO2,
    "olmo3": replace(_named(_OLMO2, "Olmo3ForCausalLM"), sliding="every", period=4),
    "olmoe": _named(_OLMO2, "OlmoeForCausalLM"),
    "starcoder2": replace(
        _biased("Starcoder2ForCausalLM"),
        attention_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        sliding="all",
    ),
    "stablelm": Family(
        architecture="StableLmForCausalLM",
        norm="layer",
        attention_bias="use_qkv_bias",
        output_bias=False,
        qk_norm="full",
        qk_norm_switch="qk_layernorm",
        parallel="use_parallel_residual",
    ),
    "cohere": replace(_COHERE, qk_norm="full", qk_norm_switch="use_qk_norm"),
    "cohere2": replace(_named(_COHERE, "Cohere2ForCausalLM"), sliding="every", period=4),
    "nemotron": Family(
        architecture="NemotronForCausalLM", norm="layer", mlp_bias="mlp_bias", gated_mlp=False
    ),
    "nemotron_h": Family(architecture="NemotronHForCausalLM", norms=1, gated_mlp=False),
    "nemotron-nas": _unbiased("DeciLMForCausalLM"),
    "minicpm3": _named(_DEEPSEEK, "MiniCPM3ForCausalLM"),
    "glm": _GLM,
    "glm4": replace(_named(_GLM, "Glm4ForCausalLM"), norms=4),
    "glm4_moe": Family(
        architecture="Glm4MoeForCausalLM",
        output_bias=False,
        qk_norm="head",
        qk_norm_switch="use_qk_norm",
    ),
    "glm4_moe_lite": _named(_DEEPSEEK, "Glm4MoeLiteForCausalLM"),
    "glm_moe_dsa": _named(_DEEPSEEK, "GlmMoeDsaForCausalLM"),
    "deepseek_v2": _named(_DEEPSEEK, "DeepseekV2ForCausalLM"),
    "deepseek_v3": _DEEPSEEK,
    "bailing_moe": replace(_unbiased("BailingMoeV2ForCausalLM"), qk_norm="head"),
    "gpt_oss": Family(architecture="GptOssForCausalLM", sliding="every", period=2),
    "exaone4": replace(_unbiased("Exaone4ForCausalLM"), qk_norm="head", sliding="every", period=4),
    "ernie4_5": Family(
        architecture="Ernie4_5ForCausalLM",
        attention_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
    ),
    "ernie4_5_moe": Family(
        architecture="Ernie4_5_MoeForCausalLM",
        attention_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
    ),
    "minimax_m2": replace(_unbiased("MiniMaxM2ForCausalLM"), qk_norm="full"),
    "arcee": replace(_named(_LLAMA, "ArceeForCausalLM"), gated_mlp=False),
    "apertus": Family(architecture="ApertusForCausalLM", qk_norm="head", gated_mlp=False),
    "dbrx": replace(_named(_BARE, "DbrxForCausalLM"), norm="layer_no_bias", gated_mlp=True),
    "jamba": _unbiased("JambaForCausalLM"),
    "jetmoe": _unbiased("JetMoeForCausalLM"),
    "dots1": Family(architecture="Dots1ForCausalLM", qk_norm="head", sliding="late"),
    "hunyuan_v1_dense": Family(architecture="HunYuanDenseV1ForCausalLM", qk_norm="head"),
    "hunyuan_v1_moe": Family(architecture="HunYuanMoEV1ForCausalLM", qk_norm="head"),
    "hy_v3": Family(architecture="HYV3ForCausalLM", qk_norm="head", mlp_bias="mlp_bias"),
    "lfm2": replace(_unbiased("Lfm2ForCausalLM"), qk_norm="head"),
    "bert": _BERT,
    "deberta-v2": replace(
        _named(_BERT, "DebertaV2ForSequenceClassification"), extra_positions=None
    ),
    "distilbert": _named(_BERT, "DistilBertForSequenceClassification"),
    "roberta": replace(
        _named(_BERT, "RobertaForSequenceClassification"), counts_padding=True, extra_positions=2
    ),
}
"""By `model_type`, of the text model where it is wrapped."""

WRAPPERS: Final = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "llava": "llama",
    "mistral3": "mistral",
    "mllama": "mllama_text_model",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""Models that read more than text, and the type of their text model unless it says another."""
ELSEWHERE: Final = frozenset({"phi3small", "nemotron-nas", "bailing_moe"})
"""Types that transformers has no class for: only the code beside their weights builds them."""
NOT_ALONE: Final = frozenset(
    {
        "llava",
        "mistral3",
        "mllama_text_model",
        "qwen2_vl",
        "qwen2_vl_text",
        "qwen2_5_vl",
        "qwen2_5_vl_text",
        "qwen3_vl",
        "qwen3_vl_text",
        "qwen3_vl_moe",
        "qwen3_vl_moe_text",
    }
)
"""Types that transformers' AutoModelForCausalLM does not load: they want pictures beside texts."""
OTHER_OUTPUTS: Final = frozenset({"llama4", "llama4_text"})
"""Types whose outputs TRL's trainers cannot read: no last hidden state, no loss of the router."""


def has_class(model_type: str) -> bool:
    """Whether transformers itself has a class that trains the texts of this type."""
    return model_type in {*FAMILIES, *WRAPPERS} - ELSEWHERE - NOT_ALONE


def untrainable(model_type: str) -> str:
    """Why no run can train a known type, as a clause; empty if one can."""
    if model_type in NOT_ALONE:
        return f"transformers loads {model_type} with pictures only, not as a language model"
    if model_type in ELSEWHERE:
        return f"transformers has no class for {model_type}, and code beside weights is never run"
    if model_type in OTHER_OUTPUTS:
        return f"{model_type} puts out its loss in a form that TRL's trainers cannot read"
    return ""


def family_of(model_type: str, where: Path | str) -> Family:
    """The family of a text model; raises UserError for one that is not known here."""
    family = FAMILIES.get(model_type)
    if family is not None:
        return family
    raise bad_file(
        f"{model_type} is not a family known here",
        where,
        why=f"how its layers are built is known for {len(FAMILIES)} types, and guessed for none",
        do="choose a model of another family; `advisor model show` takes every name of the catalog",
    )
