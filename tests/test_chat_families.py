"""Chat templates of families and of one's own: to the letter, and what is learnt of them."""

from __future__ import annotations

import json

import pytest
from data_files import CHAT, write_rows
from small_model import recipe_text, small_model
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from advisor import recipe as recipes
from profiles import chat_families
from profiles.chat_families import TEMPLATES
from profiles.data import dataset
from profiles.data.encoding import Encoder
from profiles.data.formats.spec import Example, Message, RowError
from profiles.data.remedies import OTHER_TEMPLATE
from profiles.data.rendering import Renderer
from profiles.errors import ExitCode, UserError
from profiles.models.chat_template import ChatTemplate
from runner.checks import chat_templates, replay
from tui.main import run as advisor_here
from tui.pages import methods

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ROW = Example(
    messages=tuple(
        Message(role=role, content=text)
        for role, text in (
            ("system", "Be kind."),
            ("user", "Q1"),
            ("assistant", "A1"),
            ("user", "Q2"),
            ("assistant", "A2"),
        )
    )
)
BARE = Example(messages=ROW.messages[1:3])

WRITTEN = {
    "alpaca": (
        "<s>Be kind.\n\n### Instruction:\nQ1\n\n### Response:\n[A1</s>]\n\n"
        "### Instruction:\nQ2\n\n### Response:\n[A2</s>]"
    ),
    "chatml": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n"
        "<|im_start|>assistant\n[A1<|im_end|></s>]\n<|im_start|>user\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n[A2<|im_end|></s>]\n"
    ),
    "deepseek": (
        "<s>Be kind.<\uff5cUser\uff5c>Q1"
        "<\uff5cAssistant\uff5c>[A1<\uff5cend\u2581of\u2581sentence\uff5c>]"
        "<\uff5cUser\uff5c>Q2<\uff5cAssistant\uff5c>[A2<\uff5cend\u2581of\u2581sentence\uff5c>]"
    ),
    "gemma": (
        "<s><start_of_turn>user\nBe kind.\n\nQ1<end_of_turn>\n"
        "<start_of_turn>model\n[A1<end_of_turn>]\n"
        "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n[A2<end_of_turn>]\n"
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[A1<|eot_id|>]"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[A2<|eot_id|>]"
    ),
    "mistral": "<s>[INST] Be kind.\n\nQ1[/INST][ A1</s>][INST] Q2[/INST][ A2</s>]",
    "phi": (
        "<|system|>\nBe kind.<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\n[A1<|end|>]\n"
        "<|user|>\nQ2<|end|>\n<|assistant|>\n[A2<|end|>]\n"
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be kind.<|im_end|><|im_start|>user<|im_sep|>Q1<|im_end|>"
        "<|im_start|>assistant<|im_sep|>[A1<|im_end|>]<|im_start|>user<|im_sep|>Q2<|im_end|>"
        "<|im_start|>assistant<|im_sep|>[A2<|im_end|>]"
    ),
    "plain": (
        "### System:\nBe kind.\n\n### User:\nQ1\n\n### Answer:\n[A1</s>]\n\n"
        "### User:\nQ2\n\n### Answer:\n[A2</s>]\n\n"
    ),
    "qwen": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n"
        "<|im_start|>assistant\n[A1<|im_end|>]\n<|im_start|>user\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n[A2<|im_end|>]\n"
    ),
    "vicuna": "<s>Be kind. USER: Q1 ASSISTANT:[ A1</s>]USER: Q2 ASSISTANT:[ A2</s>]",
    "zephyr": (
        "<|system|>\nBe kind.</s>\n<|user|>\nQ1</s>\n<|assistant|>\n[A1</s>]\n"
        "<|user|>\nQ2</s>\n<|assistant|>\n[A2</s>]\n"
    ),
}
"""What each writes of ROW; what is learnt stands in brackets before A1 and A2."""


def renderer(name, special=SPECIAL):
    template = ChatTemplate(TEMPLATES[name], special, name=name)
    return Renderer(lambda _: template, eos=special.get("eos_token", ""))


def bracketed(written):
    text, parts, end = written.text, [], 0
    for first, last in written.learnt:
        parts += [text[end:first], "[", text[first:last], "]"]
        end = last
    return "".join([*parts, text[end:]])


def test_every_family_has_an_expected_text_and_a_title():
    """So none is added that nobody has looked at."""
    assert sorted(WRITTEN) == list(chat_families.names())
    assert all(10 < len(chat_families.title(name)) < 100 for name in WRITTEN)
    shown = " ".join(methods.lines(200))
    assert all(f"{name} " in shown and chat_families.title(name) in shown for name in WRITTEN)
    assert [one["name"] for one in methods.document()["chat_templates"]] == sorted(WRITTEN)


@pytest.mark.parametrize("family", WRITTEN)
def test_a_family_writes_its_own_marks_and_learns_each_reply_with_its_end(family):
    """Of a chat with a system text and two questions."""
    written = renderer(family).write(ROW)

    assert bracketed(written) == WRITTEN[family]
    assert written.faults == ()
    assert written.end


@pytest.mark.parametrize("family", WRITTEN)
@pytest.mark.parametrize("row", [ROW, BARE], ids=["system", "bare"])
def test_what_is_learnt_begins_where_the_model_is_asked(family, row):
    """Else it would be asked otherwise than it was taught."""
    ours = renderer(family)

    written = ours.write(row)

    assert ours.ask(row).text == written.text[: written.learnt[-1][0]]


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        ("alpaca", "<s>Below is an instruction that describes a task. Write a response that "),
        ("vicuna", "<s>A chat between a curious user and an artificial intelligence assistant. "),
        ("gemma", "<s><start_of_turn>user\nQ1<end_of_turn>\n"),
        ("mistral", "<s>[INST] Q1[/INST] A1</s>"),
        ("qwen", "<|im_start|>user\nQ1<|im_end|>\n"),
    ],
)
def test_without_a_system_text_a_family_begins_as_it_does(family, wanted):
    """Two have a text of their own for that."""
    assert renderer(family).write(BARE).text.startswith(wanted)


def test_no_end_is_written_twice():
    """Where the tokenizer's own end is the family's."""
    special = {"eos_token": "<|im_end|>"}

    assert bracketed(renderer("chatml", special).write(BARE)).endswith("[A1<|im_end|>]\n")


def test_a_tokenizer_without_special_tokens_is_no_obstacle():
    """Nothing is written in their place, and that no reply ends is told elsewhere."""
    for name, wanted in WRITTEN.items():
        ours = renderer(name, {})
        written = ours.write(ROW)
        assert "None" not in written.text
        assert bool(written.end) is ("</s>]" not in wanted or name == "chatml")


# --- Tools and thoughts -------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CALLS = Example(
    messages=(
        Message(role="user", content="Rain?"),
        Message(role="assistant", content="", calls=(CALL,)),
        Message(role="tool", content="no", name="weather"),
        Message(role="assistant", content="No."),
    ),
    tools=(TOOL,),
)
LISTED = json.dumps(TOOL)
CALLED = {
    "chatml": (
        '[<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
        "<|im_end|></s>]\n<|im_start|>user\n<tool_response>\nno\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n[No.<|im_end|></s>]\n"
    ),
    "qwen": (
        '[<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
        "<|im_end|>]\n<|im_start|>user\n<tool_response>\nno\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n[No.<|im_end|>]\n"
    ),
    "llama3": (
        '[{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>]'
        "<|start_header_id|>ipython<|end_header_id|>\n\nno<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[No.<|eot_id|>]"
    ),
    "mistral": (
        '[[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}}]</s>]'
        '[TOOL_RESULTS] {"content": "no"}[/TOOL_RESULTS][ No.</s>]'
    ),
}


@pytest.mark.parametrize("family", CALLED)
def test_tools_are_written_where_the_family_has_a_way(family):
    """The list, the call, which is learnt, and the answer, which is not."""
    written = renderer(family).write(CALLS)

    assert bracketed(written).endswith(CALLED[family])
    listed = json.dumps(TOOL, indent=4) if family == "llama3" else LISTED
    assert written.text.count(listed) == 1
    assert written.faults == ()


@pytest.mark.parametrize("family", sorted(set(WRITTEN) - set(CALLED)))
def test_calls_are_refused_by_the_others_and_the_way_out_works(family):
    """The template that is named then writes the same row."""
    with pytest.raises(RowError):
        renderer(family).write(CALLS)

    assert '"chatml"' in OTHER_TEMPLATE
    assert renderer("chatml").write(CALLS).faults == ()


@pytest.mark.parametrize("family", ["chatml", "qwen", "deepseek"])
def test_thoughts_are_learnt_with_the_reply(family):
    """Where the family thinks."""
    thought = Message(role="assistant", content="A1", reasoning="Hm.")

    written = renderer(family).write(Example(messages=(ROW.messages[1], thought)))

    assert "[<think>\nHm.\n</think>\n\nA1<" in bracketed(written)
    assert written.faults == ()


def test_several_answers_of_tools_stand_in_one_turn():
    """As Qwen has it."""
    two = (*CALLS.messages[:2], CALLS.messages[2], CALLS.messages[2], CALLS.messages[3])

    text = renderer("qwen").write(Example(messages=two, tools=(TOOL,))).text

    answer = "\n<tool_response>\nno\n</tool_response>"
    assert f"<|im_start|>user{answer * 2}<|im_end|>\n" in text


# --- What does not go with the tokenizer --------------------------------------------------------


def encoder(family, *marks, eos="</s>"):
    """With a tokenizer that has these marks as tokens."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "</s>": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(mark) for mark in marks])
    return Encoder.of(tokenizer, renderer(family, {"eos_token": eos}))


def warnings(tmp_path, one):
    file = write_rows(tmp_path, [{"messages": CHAT}] * 2)
    return [text for text in dataset.check(file, encoder=one).warnings if "token" in text]


def test_marks_that_are_no_tokens_are_told(tmp_path):
    """By name; the model would read pieces of text."""
    (told,) = warnings(tmp_path, encoder("chatml", "<|im_start|>"))
    assert "chatml writes `<|im_end|>`, no tokens of this tokenizer" in told

    (told,) = warnings(tmp_path, encoder("zephyr"))
    assert "`<|system|>`, `<|user|>`, `<|assistant|>`" in told
    (told,) = warnings(tmp_path, encoder("gemma", "<end_of_turn>", eos="<end_of_turn>"))
    assert "writes `<start_of_turn>`, no" in told

    assert warnings(tmp_path, encoder("chatml", "<|im_start|>", "<|im_end|>")) == []
    assert warnings(tmp_path, encoder("plain")) == []


def test_an_end_that_is_not_the_tokenizers_is_told(tmp_path):
    """For what serves the model stops at the tokenizer's."""
    marks = ("<|im_start|>", "<|im_end|>")
    (told,) = warnings(tmp_path, encoder("qwen", *marks))
    assert "end with `<|im_end|>`" in told
    assert "own end is `</s>`" in told

    assert warnings(tmp_path, encoder("qwen", *marks, eos="<|im_end|>")) == []


def test_nothing_is_told_of_a_template_that_wrote_nothing(tmp_path):
    """Rows that are no chats need none."""
    file = write_rows(tmp_path, [{"prompt": "what is it?", "completion": "a small thing"}])

    assert dataset.check(file, encoder=encoder("zephyr")).warnings == ()


# --- A file of one's own ------------------------------------------------------------------------

OWN = (
    "{% for m in messages %}{{ m.role + '=' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant=' }}{% endif %}"
)


def parsed(choice):
    return recipes.parse(
        f'schema = 1\nname = "r"\n[model]\nid = "m"\n[data]\ntrain = "rows.json"\n'
        f'chat_template = "{choice}"\n[method]\nname = "lora"\n',
        where="r.toml",
    )


def test_a_name_that_is_none_is_told_with_the_nearest():
    """And what a file is called."""
    with pytest.raises(UserError) as caught:
        parsed("lama3")

    assert "no chat template 'lama3'; did you mean `llama3`?" in caught.value.why
    assert ".jinja" in caught.value.why
    with pytest.raises(UserError, match="mistake"):
        parsed("-x.jinja")


def test_a_file_is_one_of_the_inputs_that_a_run_depends_on(tmp_path):
    """Hashed into the lock, and asked about outside the recipe's folder, as data are."""
    recipe = parsed("own/chat.jinja")

    assert recipe.data.files["data.chat_template"] == "own/chat.jinja"
    assert replay.input_files(recipe, tmp_path)["data.chat_template"] == tmp_path / "own/chat.jinja"
    assert "data.chat_template" not in parsed("llama3").data.files


@pytest.fixture
def model_and_chats(tmp_path):
    """A recipe's folder with a base model without template, and chats."""
    folder = small_model(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    rows = [{"instruction": f"ask {i}", "output": f"reply number {i}"} for i in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "r.toml").write_text(recipe_text(model=str(folder)))
    return tmp_path


def dry_run(folder, file):
    return advisor_here(
        ["run", str(folder / "r.toml"), "--dry-run", "--set", f"data.chat_template={file}"]
    )


def test_a_file_lies_beside_the_recipe(model_and_chats, monkeypatch, capsys):
    """Wherever one works; that it is not there is told before the start."""
    monkeypatch.chdir("/")
    assert dry_run(model_and_chats, "chat.jinja") == ExitCode.NO_INPUT
    assert str(model_and_chats / "chat.jinja") in capsys.readouterr().err

    (model_and_chats / "chat.jinja").write_text(OWN)

    assert dry_run(model_and_chats, "chat.jinja") == 0


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("{{ messages.clear() }}", ExitCode.REFUSED, "must not touch"),
        ("{% mistaken", ExitCode.BAD_DATA, "it is no template"),
        ("{{ raise_exception('no such turns') }}", ExitCode.BAD_DATA, "no such turns"),
        (b"\xff\xfe", ExitCode.NO_INPUT, "not UTF-8"),
    ],
)
def test_a_file_passes_what_a_models_own_must_pass(model_and_chats, capsys, text, code, words):
    """A stranger may have written it."""
    data = text if isinstance(text, bytes) else text.encode()
    (model_and_chats / "chat.jinja").write_bytes(data)

    assert dry_run(model_and_chats, "chat.jinja") == code
    told = " ".join(capsys.readouterr().err.split())
    assert words in told
    assert "chat.jinja" in told or code is ExitCode.BAD_DATA


def test_a_pipe_or_a_giant_is_no_template(tmp_path):
    """Neither is waited for, nor read."""
    import os

    os.mkfifo(tmp_path / "pipe.jinja")
    with (tmp_path / "giant.jinja").open("wb") as file:
        file.truncate(1 << 40)

    for name, why in (("pipe", "no regular file"), ("giant", "is over")):
        with pytest.raises(UserError, match="cannot be read") as caught:
            chat_templates.chooser(tmp_path, f"{name}.jinja", {}, base_dir=tmp_path)
        assert why in caught.value.why


def test_chats_are_written_by_the_file(tmp_path):
    """With the tokenizer's special tokens; replies are found as in any template."""
    (tmp_path / "chat.jinja").write_text(OWN)
    choose = chat_templates.chooser(tmp_path, "chat.jinja", SPECIAL, base_dir=tmp_path)

    written = Renderer(choose, eos="</s>").write(BARE)

    assert bracketed(written) == "user=Q1</s>assistant=[A1</s>]"
