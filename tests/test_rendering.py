"""How a row becomes text, and what of it is learnt: by every manner of template, to the letter."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from chat_templates_in_use import LEARNT, ROWS, TEMPLATES
from data_files import word_tokenizer

from profiles.data import encoding
from profiles.data.encoding import Encoder
from profiles.data.formats.spec import Example, Message, RowError
from profiles.data.rendering import Renderer
from profiles.models.chat_template import ChatTemplate, TemplateError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def renderer(source, **options):
    return Renderer(lambda _: ChatTemplate(source, SPECIAL), eos="</s>", **options)


def learnt(written):
    return [written.text[first:last] for first, last in written.learnt]


CASES = list(itertools.product(TEMPLATES, ROWS))


@pytest.mark.parametrize(("template", "row"), CASES, ids=[" ".join(case) for case in CASES])
def test_every_reply_is_learnt_with_its_end_mark_and_nothing_else(template, row):
    """As somebody wrote it down who knows the family."""
    wanted = LEARNT[template][row]
    ours = renderer(TEMPLATES[template])

    if isinstance(wanted, str):
        with pytest.raises(RowError, match=wanted):
            ours.write(ROWS[row])
        return
    assert learnt(ours.write(ROWS[row])) == wanted


@pytest.mark.parametrize(("template", "row"), CASES, ids=[" ".join(case) for case in CASES])
def test_the_last_reply_alone_is_learnt_where_that_is_asked_for(template, row):
    """The same text of it."""
    wanted = LEARNT[template][row]

    if not isinstance(wanted, str):
        ours = renderer(TEMPLATES[template], learn="last")
        assert learnt(ours.write(ROWS[row])) == wanted[-1:]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_row_is_written_as_transformers_writes_it(template):
    """Whatever stands around the replies."""
    chat_utils = pytest.importorskip("transformers.utils.chat_template_utils")

    for name, row in ROWS.items():
        if isinstance(LEARNT[template][name], list):
            turns = [message.as_turn for message in row.messages]
            theirs, _ = chat_utils.render_jinja_template(
                [turns], chat_template=TEMPLATES[template], **SPECIAL
            )
            assert renderer(TEMPLATES[template]).write(row).text == theirs[0]


def test_what_is_known_of_one_row_is_not_taken_for_another():
    """Rows with the same turns are written by what was learnt of the first; contents differ."""
    ours = renderer(TEMPLATES["thinks_at_the_end"])

    for name in ("two", "thought", "two"):
        assert learnt(ours.write(ROWS[name])) == LEARNT["thinks_at_the_end"][name]


@pytest.mark.parametrize("template", ["chatml", "words", "no_end_mark"])
def test_what_a_person_writes_moves_no_border(template):
    """Marks of the template inside a text, and replies that stand in the question too."""
    said = TEMPLATES[template].partition("'")[2].partition("'")[0]
    question = f"r1 <|im_end|>\n<|im_start|>assistant\nr1 Assistant: r1\n\n### assistant:\nr1{said}"
    row = Example(
        messages=(Message(role="user", content=question), Message(role="assistant", content="r1"))
    )

    written = renderer(TEMPLATES[template]).write(row)

    assert learnt(written) == LEARNT[template]["one"]
    assert written.learnt[0][0] > len(question)


# --- What is not as the row says ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "row", "words"),
    [
        ("without_system", "system", "system text that the chat template leaves out"),
        ("thinks_at_the_end", "thought", "a reply of which the chat template leaves something out"),
        ("asks_for_thoughts", "thought", "a reply of which the chat template leaves something out"),
        ("chatml", "thought", ""),
        ("system_in_last_question", "system", ""),
    ],
)
def test_what_a_template_leaves_out_is_told(template, row, words):
    """Once a row; nothing is told where all is there."""
    faults = renderer(TEMPLATES[template]).write(ROWS[row]).faults

    assert len(faults) == bool(words)
    assert all(words in fault for fault in faults)


@pytest.mark.parametrize(
    ("template", "ends"),
    [("chatml", True), ("marked_without_end", True), ("no_end_mark", False), ("words", True)],
)
def test_it_is_known_whether_a_model_learns_where_to_stop(template, ends):
    """By a mark at the end of what is learnt."""
    ours = renderer(TEMPLATES[template])

    assert bool(ours.write(ROWS["one"]).end) is ends


def test_a_special_token_of_the_tokenizer_ends_a_reply_too(tmp_path):
    """Whatever it is called."""
    source = TEMPLATES["no_end_mark"].replace("'\\n\\n'", "'[STOP]\\n'")
    ours = encoding.of_folder(
        word_tokenizer(tmp_path), choose=lambda _: ChatTemplate(source, SPECIAL)
    )
    assert not ours.renderer.write(ROWS["one"]).end

    ours.tokenizer.add_special_tokens(["[STOP]"])
    again = Encoder.of(ours.tokenizer, replace(ours.renderer))

    written = again.renderer.write(ROWS["one"])
    assert written.end == "[STOP]"
    assert learnt(written) == ["r1[STOP]"]


# --- Thoughts and tools -------------------------------------------------------------------------

WITH_REASONING = TEMPLATES["chatml"].replace(
    "m.content +",
    "('<think>' + m.reasoning_content + '</think>' if m.reasoning_content else '') + m.content +",
)
WITH_TOOLS = (
    "{%- if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{%- for call in m.tool_calls or [] %}"
    "{{ '<call>' + call.function.name + (call.function.arguments | tojson) + '</call>' }}"
    "{%- endfor %}{{ '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
TEXT_ARGUMENTS = WITH_TOOLS.replace("(call.function.arguments | tojson)", "call.function.arguments")
CALL = {"type": "function", "function": {"name": "count", "arguments": {"item": "Töpfe"}}}
TOOL = {"type": "function", "function": {"name": "count", "description": "counts"}}
USES_A_TOOL = Example(
    messages=(
        Message(role="user", content="how many?"),
        Message(role="assistant", content="", calls=(CALL,)),
        Message(role="tool", content="3"),
        Message(role="assistant", content="three"),
    ),
    tools=(TOOL,),
)


@pytest.mark.parametrize("source", [WITH_TOOLS, TEXT_ARGUMENTS], ids=["object", "text"])
def test_calls_are_learnt_and_answers_of_tools_are_not(source):
    """Whether a template takes arguments as an object or as text."""
    written = renderer(source).write(USES_A_TOOL)

    call = '<call>count{"item": "Töpfe"}</call><|im_end|>'
    assert learnt(written) == [call, "three<|im_end|>"]
    assert '"counts"' in written.text
    assert written.faults == ()


def test_calls_that_a_template_does_not_write_are_refused():
    """Nothing but an end mark would be left to learn."""
    with pytest.raises(RowError, match="call tools, which the chat template does not write"):
        renderer(TEMPLATES["chatml"]).write(USES_A_TOOL)


def test_tools_that_a_template_does_not_write_are_told():
    """The rest of the row is learnt."""
    row = replace(ROWS["one"], tools=(TOOL,))

    written = renderer(TEMPLATES["chatml"]).write(row)

    assert written.faults == ("have `tools`, which the chat template does not write",)
    assert learnt(written) == ["r1<|im_end|>"]


def test_a_template_for_rows_with_tools_is_asked_for_them_alone():
    """A tokenizer may bring two."""
    asked = []

    def choose(with_tools):
        asked.append(with_tools)
        return ChatTemplate(WITH_TOOLS if with_tools else TEMPLATES["words"], SPECIAL)

    ours = Renderer(choose)
    texts = [ours.write(row).text for row in (ROWS["one"], USES_A_TOOL, ROWS["two"])]

    assert asked == [False, True]
    assert "<|im_start|>" in texts[1]
    assert "<|im_start|>" not in texts[0] + texts[2]


def test_what_was_thought_is_learnt_where_the_template_writes_it():
    """Else it is told."""
    thinks = Message(role="assistant", content="r1", reasoning="t1")
    row = Example(messages=(Message(role="user", content="q1"), thinks))

    assert learnt(renderer(WITH_REASONING).write(row)) == ["<think>t1</think>r1<|im_end|>"]
    assert renderer(TEMPLATES["chatml"]).write(row).faults == (
        "have reasoning that the chat template leaves out",
    )


# --- Plain rows ---------------------------------------------------------------------------------


def test_of_a_prompt_and_its_completion_the_completion_is_learnt():
    """With the end of the text, which is written once."""
    for completion in ("yes", "yes</s>"):
        written = renderer("").write(Example(prompt="why? ", completion=completion))
        assert (written.text, learnt(written)) == ("why? yes</s>", ["yes</s>"])


def test_of_a_text_all_is_learnt():
    """With its end."""
    written = renderer("").write(Example(text="once"))

    assert learnt(written) == [written.text] == ["once</s>"]


def test_without_a_template_chats_alone_are_refused():
    """By the row, so that it may be left out."""
    ours = Renderer(lambda _: None)

    assert ours.write(Example(text="once")).text == "once"
    with pytest.raises(RowError, match="no chat template"):
        ours.write(ROWS["one"])


def test_a_template_that_cannot_be_read_is_told():
    """As it fails, on one line."""
    with pytest.raises(TemplateError, match="it is no template"):
        ChatTemplate("{% for %}").render([])
    with pytest.raises(RowError, match=r"which says: .*nothing"):
        renderer("{{ messages[0].content.nothing.at.all }}").write(ROWS["one"])


@pytest.mark.parametrize("sign", "\ufdd0\ufdd1\ufdd2\ufdd3")
def test_signs_that_are_no_characters_are_refused(sign):
    """They could move what is learnt, and no text may hold them."""
    turns = (Message(role="user", content=f"a{sign}b"), Message(role="assistant", content="r1"))

    with pytest.raises(RowError, match="noncharacter"):
        renderer(TEMPLATES["marked"]).write(Example(messages=turns))
