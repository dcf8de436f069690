"""The app's data step: the rows of the file that is typed, as the model reads them."""

from __future__ import annotations

import pytest
from data_files import byte_tokenizer, write_rows
from driven_app import drive, install, press, text
from small_model import small_model
from textual.widgets import Input, Static

from profiles.data import dataset
from profiles.models import model
from tui.screens.data import DataScreen
from tui.screens.pager import Pager

CHECK = dataset.check
"""The real one; other tests of the app need none."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A home, and a model with a chat template and a tokenizer of bytes."""
    install(tmp_path, monkeypatch)
    folder = small_model(tmp_path / "model")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return model.from_folder(folder)


def chat(number):
    turns = (("user", f"question {number}"), ("assistant", f"reply\x1b[2J {number}"))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def opened(base, *keys, size=(80, 24), symbols=""):
    """What stands on the screen after these keys in the data step, and its styles."""
    seen = []

    async def script(app, pilot):
        app.context.model = base
        app.context.open("data")
        await pilot.pause()
        assert isinstance(app.screen, DataScreen)
        await press(app, pilot, *keys)
        visual = app.screen.query(Static).last().visual
        seen.append((type(app.screen), text(app), str(getattr(visual, "spans", ""))))
        if isinstance(app.screen, Pager):
            await press(app, pilot, "escape")
            seen.append((type(app.screen), text(app), app.screen.query_one(Input).value))

    drive(script, size=size, symbols=symbols)
    return seen


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_a_key_shows_the_rows_as_the_model_reads_them(tmp_path, base, size):
    """With signs and colours; esc comes back to the same path."""
    write_rows(tmp_path, [chat(number) for number in range(12)], "rows.jsonl")

    (screen, page, spans), back = opened(base, *"rows.jsonl", "f2", size=size)

    assert screen is Pager
    assert "the chat template of model" in page
    assert "  | question 0<|im_end|>↵\n" in page
    assert "  + reply\\x1b[2J 0<|im_end|>\n" in page
    assert "row 10, line 10: 42 tokens, 12 learnt (29 %)" in page
    assert "question 10" not in page
    assert spans.count("ansi=2") == 10  # green, for each reply
    assert max(map(len, page.splitlines())) < size[0]
    assert (back[0], back[2]) == (DataScreen, "rows.jsonl")
    assert "enter checks it" in back[1]


def test_after_the_check_enter_still_goes_on(tmp_path, base):
    """The rows are a look aside."""
    write_rows(tmp_path, [chat(0)], "rows.jsonl")

    _, (_, page, _) = opened(base, *"rows.jsonl", "enter", "f2")

    assert "enter goes on: the recommendation" in page


def test_rows_are_shown_in_ascii_where_the_terminal_knows_no_more(tmp_path, base):
    """Line breaks are the only sign that is not."""
    write_rows(tmp_path, [chat(0)], "rows.jsonl")

    (_, page, _), _ = opened(base, *"rows.jsonl", "f2", symbols="ascii")

    assert "  | question 0<|im_end|>\\n\n" in page


def test_a_file_that_cannot_be_read_is_told_in_place(base):
    """And nothing typed asks for a path."""
    ((screen, page, _),) = opened(base, *"none.jsonl", "f2")
    assert screen is DataScreen
    assert "there is no file" in page
    ((screen, page, _),) = opened(base, "f2")
    assert (screen, "file: JSON" in page) == (DataScreen, True)


def test_rows_are_read_as_the_options_say(tmp_path, base, monkeypatch):
    """The way out that a refusal names is typed as on the command line, and followed."""
    monkeypatch.setattr(dataset, "check", CHECK)
    cut_off = {"messages": [{"role": "user", "content": "why?"}]}
    write_rows(tmp_path, [*[chat(number) for number in range(29)], cut_off], "rows.jsonl")
    seen = []

    async def script(app, pilot):
        app.context.model = base
        app.context.open("data")
        await pilot.pause()
        await press(app, pilot, *"rows.jsonl", "enter")
        seen.append(text(app))
        await press(app, pilot, "f3", *"--on-bad skip --learn last", "enter")
        seen.append(text(app))
        seen.append(app.context.data.read_with)
        await press(app, pilot, "f3", *" --nothing", "enter")
        seen.append(text(app))

    drive(script, size=(100, 30))

    refused, found, read_with, unknown = seen
    assert "(--on-bad skip)" in " ".join(refused.split())
    assert "29 usable" in found
    assert read_with == {"on_bad": "skip", "learn": "last"}
    assert "options that are not understood" in unknown
    assert "--nothing" in unknown


def test_the_task_is_named_with_the_options_and_goes_on_to_the_recommendation(
    tmp_path, base, monkeypatch
):
    """As the page says that another can be named."""
    monkeypatch.setattr(dataset, "check", CHECK)
    rows = [{"prompt": "why?", "completion": f"so {n}", "label": n % 2 == 0} for n in range(20)]
    write_rows(tmp_path, rows, "rows.jsonl")
    seen = []

    async def script(app, pilot):
        app.context.model = base
        app.context.open("data")
        await pilot.pause()
        await press(
            app, pilot, *"rows.jsonl", "enter", "f3", *"--task kto --split-by label", "enter"
        )
        seen.append(app.context.data.read_with)
        await press(app, pilot, "enter")
        seen.append(app.screen.asked.task)

    drive(script, size=(100, 30))

    assert seen == [{"split_by": "label"}, "kto"]
