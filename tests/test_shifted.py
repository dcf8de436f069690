"""Shifted sparse attention: its authors' in training, full elsewhere, refused where it is none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from method_cases import Case  # noqa: E402
from small_model import CONFIG, recipe_text, small_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from advisor.cost import memory  # noqa: E402
from advisor.cost.flops import flops_per_token  # noqa: E402
from profiles.models.dimensions import from_config  # noqa: E402
from runner import methods  # noqa: E402
from runner.methods import shifted  # noqa: E402
from runner.rehearsal_main import settings_of  # noqa: E402
from runner.rehearse import rehearse  # noqa: E402
from tui.main import run as advisor_here  # noqa: E402

TEXT = 'task = "pretrain"\n' + recipe_text(extra="[train]\nshifted_attention = true\n")
IDS = torch.arange(3, 67)[None] % 61


def of_its_authors(query, key, value, group):
    """LongLoRA's llama_attn_replace.py, line by line, with whole scores and its causal mask."""
    rows, heads, length, width = query.shape
    times = heads // key.shape[1]
    key, value = (one.repeat_interleave(times, dim=1) for one in (key, value))

    def shift(states):
        states = states.clone()
        states[:, heads // 2 :] = states[:, heads // 2 :].roll(-group // 2, dims=2)
        states = states.transpose(1, 2).reshape(rows * (length // group), group, heads, width)
        return states.transpose(1, 2)

    query, key, value = shift(query), shift(key), shift(value)
    scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(width)
    causal = torch.full((group, group), float("-inf")).triu(1)
    shares = torch.nn.functional.softmax(scores + causal, dim=-1)
    out = torch.matmul(shares, value).transpose(1, 2).reshape(rows, length, heads, width).clone()
    out[:, :, heads // 2 :] = out[:, :, heads // 2 :].roll(group // 2, dims=1)
    return out


@pytest.mark.parametrize(("heads", "key_heads"), [(8, 2), (8, 8), (6, 3), (9, 3), (4, 1)])
@pytest.mark.parametrize("shares_keys", [True, False], ids=["grouped", "repeated"])
def test_a_row_is_divided_as_its_authors_divide_it(monkeypatch, heads, key_heads, shares_keys):
    """Heads that share keys too, with a kernel that takes them and without one."""
    monkeypatch.setattr(shifted.sdpa_attention, "use_gqa_in_sdpa", lambda *_: shares_keys)
    torch.manual_seed(0)
    query = torch.randn(2, heads, 64, 8)
    key, value = torch.randn(2, 2, key_heads, 64, 8)

    found, _ = shifted.attention(torch.nn.Identity().train(), query, key, value, None)

    assert torch.allclose(found, of_its_authors(query, key, value, 16), atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama whose heads share keys."""
    folder = tmp_path_factory.mktemp("llama") / "model"
    tiny_families.save("llama", folder)
    return folder


def prepared(folder, settings="", **values):
    told = {"seq_len": 64, "precision": "fp32", "task": "pretrain", "shifted_attention": True}
    return methods.prepare(Case("lora", settings).plan(**told | values), folder, 0)


def logits(model, ids=IDS, **kw):
    with torch.no_grad():
        return model(input_ids=ids, **kw).logits


def test_in_training_it_is_its_authors_and_else_full(folder, monkeypatch):
    """Of the model that a run trains: evaluation, odd lengths and padded rows are full."""
    model, plain = prepared(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    mask = torch.ones_like(IDS)

    assert torch.allclose(logits(model.eval()), logits(plain), atol=1e-6)
    model.train()
    in_groups = logits(model, attention_mask=mask)
    assert not torch.allclose(in_groups, logits(plain), atol=1e-3)
    for length in (60, 63):
        odd = IDS[:, :length]
        assert torch.allclose(logits(model, odd), logits(plain, odd), atol=1e-6)
    mask[:, -1] = 0
    padded = logits(model, attention_mask=mask)[:, :-1]
    assert torch.allclose(padded, logits(plain, attention_mask=mask)[:, :-1], atol=1e-6)
    theirs = lambda _, q, k, v, *_a, **_k: (of_its_authors(q, k, v, q.shape[2] // 4), None)  # noqa: E731
    monkeypatch.setitem(shifted.AttentionInterface._global_mapping, shifted._NAME, theirs)
    assert torch.allclose(logits(model), in_groups, atol=1e-5)


def test_nothing_of_it_is_published(folder, tmp_path):
    """What loads the model attends fully."""
    model = prepared(folder)
    model.get_base_model().save_pretrained(tmp_path)

    assert shifted._NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.slow
def test_a_run_of_joined_texts_learns_with_it(tiny_model, tmp_path):
    """LoRA with embedding and norms, as its authors train; it is evaluated with full attention."""
    data = tmp_path / "texts.jsonl"
    text = "one two three four five six seven eight nine ten " * 12
    data.write_text("\n".join(json.dumps({"text": f"{n} {text}"}) for n in range(12)))
    run = real_runs.new_run(
        tiny_model,
        data,
        adapter='rank = 8\ntargets = "attention"\nmodules_to_save = ["embed_tokens", "norms"]',
        steps=6,
        micro_batch=2,
        accumulation=1,
        split="8:2:0",
        more="shifted_attention = true\n",
    )
    recipe = run.recipe.read_text().replace("[model]", 'task = "pretrain"\n[model]', 1)
    run.recipe.write_text(recipe.replace("max_length = 96", "max_length = 64"))
    seen = []
    inner = shifted.scaled_dot_product_attention
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            shifted,
            "scaled_dot_product_attention",
            lambda q, *rest, **kw: (seen.append(q.shape[2]), inner(q, *rest, **kw))[1],
        )
        real_runs.attempt(run)

    losses = list(real_runs.losses(run).values())
    assert losses[-1] < losses[0]
    assert set(seen) == {16}
    assert real_runs.events(run, "evaluated")


@pytest.mark.parametrize(
    ("changes", "what", "mend"),
    [
        ({"task": "sft"}, "rows of sft have any length", {"train.shifted_attention": "false"}),
        ({"method.name": "prompt_tuning"}, "stand before the first group", {"method.name": "lora"}),
        ({"data.max_length": "1020"}, "write data.max_length = 1016", {"data.max_length": "1016"}),
    ],
)
def test_what_has_no_groups_is_refused(tmp_path, capsys, changes, what, mend):
    """With what goes instead."""
    file = tmp_path / "r.toml"
    file.write_text(
        'task = "pretrain"\n' + recipe_text(extra="[train]\nshifted_attention = true\n")
    )
    told = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    mended = [part for key, value in mend.items() for part in ("--set", f"{key}={value}")]

    assert advisor_here(["recipe", "check", str(file), *told]) == 78
    assert what in " ".join(capsys.readouterr().err.split())
    assert advisor_here(["recipe", "check", str(file), *told, *mended]) == 0


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "gemma2"}, "not for gemma2"),
        ({"model_type": "mistral", "sliding_window": 64}, "windows of their own"),
    ],
)
def test_other_attentions_are_refused(tmp_path, capsys, config, what):
    """Windows and caps would be lost."""
    small_model(tmp_path / "model", config=CONFIG | config)
    file = tmp_path / "r.toml"
    file.write_text(
        'task = "pretrain"\n' + recipe_text(extra="[train]\nshifted_attention = true\n")
    )

    assert advisor_here(["recipe", "check", str(file)]) == 78
    assert what in " ".join(capsys.readouterr().err.split())
    assert (
        advisor_here(["recipe", "check", str(file), "--set", "train.shifted_attention=false"]) == 0
    )


@pytest.mark.parametrize(
    ("key_heads", "values"),
    [
        (2, {"precision": "bf16_pure"}),
        pytest.param(1, {}, marks=pytest.mark.long),
        pytest.param(8, {"checkpointing": True}, marks=pytest.mark.long),
    ],
)
def test_its_copies_are_counted_and_its_products_a_quarter(key_heads, values):
    """Of heads that are shifted; of scores within a quarter of the row."""
    config = {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": key_heads,
        "vocab_size": 2000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
    }
    told = {"seq_len": 1024, "task": "pretrain", "shifted_attention": True} | values
    plan, full = (Case("lora").plan(**told | more) for more in ({}, {"shifted_attention": False}))
    model = from_config(config, name="tiny", where="test")

    seen = rehearse(config, settings_of(plan), seq_len=1024, micro_batch=1)
    found = memory.estimate(model, plan)

    assert found.allocated_bytes == pytest.approx(seen.peak_bytes, rel=0.01)
    ours, whole, twice = (
        flops_per_token(model, one) for one in (plan, full, replace(full, seq_len=2048))
    )
    of_scores = twice.model_flops - whole.model_flops
    assert whole.model_flops - ours.model_flops == pytest.approx(0.75 * of_scores)
    assert ours.forward_flops == whole.forward_flops  # of an evaluation
