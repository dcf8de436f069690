"""The model of a rehearsal: what transformers and PEFT build from a config, without weights.

Built under torch.device("meta") it costs no memory; tests build the same on a CPU with random
weights. Nothing is downloaded, and no code that came with a model is run.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from runner.methods.base import name_experts
from runner.rehearsal import adapters, package, quantized
from runner.rehearsal.fake_mode import wrap
from runner.rehearsal.setup import Setup
from runner.rehearsal.storages import Ledger


def build(config: Any, setup: Setup) -> Any:
    """The model with its adapter and loss, in training mode, on the default device.

    Of a config for pictures and text it is the language model. Raises ValueError for one that has
    none, and what transformers, PEFT and TRL raise for what they cannot train.
    """
    if setup.loss not in {"chunked", "full"}:
        raise ValueError(f"no loss {setup.loss!r}; 'chunked' and 'full' are known")
    config = _as_config(config)
    _ask_for_router_logits(config)
    name_experts(config)
    model = _from_config(config, setup)
    model.config.use_cache = False
    head = model.get_output_embeddings()
    if setup.weight_bits < 16:
        quantized.quantize(model, setup, skip=head)
    if setup.loss == "chunked" and setup.head == "lm":
        from trl.trainer.utils import add_fused_lm_head  # noqa: PLC0415

        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    return adapters.adapt(model, setup).train()


def count_params(model: nn.Module) -> int:
    """Weights of the model, before quantization, and of its adapters."""
    packed = sum(module.num_saved for module in model.modules() if hasattr(module, "num_saved"))
    return int(packed + sum(parameter.numel() for parameter in model.parameters()))


def make_fake(model: nn.Module, ledger: Ledger) -> None:
    """Replace all meta weights and buffers by fake tensors, tied ones once, and count them."""
    known: dict[int, Any] = {}
    tensors: list[Any] = []  # keeps ids from being used again

    def fake(tensor: Any, *, is_parameter: bool) -> Any:
        found = known.get(id(tensor))
        if found is None:
            found = wrap(tensor.detach())
            if is_parameter:
                found.requires_grad_(tensor.requires_grad)
                found._is_param = True  # noqa: SLF001  # what makes a tensor a Parameter
            tensors.append(tensor)
            known[id(tensor)] = known[id(found)] = found
            ledger.hold(found, "load")
        return found

    for module in model.modules():
        for name, parameter in module._parameters.items():  # noqa: SLF001
            if parameter is not None:
                module._parameters[name] = fake(parameter, is_parameter=True)  # noqa: SLF001
        for name, buffer in module._buffers.items():  # noqa: SLF001
            if buffer is not None:
                module._buffers[name] = fake(buffer, is_parameter=False)  # noqa: SLF001


def _as_config(config: Any) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    if isinstance(config, dict):
        arguments = {name: value for name, value in config.items() if name != "model_type"}
        config = AutoConfig.for_model(config["model_type"], **arguments)
    return config.get_text_config()


def _ask_for_router_logits(config: Any) -> None:
    """TRL's trainer adds the load-balancing loss wherever its coefficient is not zero."""
    if hasattr(config, "router_aux_loss_coef"):
        config.output_router_logits = bool(config.router_aux_loss_coef)


def _from_config(config: Any, setup: Setup) -> Any:
    """A model without SDPA gets transformers' own choice, eager attention."""
    import transformers  # noqa: PLC0415

    auto, what = transformers.AutoModelForCausalLM, "causal language model"
    if setup.head == "score":
        auto, what = transformers.AutoModelForSequenceClassification, "sequence classifier"
        config.num_labels, config.pad_token_id = 1, config.pad_token_id or 0
    known = auto._model_mapping  # noqa: SLF001  # as from_config asks
    if type(config) not in known:
        raise ValueError(f"transformers has no {what} for {config.model_type}")
    kind = known[type(config)]
    kind = kind[0] if isinstance(kind, tuple) else kind
    attention = setup.attention
    if attention == "sdpa" and not kind._supports_sdpa:  # noqa: SLF001
        attention = "eager"
    if attention == "flash":
        attention = package.register()
    return auto.from_config(
        config,
        dtype=setup.load_dtype,
        attn_implementation=attention,
        trust_remote_code=False,
    )
