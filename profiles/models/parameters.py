"""How many parameters a model has, from its dimensions alone.

Linears with their biases, norms, router and experts, embeddings and head, as transformers 5.23
builds them; equal to the built model for every shape of the catalog that the dimensions describe.
"""

from __future__ import annotations

from profiles.facts import Experts, Model


def count_params(model: Model) -> int:
    """All weights: the text model, its towers, and what the dimensions do not describe."""
    return text_params(model) + model.vision_params + model.other_params


def active_params(model: Model) -> int:
    """Weights that one token meets: all but the routed experts that it does not visit."""
    experts = model.experts
    if experts is None:
        return model.num_params
    idle = experts.num_experts - experts.top_k
    return model.num_params - experts.num_layers * idle * expert_params(model, experts)


def text_params(model: Model) -> int:
    """Weights of the text model as far as the dimensions describe it."""
    h = model.hidden_size
    num_sparse = model.experts.num_layers if model.experts else 0
    layers = model.num_layers * (attention_params(model) + model.norms_per_layer * _norm(model))
    layers += (model.num_layers - num_sparse) * mlp_params(model, model.intermediate_size)
    if model.experts:
        layers += num_sparse * mixture_params(model, model.experts)
    embeddings = (model.vocab_size * (1 if model.tied_embeddings else 2) + model.num_positions) * h
    head_bias = model.vocab_size if model.head_bias else 0
    return layers + _norm(model) + embeddings + head_bias


def attention_params(model: Model) -> int:
    """Weights of one layer's attention."""
    h, q, kv = model.hidden_size, model.query_width, model.kv_width
    if model.latent is not None:
        return _latent_params(model)
    weights = h * (q + 2 * kv) + q * h
    weights += q + 2 * kv if model.attention_bias else 0
    weights += h if model.output_bias else 0
    # "full" normalises the whole projections, "head" each head with the same weights
    return weights + {"": 0, "head": 2 * model.head_dim, "full": q + kv}[model.qk_norm]


def mlp_params(model: Model, width: int) -> int:
    """Weights of one MLP of this width."""
    wide = 2 if model.gated_mlp else 1
    biases = wide * width + model.hidden_size if model.mlp_bias else 0
    return (wide + 1) * model.hidden_size * width + biases


def expert_params(model: Model, experts: Experts) -> int:
    """Weights of one routed expert."""
    wide = 2 if model.gated_mlp else 1
    biases = wide * experts.width + model.hidden_size if experts.expert_bias else 0
    return (wide + 1) * model.hidden_size * experts.width + biases


def mixture_params(model: Model, experts: Experts) -> int:
    """Weights of one layer's router, routed experts and shared experts."""
    weights = experts.num_experts * (model.hidden_size + expert_params(model, experts))
    weights += experts.num_experts if experts.router_bias else 0
    weights += model.hidden_size if experts.shared_gate else 0
    return weights + (mlp_params(model, experts.shared_width) if experts.shared_width else 0)


def _latent_params(model: Model) -> int:
    """Low ranks for queries and for keys and values, a norm in each, and the output linear."""
    latent, h, heads = model.latent, model.hidden_size, model.num_heads
    assert latent is not None
    q = heads * (latent.nope_dim + latent.rope_dim)
    if latent.query_rank is None:
        queries = h * q
    else:
        queries = h * latent.query_rank + latent.query_rank + latent.query_rank * q
    keys = h * (latent.kv_rank + latent.rope_dim) + latent.kv_rank
    values = latent.kv_rank * heads * (latent.nope_dim + latent.value_dim)
    return queries + keys + values + heads * latent.value_dim * h


def _norm(model: Model) -> int:
    """Weights of one norm over the hidden size."""
    weights = {"rms": 1, "layer": 2, "layer_no_bias": 1, "layer_bare": 0}
    return weights[model.norm] * model.hidden_size
