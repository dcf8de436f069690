"""By which mark a reply ends: what a template writes after every reply, and nothing that follows.

A tokenizer's special tokens open turns as well as they end them.
"""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from profiles.data.encoding import Encoder
from profiles.data.formats.spec import Example, Message
from profiles.data.rendering import Renderer
from profiles.models.chat_template import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
OPENERS = ("<|system|>", "<|user|>", "<|assistant|>", "<|im_start|>", "<|start|>", "[INST]")


def encoder(source, *marks):
    """Of a tokenizer with the openers of many families, and these marks, as special tokens."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([*OPENERS, *SPECIAL.values(), *marks])
    template = ChatTemplate(source, SPECIAL)
    return Encoder.of(tokenizer, Renderer(lambda _: template, eos="</s>"))


def chat(*contents, masked=()):
    """A user and a model by turns."""
    return Example(
        messages=tuple(
            Message(role=("user", "assistant")[i % 2], content=text, is_learnt=i not in masked)
            for i, text in enumerate(contents)
        )
    )


def learnt(written):
    return [written.text[first:last] for first, last in written.learnt]


def template(before, after, *, asks="{{ '<|assistant|>\\n' }}", ends=""):
    """Turns between two texts, in jinja; `ends`: after the last."""
    return (
        f"{{%- for m in messages %}}{{{{ {before} + m.content + {after} }}}}{{%- endfor %}}"
        f"{{%- if add_generation_prompt %}}{asks}{{%- else %}}{ends}{{%- endif %}}"
    )


_HEAD = "'<|' + m.role + '|>\\n'"
_COMMAND_R = (
    "'<|START_OF_TURN_TOKEN|>' + ('<|CHATBOT_TOKEN|>' if m.role == 'assistant' else "
    "'<|USER_TOKEN|>')"
)
_ASKS_COMMAND_R = "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}"
_LLAMA_2 = (
    "{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{%- else %}{{ ' ' + m.content + ' ' + eos_token }}{%- endif %}{%- endfor %}"
)
_DEEPSEEK = (
    "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{ '<\uff5cUser\uff5c>' + m.content }}{%- else %}"
    "{{ '<\uff5cAssistant\uff5c>' + m.content + '<\uff5cend\u2581of\u2581sentence\uff5c>' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c>' }}"
    "{%- endif %}"
)
_MARKED = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' %}{%- generation %}{{ m.content }}{%- endgeneration %}"
    "{%- else %}{{ m.content }}{%- endif %}{{ '<|stop|>\\n' }}{%- endfor %}"
)
_MARKED_ENDLESS = _MARKED.replace("<|stop|>\\n", "")

CASES = {
    "phi": (template(_HEAD, "'<|end|>\\n'"), (), "r1<|end|>", "<|end|>"),
    "phi, and an end of it all": (
        template(_HEAD, "'<|end|>'", ends="{{ eos_token }}"),
        ("<|end|>",),
        "r1<|end|>",
        "<|end|>",
    ),
    "zephyr": (template(_HEAD, "eos_token + '\\n'"), (), "r1</s>", "</s>"),
    "command-r": (
        template(_COMMAND_R, "'<|END_OF_TURN_TOKEN|>'", asks=_ASKS_COMMAND_R),
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        "r1<|END_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "two marks, one for the reply": (
        template(_COMMAND_R, "'<|END_RESPONSE|><|STOP|>'", asks=_ASKS_COMMAND_R),
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_RESPONSE|>", "<|STOP|>"),
        "r1<|END_RESPONSE|><|STOP|>",
        "<|STOP|>",
    ),
    "deepseek": (
        _DEEPSEEK,
        ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
        "r1<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    ),
    "llama-2": (_LLAMA_2, ("[/INST]",), " r1 </s>", "</s>"),
    "a mark that nobody knows, before an opener": (
        template(_HEAD, "'<|stop|>'"),
        ("<|stop|>",),
        "r1<|stop|>",
        "<|stop|>",
    ),
    "openers alone": (template(_HEAD, "'\\n'"), (), "r1\n", ""),
    "openers alone, without a line": (
        template("'<|' + m.role + '|>'", "''", asks="{{ '<|assistant|>' }}"),
        (),
        "r1",
        "",
    ),
    "one opener for all who speak": (
        template("'<|start|>' + m.role + ':'", "''", asks="{{ '<|start|>assistant:' }}"),
        (),
        "r1",
        "",
    ),
    "always asked": (
        template("'<|im_start|>' + m.role + '\\n'", "'<|stop|>\\n'", asks="")
        + "{{ '<|im_start|>assistant\\n' }}",
        ("<|stop|>",),
        "r1<|stop|>",
        "<|stop|>",
    ),
    "a part of the reply is marked": (_MARKED, ("<|stop|>",), "r1<|stop|>", "<|stop|>"),
    "all of the reply is marked": (_MARKED_ENDLESS, (), "r1", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_reply_is_learnt_with_its_end_and_without_what_opens_the_next_turn(name):
    """Each reply of a chat as the last one, and as that of a shorter chat."""
    source, marks, wanted, end = CASES[name]
    ours = encoder(source, *marks).renderer

    for row in (chat("q1", "r1"), chat("q1", "r1", "q2", "r2"), chat(*"abcdef")):
        written = ours.write(row)
        replies = [message.content for message in row.messages[1::2]]
        assert learnt(written) == [wanted.replace("r1", reply) for reply in replies]
        assert written.end == end


@pytest.mark.parametrize("name", CASES)
def test_a_reply_that_others_follow_ends_no_otherwise_where_it_alone_is_learnt(name):
    """It is told as endless if it is, though a special token follows it."""
    source, marks, wanted, end = CASES[name]

    written = encoder(source, *marks).renderer.write(chat("q1", "r1", "q2", "r2", masked=[3]))

    assert learnt(written) == [wanted]
    assert written.end == end


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("said", ["<|user|>", "a <|im_start|>", "<|start|>assistant:", "[INST]"])
def test_an_opener_that_somebody_writes_ends_nothing(name, said):
    """Inside a reply or at its end."""
    source, marks, wanted, end = CASES[name]

    written = encoder(source, *marks).renderer.write(chat("q1", said, said, f"{said} b {said}"))

    assert learnt(written) == [wanted.replace("r1", one) for one in (said, f"{said} b {said}")]
    assert written.end == end


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3]])
def test_a_reply_that_is_an_end_mark_is_ended_besides(name):
    """The template's mark comes after the one that is content."""
    source, marks, wanted, end = CASES[name]

    for said in (end, f"say {end}"):
        written = encoder(source, *marks).renderer.write(chat("q1", said, end, said))
        assert learnt(written) == [wanted.replace("r1", said)] * 2


@pytest.mark.parametrize("mark", ["<e><e>x", "x<e>"])
def test_of_two_tokens_of_which_one_holds_the_other_the_longer_counts(mark):
    """In whatever order they come."""
    for marks in (("<e>", mark), (mark, "<e>")):
        ours = encoder(template(_HEAD, f"'{mark}\\n'"), *marks).renderer
        written = ours.write(chat("q1", "r1"))
        assert (learnt(written), written.end) == ([f"r1{mark}"], mark)


def test_a_template_that_takes_one_question_alone_is_known_by_its_marks():
    """Nothing can be found out about it."""
    once = "{%- if messages | length > 2 %}{{ raise_exception('one') }}{%- endif %}"
    written = encoder(once + template(_HEAD, "'<|end|>\\n'")).renderer.write(chat("q1", "r1"))

    assert (learnt(written), written.end) == (["r1<|end|>"], "<|end|>")
