"""A soft prompt that starts as words: by the model's own tokenizer, and published without it."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch")

from known import model as known_model  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from advisor import recipe  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from runner import methods  # noqa: E402
from runner.checks import pairing  # noqa: E402

WORDS = "count to ten"
RECIPE = """\
schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
[method]
name = "prompt_tuning"
init_text = "{words}"
"""


def prompted(folder, virtual_tokens, words=WORDS):
    """A model with a prompt."""
    settings = {"virtual_tokens": virtual_tokens, "init_text": words}
    plan = Plan.of("prompt_tuning", seq_len=32, precision="fp32", **settings)
    return methods.prepare(plan, folder, 0)


@pytest.mark.parametrize("virtual_tokens", [2, 40])
def test_a_prompt_starts_as_its_words(tiny_model, virtual_tokens):
    """Cut to its length, or again and again."""
    model = prompted(tiny_model, virtual_tokens)

    ids = AutoTokenizer.from_pretrained(tiny_model)(WORDS)["input_ids"]
    ids = (ids * virtual_tokens)[:virtual_tokens]
    wanted = model.get_base_model().get_input_embeddings().weight[ids]
    prompt = model.prompt_encoder["default"].embedding.weight
    assert torch.equal(prompt, wanted)
    assert prompt.requires_grad
    assert prompt.dtype is torch.float32
    drawn = prompted(tiny_model, virtual_tokens, words="")
    assert not torch.equal(drawn.prompt_encoder["default"].embedding.weight, wanted)


def test_what_is_published_knows_no_path_of_a_tokenizer_and_loads_elsewhere(tiny_model, tmp_path):
    """PEFT would ask the training machine's tokenizer for the words again."""
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    shutil.copytree(tiny_model, base)
    model, ids = prompted(base, 6).eval(), torch.arange(3, 9)[None]
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.add_(0.1)
        wanted = model(input_ids=ids).logits
    model.save_pretrained(tmp_path / "prompt")
    base.rename(elsewhere)

    config = json.loads((tmp_path / "prompt" / "adapter_config.json").read_text())
    plain = AutoModelForCausalLM.from_pretrained(elsewhere, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(plain, tmp_path / "prompt").eval()

    assert config["tokenizer_name_or_path"] is None
    assert config["prompt_tuning_init"] == "RANDOM"
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, wanted)


def test_blank_words_are_refused_before_the_start():
    """There is no token to start as."""
    with pytest.raises(UserError, match="has no words") as told:
        pairing.check_model(recipe.parse(RECIPE.format(words="  "), where="r"), known_model())

    assert "leave it out" in told.value.do
    pairing.check_model(recipe.parse(RECIPE.format(words=WORDS), where="r"), known_model())
