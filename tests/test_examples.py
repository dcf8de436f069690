"""Answers to held-out prompts: which prompt, how much of it, and what is kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from stand_ins import Notes  # noqa: E402

from profiles.data.encoding import Encoder  # noqa: E402
from profiles.data.formats.spec import Example, Message  # noqa: E402
from profiles.data.rendering import Renderer  # noqa: E402
from profiles.models.chat_template import ChatTemplate  # noqa: E402
from profiles.runs.records.evaluation import Answer, AnswerFailed  # noqa: E402
from runner.training import examples  # noqa: E402

REPLY = [5, 6]
"""What the network says, before the end of the text."""


class Network(torch.nn.Module):
    """Says always the same, and keeps what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.modes = []
        self.says = REPLY
        self.generation_config = SimpleNamespace(eos_token_id=2)

    def generate(self, **inputs):
        self.asked.append(inputs)
        self.modes.append(self.training)
        said = torch.tensor([[*self.says, 2]])
        return torch.cat([inputs["input_ids"], said], dim=1)


def encoder_of(tokenizer, template=None):
    """What a model with this tokenizer reads; the template is its own or another."""
    template = ChatTemplate(template or tokenizer.chat_template, {"eos_token": tokenizer.eos_token})
    renderer = Renderer(lambda _: template, eos=tokenizer.eos_token)
    return Encoder.of(tokenizer.backend_tokenizer, renderer)


@pytest.fixture(scope="module")
def tokenizer():
    """A small tokenizer with a chat template."""
    from runner.demo_base import make_tokenizer
    from runner.demo_text import base_lines

    return make_tokenizer(list(base_lines(50, 0)))


@pytest.fixture
def trainer(tokenizer):
    """What a trainer has of it."""
    return SimpleNamespace(
        processing_class=tokenizer,
        model=Network(),
        args=SimpleNamespace(device=torch.device("cpu")),
        state=SimpleNamespace(global_step=4),
    )


@pytest.fixture
def ask(trainer):
    """Answer rows; the events."""

    def answer(*rows, max_length=200, ticks=None, template=None):
        attempt = SimpleNamespace(
            events=Notes(),
            progress=SimpleNamespace(tick=lambda: ticks.append(1) if ticks is not None else None),
        )
        examples.write(
            trainer,
            list(rows),
            attempt,
            encoder=encoder_of(trainer.processing_class, template),
            moment="before",
            max_length=max_length,
        )
        return attempt.events.records

    return answer


def said(tokenizer):
    """The network's reply as text."""
    return tokenizer.decode(REPLY)


TURNS = [
    Message(role="system", content="be short"),
    Message(role="user", content="first question"),
    Message(role="assistant", content="first answer"),
    Message(role="user", content="second question"),
]
LAST = Message(role="assistant", content="second answer")
CHAT = Example(messages=(*TURNS, LAST))
PLAIN = Example(prompt="how much", completion="ten")


def test_a_plain_prompt_is_answered_and_told(ask, tokenizer):
    """When, at which step, what the data answers, and what the model does."""
    assert ask(PLAIN) == [
        Answer(moment="before", step=4, prompt="how much", wanted="ten", answer=said(tokenizer))
    ]


def test_of_a_conversation_the_last_turn_is_wanted_and_the_one_before_shown(ask):
    """As a person reads it."""
    (answer,) = ask(CHAT)

    assert (answer.prompt, answer.wanted) == ("second question", "second answer")


def test_the_model_sees_the_whole_conversation_and_where_its_turn_begins(ask, trainer, tokenizer):
    """As the template writes it, and all but the answer."""
    ask(CHAT)

    (asked,) = trainer.model.asked
    turns = [turn.as_turn for turn in TURNS]
    wanted = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(asked["input_ids"][0]) == wanted
    assert "second answer" not in wanted
    assert wanted != tokenizer.apply_chat_template(turns, tokenize=False)


def test_a_plain_prompt_goes_to_the_model_as_it_is(ask, trainer, tokenizer):
    """No template is put around it."""
    ask(PLAIN)

    (asked,) = trainer.model.asked
    assert asked["input_ids"].tolist() == [tokenizer("how much")["input_ids"]]
    assert asked["attention_mask"].shape == asked["input_ids"].shape


def test_answers_are_greedy_and_short_whatever_the_model_is_set_to(ask, trainer):
    """Two answers differ by what was learnt, not by chance; with a cache they take no time."""
    ask(PLAIN)

    (asked,) = trainer.model.asked
    assert (asked["do_sample"], asked["use_cache"], asked["max_new_tokens"]) == (False, True, 64)


@pytest.mark.parametrize(("max_length", "kept"), [(74, 10), (66, 2), (65, 1), (64, 1), (10, 1)])
def test_of_a_long_prompt_its_end_is_kept(ask, trainer, tokenizer, max_length, kept):
    """As much as leaves room for an answer, and never nothing."""
    ask(Example(prompt="word " * 50, completion="ten"), max_length=max_length)

    (asked,) = trainer.model.asked
    whole = tokenizer("word " * 50)["input_ids"]
    assert asked["input_ids"].tolist() == [whole[-kept:]]
    assert asked["attention_mask"].shape == (1, kept)


@pytest.mark.parametrize("was_training", [True, False])
def test_dropout_is_off_for_answers_alone(ask, trainer, was_training):
    """Training goes on as it was."""
    trainer.model.train(was_training)

    ask(PLAIN)

    assert trainer.model.modes == [False]
    assert trainer.model.training is was_training


def test_long_texts_are_cut(ask, trainer):
    """A record is no place for a book."""
    prompt, wanted = "a" * 1500, "b" * 1500
    (answer,) = ask(Example(prompt=prompt, completion=wanted))

    assert (answer.prompt, answer.wanted) == (prompt[:1000], wanted[:1000])


def test_rows_without_an_answer_are_passed_over_and_counted(ask):
    """A text to be learnt as a whole has none."""
    ticks = []

    told = ask(Example(text="all of it"), PLAIN, ticks=ticks)

    assert [type(e) for e in told] == [Answer]
    assert len(ticks) == 2


def test_answers_that_fail_cost_no_run(ask, trainer):
    """It is told; what was answered before stays."""

    def fail(**_):
        raise RuntimeError("x" * 1500)

    rows = [PLAIN] * 2
    trainer.model.generate = fail

    assert ask(*rows) == [AnswerFailed(moment="before", error="x" * 1000)]


@pytest.fixture
def answers_of(tiny_model):
    """A real model's answer to CHAT by a template, where all it says is one token; and its ids."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def answer(template, *, says, special=(), own=None):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        model.resize_token_embeddings(len(tokenizer))
        if own is not None:
            model.generation_config.eos_token_id = own
        wanted = tokenizer.convert_tokens_to_ids(says)
        said = []

        def insist(_, __, output):
            output.logits[..., wanted] += 1e4
            said.append(wanted)

        model.register_forward_hook(insist)
        attempt = SimpleNamespace(events=Notes(), progress=real_runs.StillHeart())
        examples.write(
            SimpleNamespace(
                processing_class=tokenizer,
                model=model,
                args=SimpleNamespace(device=torch.device("cpu")),
                state=SimpleNamespace(global_step=0),
            ),
            [CHAT],
            attempt,
            encoder=encoder_of(tokenizer, template),
            moment="after",
            max_length=96,
        )
        (event,) = attempt.events.records
        assert isinstance(event, Answer), event
        return event.answer, len(said)

    return answer


ENDED_BY = (
    "{%- for m in messages %}{{ '<|u|>' + m.role + m.content + 'MARK' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|u|>assistant' }}{%- endif %}"
)


def test_an_answer_ends_with_the_mark_that_is_taught(answers_of):
    """Which a base model with a chosen template has not as its own."""
    template = ENDED_BY.replace("MARK", "<|done|>")

    assert answers_of(template, says="<|done|>", special=["<|u|>", "<|done|>"]) == ("", 1)
    assert answers_of(template, says="<|u|>", special=["<|u|>", "<|done|>"]) == ("", 64)


@pytest.mark.parametrize(("own", "says"), [(None, "</s>"), (0, "<pad>"), ([0, 1], "<s>")])
def test_an_answer_ends_where_the_model_ends_it_besides(answers_of, own, says):
    """By one token of its own, or one of several."""
    template = ENDED_BY.replace("MARK", "<|done|>")

    assert answers_of(template, says=says, special=["<|done|>"], own=own)[1] == 1


def test_of_an_answer_with_a_mark_in_several_tokens_the_rest_is_left_out(ask, trainer, tokenizer):
    """Nothing can be stopped at it."""
    trainer.model.says = tokenizer("yes<|im_end|>\nand more")["input_ids"]
    template = ENDED_BY.replace("MARK", "<|im_end|>")

    (answer,) = ask(CHAT, template=template)
    (unmarked,) = ask(CHAT)

    assert answer.answer == "yes"
    assert unmarked.answer == "yes<|im_end|>\nand more"
    assert trainer.model.asked[0]["eos_token_id"] == [2]


def test_a_real_model_answers(tiny_model):
    """With the library's own generation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer = SimpleNamespace(
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        args=SimpleNamespace(device=torch.device("cpu")),
        state=SimpleNamespace(global_step=0),
    )
    attempt = SimpleNamespace(events=Notes(), progress=real_runs.StillHeart())

    examples.write(
        trainer,
        [CHAT],
        attempt,
        encoder=encoder_of(trainer.processing_class),
        moment="after",
        max_length=96,
    )

    (answer,) = attempt.events.records
    assert isinstance(answer, Answer)
    assert answer.answer
