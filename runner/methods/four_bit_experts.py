"""Routed experts in 4 bits: NF4 with double quantization, as the linears beside them.

transformers 5.23 quantizes linears alone, and the experts of a layer are parameters of three
dimensions. Here its loader quantizes each as soon as it is put together from the files, so that no
more than one is there in 16 bits; bitsandbytes' parametrization makes it whole again for the time
of a layer's pass, and as long as autograd keeps it.
"""

from __future__ import annotations

from typing import Any, Final

from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn.parametrize import replace_parameter_4bit_prequantized
from torch import nn
from transformers.integrations.bitsandbytes import Bnb4bitQuantize
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from runner.methods.expert_targets import experts_of

_NAME: Final = "bitsandbytes_4bit"
"""transformers' name of the quantizer."""


class _Quantize(Bnb4bitQuantize):  # type: ignore[misc]
    """Experts here, linears as transformers does it."""

    def convert(
        self, input_dict: dict[str, Any], *, model: Any = None, **options: Any
    ) -> dict[str, Any]:
        """`input_dict`: the name of one parameter, and what was read for it."""
        (name, read), *_ = input_dict.items()
        if not self.hf_quantizer.is_of_experts(model, name):
            found: dict[str, Any] = super().convert(input_dict, model=model, **options)
            return found
        value = read[0] if isinstance(read, list) else read
        config = self.hf_quantizer.quantization_config
        packed, state = quantize_4bit(
            value.contiguous(),
            compress_statistics=config.bnb_4bit_use_double_quant,
            quant_type=config.bnb_4bit_quant_type,
        )
        weight = nn.Parameter(packed, requires_grad=False)
        weight.quant_state = state
        return {name: weight}


class FourBitExperts(Bnb4BitHfQuantizer):  # type: ignore[misc]
    """transformers' quantizer of 4 bits, for routed experts too."""

    def is_of_experts(self, model: Any, name: str) -> bool:
        """A parameter has the matrices of all routed experts of a layer."""
        module, _, last = name.rpartition(".")
        return any(last in names for _, _, names in experts_of(model.get_submodule(module)))

    def param_needs_quantization(self, model: Any, param_name: str, **options: Any) -> bool:
        """As transformers asks of each parameter that it reads."""
        if super().param_needs_quantization(model, param_name, **options):
            return True
        return self.is_of_experts(model, param_name)

    def get_quantize_ops(self) -> Any:
        """What is done to those."""
        return _Quantize(self)

    def _process_model_after_weight_loading(self, model: Any, **options: Any) -> Any:
        for _, module, names in list(experts_of(model)):
            for name in names:
                state = module.get_parameter(name).quant_state
                told = state.as_dict(packed=True)
                replace_parameter_4bit_prequantized(module, name, told, state.absmax.device)
        return super()._process_model_after_weight_loading(model, **options)


def quantize_on_loading(*, experts: bool) -> None:
    """From now on 4-bit models are loaded with their experts in 4 bits, or in 16."""
    AUTO_QUANTIZER_MAPPING[_NAME] = FourBitExperts if experts else Bnb4BitHfQuantizer
