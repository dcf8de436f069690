"""Calls of tools, thoughts and weights from a file to what is learnt, written down by hand."""

from __future__ import annotations

import itertools
import shutil
import subprocess

import pytest
from chat_templates_in_use import TEMPLATES
from data_files import examples, refused, word_tokenizer, write_rows

from profiles.chat_families import TEMPLATES as FAMILIES
from profiles.data import dataset
from profiles.data.encoding import of_folder
from profiles.data.formats.spec import RowError
from profiles.data.rendering import Renderer
from profiles.models.chat_template import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
UNMARKED = (
    "{%- if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{%- for call in m.tool_calls or [] %}"
    "{{ '<call>' + call.function.name + ' ' + (call.function.arguments | tojson) + '</call>' }}"
    "{%- endfor %}{{ '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
NAMES_TOOLS_ALONE = UNMARKED.replace("in m.tool_calls or []", "in []")
THINKS_LAST = (
    "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\\n' }}{%- if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
)
SOURCES = {
    **{name: FAMILIES[name] for name in ("chatml", "qwen", "llama3", "mistral")},
    "unmarked": UNMARKED,
    "thinks last": THINKS_LAST,
}

TOOL = {"name": "weigh", "description": "Weighs a fruit", "parameters": {"type": "object"}}
ASKS = {"role": "user", "content": "How heavy?"}
CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "weigh", "arguments": '{"n": 1}'}}],
}
GETS = {"role": "tool", "content": "180"}
TELLS = {"role": "assistant", "content": "180 g."}
SHAREGPT = [
    {"from": "human", "value": "How heavy?"},
    {"from": "function_call", "value": '{"name": "weigh", "arguments": {"n": 1}}'},
    {"from": "observation", "value": "180"},
    {"from": "gpt", "value": "180 g."},
]
ROWS = {
    "used": {"messages": [ASKS, CALLS, GETS, TELLS], "tools": [TOOL]},
    "sharegpt": {"conversations": SHAREGPT, "tools": "[]"},
    "ends with a call": {"messages": [ASKS, CALLS], "tools": [TOOL]},
    "call of weight 0": {"messages": [ASKS, CALLS | {"weight": 0}, GETS, TELLS]},
    "thinks": {
        "messages": [
            ASKS,
            TELLS | {"reasoning_content": "Scales."},
            ASKS,
            TELLS | {"thinking": "Scales again."},
        ]
    },
    "weights": {"messages": [ASKS, TELLS | {"train": False}, ASKS, TELLS | {"train": True}]},
    "completion of turns": {"prompt": [ASKS, TELLS, ASKS], "completion": [TELLS]},
}


def _all(call: str, end: str, *, reply: str = "180 g.", thought: str = "") -> dict[str, list[str]]:
    """Of a template that writes calls so, ends replies so, and thoughts, if any, so."""
    told, called = f"{reply}{end}", f"{call}{end}"
    thoughts = [thought.replace("T", one) + told for one in ("Scales.", "Scales again.")]
    return {
        "used": [called, told],
        "sharegpt": [called, told],
        "ends with a call": [called],
        "call of weight 0": [told],
        "thinks": thoughts,
        "weights": [told],
        "completion of turns": [told],
    }


_HERMES = '<tool_call>\n{"name": "weigh", "arguments": {"n": 1}}\n</tool_call>'
_THINK = "<think>\nT\n</think>\n\n"
LEARNT = {
    "chatml": _all(_HERMES, "<|im_end|></s>", thought=_THINK),
    "qwen": _all(_HERMES, "<|im_end|>", thought=_THINK),
    "llama3": _all('{"name": "weigh", "parameters": {"n": 1}}', "<|eot_id|>"),
    "mistral": _all(
        '[TOOL_CALLS] [{"name": "weigh", "arguments": {"n": 1}}]', "</s>", reply=" 180 g."
    ),
    "unmarked": _all('<call>weigh {"n": 1}</call>', "<|im_end|>"),
    "thinks last": {
        "thinks": ["180 g.<|im_end|>", "<think>\nScales again.\n</think>\n\n180 g.<|im_end|>"],
        "weights": ["<think>\n\n</think>\n\n180 g.<|im_end|>"],
        "completion of turns": ["<think>\n\n</think>\n\n180 g.<|im_end|>"],
    },
}
CASES = [
    case for case in itertools.product(SOURCES, ROWS) if case[1] in LEARNT[case[0]]
]  # the last template writes no calls


def renderer(source, **options):
    return Renderer(lambda _: ChatTemplate(source, SPECIAL), eos="</s>", **options)


def written(folder, row, source):
    (example,) = examples(write_rows(folder, [row]))
    return renderer(source).write(example)


@pytest.mark.parametrize(("template", "row"), CASES, ids=[" ".join(case) for case in CASES])
def test_calls_thoughts_and_replies_are_learnt_with_their_end_marks(tmp_path, template, row):
    """And nothing else: neither tools, nor what they answer, nor what a weight leaves out."""
    found = written(tmp_path, ROWS[row], SOURCES[template])

    assert [found.text[a:b] for a, b in found.learnt] == LEARNT[template][row]
    assert ("Weighs a fruit" in found.text) == ("tools" in ROWS[row] and row != "sharegpt")


@pytest.mark.parametrize("template", ["llama3", "mistral", "unmarked", "thinks last"])
def test_thoughts_that_a_template_drops_are_told(tmp_path, template):
    """All of them or those of earlier replies alone."""
    faults = written(tmp_path, ROWS["thinks"], SOURCES[template]).faults

    assert faults == ("have reasoning that the chat template leaves out",)
    assert written(tmp_path, ROWS["thinks"], FAMILIES["qwen"]).faults == ()


def test_a_thought_in_the_text_that_gets_another_before_it_is_told(tmp_path):
    """The way out works; a template that writes none, or that knows such texts, is no fault."""
    thinks = {"messages": [ASKS, TELLS | {"content": "<think>\nScales.\n</think>\n\n180 g."}]}
    apart = {"messages": [ASKS, TELLS | {"reasoning_content": "Scales."}]}

    (fault,) = written(tmp_path, thinks, THINKS_LAST).faults

    assert "the chat template writes one more" in fault
    assert "`reasoning_content`" in fault
    assert written(tmp_path, apart, THINKS_LAST).faults == ()
    assert written(tmp_path, thinks, TEMPLATES["chatml"]).faults == ()


@pytest.mark.parametrize(
    "source",
    [NAMES_TOOLS_ALONE, TEMPLATES["chatml"], FAMILIES["plain"]],
    ids=["named", "none", "plain"],
)
def test_a_call_that_is_not_in_its_reply_is_refused_with_a_way_out(tmp_path, source):
    """Also where the name of the tool stands elsewhere in the text; the way out works."""
    path = write_rows(tmp_path, [ROWS["used"]])

    def encoder(template):
        return of_folder(word_tokenizer(tmp_path), choose=lambda _: ChatTemplate(template, SPECIAL))

    error = refused(path, encoder=encoder(source))

    expected = "1 of 1 rows call tools, which the chat template does not write (first: line 1)"
    assert error.what == expected
    assert error.do.startswith('take another template, such as data.chat_template = "chatml" ')
    assert dataset.check(path, encoder=encoder(FAMILIES["chatml"])).num_rows == 1


def test_rows_that_call_tools_without_naming_them_take_the_template_for_tools(tmp_path):
    """A tokenizer may bring two, and the other need not write calls."""
    (example,) = examples(write_rows(tmp_path, [ROWS["sharegpt"]]))
    asked = []

    def choose(with_tools):
        asked.append(with_tools)
        return ChatTemplate(UNMARKED if with_tools else TEMPLATES["chatml"], SPECIAL)

    assert "<call>" in Renderer(choose).write(example).text
    assert asked == [True]


def test_tools_are_told_where_a_template_fails_without_them(tmp_path):
    """A template that insists on tools has written them."""
    source = "{{ tools[0].function.name }}" + UNMARKED

    assert written(tmp_path, ROWS["used"], source).faults == ()


def test_where_the_last_reply_alone_is_learnt_its_weight_counts_too(tmp_path):
    """A row of which nothing is left is left out and told."""
    row = {"messages": [ASKS, TELLS, ASKS, TELLS | {"weight": 0}]}
    path = write_rows(tmp_path, [row, ROWS["weights"]])
    ours = of_folder(
        word_tokenizer(tmp_path),
        choose=lambda _: ChatTemplate(FAMILIES["chatml"], SPECIAL),
        learn="last",
    )

    found = dataset.check(path, encoder=ours)

    assert found.num_rows == 1
    assert "left out: 1 of 2 rows have no reply that is learnt" in found.warnings
    assert dataset.check(path).num_rows == 2


@pytest.mark.parametrize("place", ["reasoning", "tools", "arguments"])
def test_signs_that_are_no_characters_are_refused_wherever_they_stand(tmp_path, place):
    """They could move what is learnt."""
    sign = "\ufdd0"
    call = {"function": {"name": "weigh", "arguments": {"n": sign}}}
    reply = {
        "reasoning": TELLS | {"thinking": sign},
        "tools": TELLS,
        "arguments": TELLS | {"tool_calls": [call]},
    }[place]
    tools = [TOOL | {"description": sign}] if place == "tools" else []

    with pytest.raises(RowError, match="noncharacter"):
        written(tmp_path, {"messages": [ASKS, reply], "tools": tools}, FAMILIES["qwen"])


# --- Roles that a template refuses ----------------------------------------------------------------


SYSTEM = {"role": "system", "content": "Be kind."}
REFUSED = {
    "a system turn": ([SYSTEM, ASKS, TELLS], "System role not supported"),
    "two questions": ([ASKS, ASKS, TELLS], "Roles must alternate"),
}


MERGE = (
    "put the system text at the beginning of the first question: jq -c 'if .messages[0].role == "
    '"system" then .messages = [.messages[1] + {content: (.messages[0].content + "\\n\\n" + '
    ".messages[1].content)}] + .messages[2:] else . end' "
)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("way_out", ["chatml", "skip"])
def test_the_way_out_of_a_refused_role_works(tmp_path, name, way_out):
    """Another template for all rows, or the few rows left out."""
    turns, said = REFUSED[name]
    good = [{"messages": [ASKS | {"content": f"How heavy is {n}?"}, TELLS]} for n in range(19)]
    path = write_rows(tmp_path, [*good, {"messages": turns}])

    def encoder(source):
        return of_folder(word_tokenizer(tmp_path), choose=lambda _: ChatTemplate(source, SPECIAL))

    strict = encoder(TEMPLATES["strict"])
    error = refused(path, encoder=strict)

    assert error.what == (
        f"1 of 20 rows are refused by the chat template, which says: {said} (first: line 20)"
    )
    merge = "" if name == "two questions" else f"or {MERGE}{path} > merged.jsonl; "
    assert error.do == (
        'take another template, such as data.chat_template = "chatml" (--chat-template chatml); '
        f"{merge}or repair these rows, "
        'or leave them out: on_bad = "skip" (--on-bad skip)'
    )
    assert error.why == "a model reads a row as its chat template writes it"
    if way_out == "skip":
        assert dataset.check(path, encoder=strict, on_bad="skip").num_rows == 19
    else:
        assert dataset.check(path, encoder=encoder(FAMILIES["chatml"])).num_rows == 20


def test_the_template_of_the_family_takes_a_system_text(tmp_path):
    """Gemma's own refuses one; ours writes it before the first question."""
    found = written(tmp_path, {"messages": REFUSED["a system turn"][0]}, FAMILIES["gemma"])

    assert "Be kind.\n\nHow heavy?" in found.text
    assert found.faults == ()


def test_a_system_text_is_put_into_the_first_question_as_the_refusal_says(tmp_path):
    """By the command, and in words where rows are written otherwise."""
    encoder = of_folder(
        word_tokenizer(tmp_path), choose=lambda _: ChatTemplate(TEMPLATES["strict"], SPECIAL)
    )
    path = write_rows(tmp_path, [{"messages": [SYSTEM, ASKS, TELLS]}, {"messages": [ASKS, TELLS]}])
    command = refused(path, encoder=encoder).do.partition("first question: ")[2]
    if shutil.which("jq"):
        command = command.partition("; or repair")[0]
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602
        merged = examples(tmp_path / "merged.jsonl", renderer=encoder.renderer)
        assert [row.messages[0].content for row in merged] == [
            "Be kind.\n\nHow heavy?",
            "How heavy?",
        ]
    alpaca = {"instruction": "How heavy?", "output": "180 g.", "system": "Be kind."}
    told = refused(write_rows(tmp_path, [alpaca]), encoder=encoder).do
    assert "put the system text at the beginning of the first question; or repair" in told
