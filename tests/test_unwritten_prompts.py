"""What a chat template adds to replies, and prompts that it does not write: told everywhere."""

from __future__ import annotations

import pytest
from data_files import GOOD, word_tokenizer, write_rows
from small_model import recipe_text, small_model

from advisor import recipe as recipes
from profiles.data import dataset
from profiles.errors import UserError
from profiles.models import model
from runner.checks import chat_templates
from runner.training.data import encoder_of
from tui.main import run

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKS = {"role": "user", "content": "why a?"}
TELLS = {"role": "assistant", "content": "because"}
CHAT = {"messages": [ASKS, TELLS]}
PLAIN = "have a plain prompt, which is learnt without the chat template"
EMPTY = "the chat template adds an empty <think></think> that is learnt"


@pytest.fixture
def folder(tmp_path):
    """A model with a tokenizer, whose chat template a test writes."""
    found = small_model(tmp_path / "model")
    word_tokenizer(found)
    return found


def told(folder, rows, template, choice=None, **reading):
    """Warnings of a check of these rows with this model."""
    (folder / "chat_template.jinja").write_text(template)
    path = write_rows(folder.parent, rows)
    encoder = chat_templates.encoder(model.from_folder(folder), choice)
    found = dataset.check(path, encoder=encoder, kinds=("replies", "text", "preference"), **reading)
    return [one for one in found.warnings if PLAIN in one or EMPTY in one]


def test_an_empty_thought_that_the_template_adds_is_told_and_the_way_out_works(folder):
    (warning,) = told(folder, [CHAT], THINKS)

    assert warning.startswith("1 of 1 rows have no thoughts")
    assert "--chat-template chatml" in warning
    assert not told(folder, [CHAT], THINKS, "chatml")
    thinks = {"messages": [ASKS, TELLS | {"reasoning_content": "As is known."}]}
    assert not told(folder, [thinks], THINKS)


def test_an_empty_thought_that_is_only_read_is_no_fault(folder):
    """As where the question asks for it, or the reply is not learnt."""
    asks_so = THINKS.replace(
        "assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}"
    )
    asks_so = asks_so.replace("{{ m.reasoning_content }}", "")
    later = [ASKS, TELLS | {"reasoning_content": "Known."}]

    assert not told(folder, [CHAT], asks_so)
    assert not told(folder, [{"messages": [ASKS, TELLS | {"weight": 0}, *later]}], THINKS)


def test_a_plain_prompt_beside_a_chat_template_is_told_with_ways_that_work(folder):
    (warning,) = told(folder, [GOOD], CHATML)

    assert warning.startswith(f"1 of 1 rows {PLAIN}")
    assert "--column instruction=prompt --column output=completion" in warning
    as_chats = {"instruction": "prompt", "output": "completion"}
    assert not told(folder, [GOOD], CHATML, columns=as_chats)
    assert "--chat-template plain" in warning
    assert not told(folder, [GOOD], CHATML, "plain")


@pytest.mark.parametrize(
    ("row", "template", "is_told"),
    [
        (GOOD, "", False),
        ({"text": "a text"}, CHATML, False),
        ({"prompt": [ASKS], "completion": [TELLS]}, CHATML, False),
        ({"prompt": "why?", "chosen": "so", "rejected": "no"}, CHATML, True),
    ],
)
def test_only_prompts_that_a_template_would_write_are_told(folder, row, template, is_told):
    assert bool(told(folder, [row], template)) == is_told


def test_check_show_recommend_and_run_tell_of_plain_prompts(folder, tmp_path, capsys):
    (folder / "chat_template.jinja").write_text(CHATML)
    path = write_rows(tmp_path, [GOOD] * 12)
    for command in (
        ["data", "check", str(path), "--model", str(folder)],
        ["data", "show", str(path), "--model", str(folder)],
        ["recommend", "--model", str(folder), "--data", str(path), "--gpu", "RTX 4090"],
    ):
        run(command)
        assert PLAIN in " ".join(capsys.readouterr().out.split()), command[:2]


def test_training_writes_down_what_the_check_told(folder, tmp_path):
    """The same remark, from the encoder that training has."""
    from transformers import PreTrainedTokenizerFast

    (folder / "chat_template.jinja").write_text(CHATML)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    wanted = recipes.parse(recipe_text(train="train.jsonl"), where="here")
    renderer = encoder_of(wanted, folder, tokenizer).renderer
    said: list[str] = []
    path = write_rows(tmp_path, [GOOD])
    list(dataset.read_examples(path, renderer=renderer, told=said))

    assert [PLAIN in one for one in said] == [True]


def test_a_format_that_is_not_that_of_the_columns_is_left_out_as_the_refusal_says(tmp_path):
    path = write_rows(tmp_path, [GOOD])
    columns = {"instruction": "prompt", "output": "completion"}
    with pytest.raises(UserError) as caught:
        dataset.check(path, format="prompt_completion", columns=columns)

    assert caught.value.do.startswith('leave data.format (--format) out, or set it to "alpaca"')
    assert dataset.check(path, columns=columns).format == "alpaca"
    assert dataset.check(path, columns=columns, format="alpaca").num_rows == 1
