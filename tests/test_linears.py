"""Methods that put something on linears: how many weights train, and which models are refused."""

from __future__ import annotations

import pytest
from known import model

from advisor.cost.weights import added_params, trained_params
from advisor.plan import Plan
from advisor.registry.lookup import METHODS
from profiles.models.dimensions import from_config

TINY = {
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
}


def of(**changes):
    """A small Llama."""
    return from_config(TINY | changes, name="tiny", where="test")


@pytest.mark.parametrize(
    ("method", "settings", "number"),
    [
        ("vera", {"rank": 32}, 11_712),
        ("loha", {"rank": 4}, 162_816),
        ("lokr", {"rank": 4}, 12_480),
        ("oft", {"block": 32}, 154_752),
        ("shira", {"rank": 8}, 162_816),
        ("vera", {"rank": 32, "targets": "attention"}, 3_840),
        ("oft", {"block": 32, "targets": ("q_proj", "v_proj")}, 35_712),
    ],
)
def test_as_many_weights_train_as_peft_made(method, settings, number):
    """Counted on PEFT 0.21's model of these dimensions."""
    assert trained_params(of(), Plan.of(method, seq_len=64, **settings)) == number


def test_all_linears_share_the_two_matrices_of_vera():
    """As wide as the widest: kept on the device once, whatever the number of layers."""
    plan = Plan.of("vera", seq_len=64, rank=32)

    def shared(layers):
        one = of(num_hidden_layers=layers)
        return added_params(one, plan) - trained_params(one, plan)

    assert shared(2) == shared(6) == 32 * (512 + 512)


@pytest.mark.parametrize("block", [24, 48, 100, 1024])
def test_a_block_that_does_not_divide_the_linears_is_refused_with_some_that_do(block):
    """PEFT would take another one, and say so in a warning."""
    spec = METHODS["oft"]
    why = spec.unsupported(of(), spec.settings(block=block))

    assert f"method.block = {block} does not divide" in why
    told = why.partition("; of ")[2].partition(" each does")[0]
    for fitting in map(int, told.split(", ")):
        assert not spec.unsupported(of(), spec.settings(block=fitting))


def test_a_block_has_to_divide_only_the_linears_that_it_is_for():
    """The MLP's inner width is read by one linear."""
    spec, odd = METHODS["oft"], of(intermediate_size=500)

    assert spec.unsupported(odd, spec.settings(block=32))
    assert not spec.unsupported(odd, spec.settings(block=32, targets="attention"))
    assert not spec.unsupported(odd, spec.settings(block=32, targets=("up_proj",)))
    assert spec.unsupported(odd, spec.settings(block=32, targets=("down_proj",)))


@pytest.mark.parametrize("method", ["vera", "loha", "lokr", "oft", "shira"])
@pytest.mark.parametrize(
    ("name", "words"),
    [("qwen3-30b-a3b", "experts of a mixture"), ("qwen2.5-0.5b", "")],
)
def test_experts_are_left_to_lora(method, name, words):
    """They are no linears."""
    spec = METHODS[method]
    why = spec.unsupported(model(name), spec.settings())

    assert (words in why) if words else not why
