"""Text to tokens: which of them are learnt, in pieces too, and what a folder brings for it."""

from __future__ import annotations

import json

import pytest
from chat_templates_in_use import LEARNT, ROWS, TEMPLATES
from data_files import CHAT, refused, word_tokenizer, write_rows
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from advisor.choice import words
from profiles.data import dataset, encoding
from profiles.data.encoding import Encoder, of_folder
from profiles.data.formats.spec import Example
from profiles.data.rendering import Renderer
from profiles.errors import ExitCode
from profiles.models import chat_template
from profiles.models.chat_template import ChatTemplate, TemplateError


@pytest.fixture(scope="module")
def byte_level():
    """A tokenizer as current models have it, with marks of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["the cat and the dog said yes and no to the user"] * 9, trainer)
    return tokenizer


def encoder(tokenizer, template="chatml"):
    chats = ChatTemplate(TEMPLATES[template], {"bos_token": "<s>", "eos_token": "</s>"})
    return Encoder.of(tokenizer, Renderer(lambda _: chats, eos="</s>"))


@pytest.mark.parametrize("row", ROWS)
def test_the_tokens_that_are_learnt_say_what_is_learnt(byte_level, row):
    """A token is in it whole."""
    ours = encoder(byte_level)

    found = ours.encode_one(ROWS[row])

    told = [byte_level.decode(found.ids[a:b], skip_special_tokens=False) for a, b in found.learnt]
    assert told == LEARNT["chatml"][row]


@pytest.mark.parametrize("completion", ["yes and no", "Ünïcödé 中文 ok", " leading", "\nbroken"])
def test_a_completion_is_learnt_from_its_first_token(byte_level, completion):
    """Characters of several bytes are several tokens, and none of them is lost."""
    found = encoder(byte_level).encode_one(Example(prompt="the user", completion=completion))

    ((first, last),) = found.learnt
    assert last == found.num_tokens
    assert byte_level.decode(found.ids[first:], skip_special_tokens=False).endswith(
        f"{completion}</s>"
    )
    assert byte_level.decode(found.ids[:first]) == "the user"


@pytest.mark.parametrize("size", [8, 13, 32])
def test_a_giant_text_is_read_in_pieces_as_it_is_read_whole(byte_level, monkeypatch, size):
    """They are cut where a token begins anyway."""
    rows = [
        Example(text="the cat and the dog said yes and no " * 3),
        Example(prompt="the user said yes and ", completion="no to the dog and the cat"),
        ROWS["two"],
    ]
    ours = encoder(byte_level)
    whole = [ours.encode_one(row) for row in rows[:2]]
    monkeypatch.setattr(encoding, "PIECE_CHARS", size)

    for row, wanted in zip(rows, whole, strict=False):
        found = ours.encode_one(row)
        assert len(found.pieces) > 1
        assert (found.ids, found.learnt) == (wanted.ids, wanted.learnt)


def test_learnt_tokens_are_counted_within_a_length(byte_level):
    """Those of a reply that begins beyond it are none."""
    found = encoder(byte_level).encode_one(ROWS["two"])
    flags = [any(a <= i < b for a, b in found.learnt) for i in range(found.num_tokens)]

    for length in range(found.num_tokens + 2):
        assert found.num_learnt_within(length) == sum(flags[:length])
    assert found.num_learnt_within(None) == sum(flags)


def test_what_is_asked_ends_where_the_reply_begins(byte_level):
    """Of a chat and of a prompt."""
    ours = encoder(byte_level)

    chat = byte_level.decode(ours.ask(ROWS["one"]), skip_special_tokens=False)
    assert chat == "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n"
    assert byte_level.decode(ours.ask(Example(prompt="the cat", completion="yes"))) == "the cat"


# --- What a folder brings -----------------------------------------------------------------------


def test_a_tokenizer_may_bring_a_template_for_rows_with_tools(tmp_path):
    """By name, as transformers has it; a file of its own goes before."""
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))

    found = [chat_template.source_of(tmp_path, with_tools=tools) for tools in (False, True)]
    assert found == ["d", "t"]
    (tmp_path / "chat_template.jinja").write_text("file")
    assert chat_template.source_of(tmp_path, with_tools=True) == "file"


def test_special_tokens_are_those_of_the_configuration(tmp_path):
    """As texts or as objects; the configuration goes before the map."""
    config = {"eos_token": {"content": "<e>"}, "bos_token": None, "pad_token": "<p>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": "<old>", "unk_token": "<u>"})
    )

    assert chat_template.special_tokens(tmp_path) == {
        "eos_token": "<e>",
        "unk_token": "<u>",
        "pad_token": "<p>",
    }


def test_a_template_cannot_reach_behind_its_names():
    """An attribute with an underscore leads out of the sandbox."""
    sets = "{% set ns = namespace(a=1) %}{% set ns.NAME = 2 %}{{ ns.a }}"

    assert ChatTemplate(sets.replace("NAME", "a")).render([])[0] == "2"
    with pytest.raises(TemplateError, match="may not be set"):
        ChatTemplate(sets.replace("NAME", "_a")).render([])


# --- What people are told -----------------------------------------------------------------------


def test_rows_that_a_template_refuses_refuse_the_file_with_a_way_out(tmp_path):
    """Another template, which works; or the rows, for they may be left out."""
    word_tokenizer(tmp_path)
    system = {"role": "system", "content": "S"}
    path = write_rows(tmp_path, [{"messages": [system, *CHAT]}, *[{"messages": CHAT}] * 19])

    def by(template):
        chats = ChatTemplate(TEMPLATES[template])
        return of_folder(tmp_path, choose=lambda _: chats)

    error = refused(path, encoder=by("strict"))
    assert error.code is ExitCode.BAD_DATA
    assert "1 of 20 rows are refused by the chat template" in error.what
    assert "System role not supported (first: line 1)" in error.what
    assert error.do.startswith('take another template, such as data.chat_template = "chatml"')
    assert dataset.check(path, encoder=by("chatml")).num_rows == 20
    assert dataset.check(path, encoder=by("strict"), on_bad="skip").num_rows == 19


@pytest.mark.parametrize("measured", [True, False])
def test_rows_that_are_cut_and_lost_are_counted_at_any_length(tmp_path, measured):
    """Before anybody has chosen one; a row that just fits is not cut."""
    rows = [{"prompt": "a " * n, "completion": "a a"} for n in (1, 4, 8)]
    found = of_folder(word_tokenizer(tmp_path)) if measured else None
    tokens = dataset.check(write_rows(tmp_path, rows), encoder=found).tokens
    assert tokens is not None

    lengths = [length for length, _ in tokens.lengths]
    starts = [start for start, _ in tokens.starts]
    longer = [(counts.num_cut + counts.num_dropped) for counts in map(tokens.at, lengths)]
    assert longer == [2, 1, 0]
    assert [tokens.at(start).num_dropped for start in starts] == [3, 2, 1]
    shortest, lost = lengths[0], sum(start >= lengths[0] for start in starts)
    told = words.truncation(tokens, shortest)
    cut = f"{2 - lost} of 3 rows are cut at max_length {shortest}; {lost} more are"
    assert told.startswith(cut if lost < 2 else "2 of 3 rows are")
    assert told.endswith(f"(the longest has {lengths[-1]} tokens)")
    assert "left out, for nothing is learnt within " in told
    assert "left out" not in words.truncation(tokens, starts[-1] + 1)


def test_the_share_that_is_learnt_is_that_of_what_is_left(tmp_path):
    """As training sees the rows: cut at max_length, without those that lose their reply."""
    rows = [{"prompt": "a " * 3, "completion": "a a"}, {"prompt": "a " * 8, "completion": "a a"}]
    path, ours = write_rows(tmp_path, rows), of_folder(word_tokenizer(tmp_path))

    shares = [
        found.counts.learnt_share
        for length in (None, 6)
        if (found := dataset.check(path, encoder=ours, max_length=length).tokens)
    ]

    assert shares == [pytest.approx(4 / 15), pytest.approx(2 / 5)]
