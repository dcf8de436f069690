"""Chat templates as model families write them, with what of each kind of row is learnt by hand.

Written for the tests after the manner of the families. `LEARNT` has, for each template and kind of
row, the parts that are learnt in order; a text instead is what the template says to refuse it.
"""

from __future__ import annotations

from profiles.data.formats.spec import Example, Message

_CHATML = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
_ASKS = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"

TEMPLATES = {
    "chatml": f"{{%- for m in messages %}}{_CHATML}{{%- endfor %}}{_ASKS}",
    "default_system": (
        "{%- if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{%- endif %}"
        f"{{%- for m in messages %}}{_CHATML}{{%- endfor %}}{_ASKS}"
    ),
    "marked": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n{% else %}"
        "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    ),
    "marked_without_end": (
        "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' %}{%- generation %}{{ m.content }}{%- endgeneration %}"
        "{%- else %}{{ m.content }}{%- endif %}{{ '<|im_end|>\\n' }}{%- endfor %}"
    ),
    "llama3": (
        "{{ bos_token }}{%- for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim }}"
        "{{ '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
    ),
    "system_in_last_question": (
        "{%- set system = messages[0].content if messages[0].role == 'system' else '' %}"
        "{%- set rest = messages[1:] if system else messages %}{{ bos_token }}"
        "{%- for m in rest %}{%- if m.role == 'user' %}"
        "{%- set last = rest[loop.index0:] | selectattr('role', 'eq', 'user') | list | length %}"
        "{{ '[INST] ' + (system + '\\n\\n' if system and last == 1 else '') + m.content }}"
        "{{ ' [/INST]' }}{%- else %}{{ ' ' + m.content | trim + eos_token }}{%- endif %}"
        "{%- endfor %}"
    ),
    "strict": (
        "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{%- endif %}"
        "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{%- endif %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
        "{{ m.content | trim + '<end_of_turn>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}"
    ),
    "end_of_everything": (
        "{%- for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}"
        "{%- else %}{{ eos_token }}{%- endif %}"
    ),
    "words": (
        "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'assistant' %}"
        "{{ 'Assistant: ' + m.content + eos_token }}{%- elif m.role == 'user' %}"
        "{{ 'User: ' + m.content + '\\n\\n' }}{%- else %}{{ m.content + '\\n\\n' }}{%- endif %}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ 'Assistant:' }}{%- endif %}"
    ),
    "no_end_mark": (
        "{%- for m in messages %}{{ '### ' + m.role + ':\\n' + m.content + '\\n\\n' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '### assistant:\\n' }}{%- endif %}"
    ),
    "thinks_at_the_end": (
        "{%- set ns = namespace(last=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
        "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for m in messages %}"
        "{%- set said = m.content %}{%- set thought = '' %}"
        "{%- if m.role == 'assistant' and '</think>' in said %}"
        "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
        "{%- set said = said.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' and loop.index0 > ns.last %}"
        "{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}"
        f"{{{{ said + '<|im_end|>\\n' }}}}{{%- endfor %}}{_ASKS}"
    ),
    "asks_for_thoughts": (
        "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'assistant' %}"
        "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}{%- else %}"
        "{{ '<|User|>' + m.content }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{%- endif %}"
    ),
    "without_system": (
        "{%- for m in messages %}{%- if m.role != 'system' %}"
        f"{_CHATML}{{%- endif %}}{{%- endfor %}}{_ASKS}"
    ),
    "dated": (
        "{{ '<|im_start|>system\\nToday is ' + strftime_now('%d %B %Y') + '.<|im_end|>\\n' }}"
        f"{{%- for m in messages %}}{_CHATML}{{%- endfor %}}{_ASKS}"
    ),
    "numbered": (
        "{%- for m in messages %}{{ '[' ~ loop.index ~ '/' ~ messages | length ~ '] ' + m.role }}"
        "{{ ': ' + m.content + eos_token + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
        "{%- set n = messages | length + 1 %}{{ '[' ~ n ~ '/' ~ n ~ '] assistant: ' }}{%- endif %}"
    ),
    "question_as_title": (
        "{%- set asked = messages | selectattr('role', 'eq', 'user') | map(attribute='content') %}"
        "{{ '# ' + (asked | list)[-1] + '\\n' }}{%- for m in messages %}"
        "{{ '<|' + m.role + '|>' + m.content + eos_token }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<|assistant|>' }}{%- endif %}"
    ),
    "named": (
        "{%- for m in messages %}{{ 'Zoe' if m.role == 'assistant' else m.role }}"
        "{{ ': ' + m.content + '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ 'Zoe: ' }}{%- endif %}"
    ),
    "ends_the_chat": (
        "{%- for m in messages %}{{ m.role + ': ' + m.content }}"
        "{{ eos_token if loop.last else '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '\\nassistant: ' }}{%- endif %}"
    ),
}


def _chat(*turns: tuple[str, str], masked: int = -1) -> Example:
    return Example(
        messages=tuple(
            Message(role=role, content=content, is_learnt=i != masked)  # type: ignore[arg-type]
            for i, (role, content) in enumerate(turns)
        )
    )


_TWO = (("user", "q1"), ("assistant", "r1"), ("user", "q2"), ("assistant", "r2"))

ROWS = {
    "one": _chat(("user", "q1"), ("assistant", "r1")),
    "two": _chat(*_TWO),
    "system": _chat(("system", "S"), *_TWO),
    "masked": _chat(*_TWO, masked=1),
    "spaces": _chat(("user", " q1 "), ("assistant", " r1\n")),
    "thought": _chat(
        ("user", "q1"),
        ("assistant", "<think>\nt1\n</think>\n\nr1"),
        ("user", "q2"),
        ("assistant", "<think>\nt2\n</think>\n\nr2"),
    ),
}
_T1, _T2 = "<think>\nt1\n</think>\n\n", "<think>\nt2\n</think>\n\n"


def _always(end: str, *, lead: str = "", trims: bool = False) -> dict[str, list[str]]:
    """Of a template that writes contents as they are, or trimmed."""
    return {
        "one": [f"{lead}r1{end}"],
        "two": [f"{lead}r1{end}", f"{lead}r2{end}"],
        "system": [f"{lead}r1{end}", f"{lead}r2{end}"],
        "masked": [f"{lead}r2{end}"],
        "spaces": [f"{lead}r1{end}" if trims else f"{lead} r1\n{end}"],
        "thought": [f"{lead}{_T1}r1{end}", f"{lead}{_T2}r2{end}"],
    }


_NO_THOUGHT = "<think>\n\n</think>\n\n"

LEARNT: dict[str, dict[str, list[str] | str]] = {
    "chatml": {**_always("<|im_end|>")},
    "default_system": {**_always("<|im_end|>")},
    "marked": {**_always("<|im_end|>")},
    "marked_without_end": {**_always("<|im_end|>")},
    "llama3": {**_always("<|eot_id|>", trims=True)},
    "system_in_last_question": {
        **_always("</s>", lead=" ", trims=True),
        "system": ["r1</s>", " r2</s>"],
    },
    "strict": {**_always("<end_of_turn>", trims=True), "system": "System role not supported"},
    "end_of_everything": {**_always("<|end|>")},
    "words": {**_always("</s>", lead=" ")},
    "no_end_mark": {**_always("\n\n")},
    "thinks_at_the_end": {
        "one": [f"{_NO_THOUGHT}r1<|im_end|>"],
        "two": ["r1<|im_end|>", f"{_NO_THOUGHT}r2<|im_end|>"],
        "system": ["r1<|im_end|>", f"{_NO_THOUGHT}r2<|im_end|>"],
        "masked": [f"{_NO_THOUGHT}r2<|im_end|>"],
        "spaces": [f"{_NO_THOUGHT} r1\n<|im_end|>"],
        "thought": ["r1<|im_end|>", f"{_T2}r2<|im_end|>"],
    },
    "asks_for_thoughts": {
        **_always("</s>"),
        "thought": ["\n\nr1</s>", "\n\nr2</s>"],
    },
    "without_system": {**_always("<|im_end|>")},
    "dated": {**_always("<|im_end|>")},
    "numbered": {**_always("</s>")},
    "question_as_title": {**_always("</s>")},
    "named": {**_always("\n")},
    "ends_the_chat": {
        "one": ["r1</s>"],
        "two": ["r1", "r2</s>"],
        "system": ["r1", "r2</s>"],
        "masked": ["r2</s>"],
        "spaces": [" r1\n</s>"],
        "thought": [f"{_T1}r1", f"{_T2}r2</s>"],
    },
}
