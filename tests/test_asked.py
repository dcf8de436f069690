"""What `advisor recommend` takes from its command line to the advisor and to the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from known import HOST, dataset, model
from small_model import small_model

from advisor.registry.lookup import kinds_of_rows
from profiles.data import dataset as datasets
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin
from tui.commands import recommend as command
from tui.commands.recommend import Asked


def given(answers):
    """Value and origin of each answer."""
    names = ("task", "complexity", "critical", "value", "quality", "seq_len", "effective_batch")
    found = {name: getattr(answers, name) for name in names}
    return {
        name: (answer.value, answer.origin) if answer else None for name, answer in found.items()
    }


def test_what_nobody_answered_has_a_default_that_is_told_as_one():
    """A task of medium complexity, not critical, good value, nearly full quality."""
    assert given(Asked().answers()) == {
        "task": ("sft", Origin.DEFAULT),
        "complexity": ("medium", Origin.DEFAULT),
        "critical": (False, Origin.DEFAULT),
        "value": (True, Origin.DEFAULT),
        "quality": (True, Origin.DEFAULT),
        "seq_len": None,
        "effective_batch": None,
    }


def test_what_a_person_answered_is_theirs():
    """Also where it is what would have been assumed."""
    asked = Asked(
        task="classify",
        complexity="medium",
        critical=False,
        value=False,
        quality=True,
        seq_len=512,
        effective_batch=8,
    )

    assert given(asked.answers()) == {
        "task": ("classify", Origin.USER),
        "complexity": ("medium", Origin.USER),
        "critical": (False, Origin.USER),
        "value": (False, Origin.USER),
        "quality": (True, Origin.USER),
        "seq_len": (512, Origin.USER),
        "effective_batch": (8, Origin.USER),
    }


def test_data_is_counted_by_the_models_tokenizer_as_long_as_a_person_waits(monkeypatch, tmp_path):
    """Rows longer than asked are counted too."""
    asked = []
    monkeypatch.setattr(
        datasets, "check", lambda path, **options: asked.append((path, options)) or dataset()
    )
    folder = small_model(tmp_path / "model")
    base = model(path=str(folder))

    command.read_data(base, "rows.json", Asked(seq_len=77))
    (folder / "tokenizer.json").unlink()
    command.read_data(base, "rows.json", Asked())
    command.read_data(model(path=None), "rows.json", Asked())

    limit = {
        "count_up_to_bytes": datasets.COUNTED_WHILE_WAITING_BYTES,
        "kinds": kinds_of_rows(),
    }
    encoders = [options.pop("encoder") for _, options in asked]
    assert [encoder is not None for encoder in encoders] == [True, False, False]
    assert asked == [
        ("rows.json", {"max_length": 77} | limit),
        ("rows.json", {"max_length": None} | limit),
        ("rows.json", {"max_length": None} | limit),
    ]


def test_what_cannot_be_is_refused_before_the_data_is_read(monkeypatch):
    """A large file takes minutes."""
    monkeypatch.setattr(command, "read_data", lambda *_: pytest.fail("read"))

    with pytest.raises(UserError, match="rows of 0 tokens"):
        command.find(model(), "rows.json", HOST, Asked(seq_len=0))


@pytest.mark.parametrize(
    ("prices", "machines", "words"),
    [
        ((1.0,), 2, "1 prices for 2 machines"),
        ((1.0, 2.0), 1, "2 prices for 1 machine$"),
        ((float("inf"),), 1, "a price of inf cannot be"),
        ((0.0, -0.5), 2, "a price of -0.5 cannot be"),
    ],
)
def test_a_price_for_each_machine_or_none(prices, machines, words):
    """Nothing is a price, less than nothing is none."""
    command.check_prices((), machines)
    command.check_prices((0.0,) * machines, machines)

    with pytest.raises(UserError, match=words) as caught:
        command.check_prices(prices, machines)

    assert (caught.value.code, caught.value.where) == (ExitCode.USAGE, "--price")


def test_a_recipe_needs_data_and_a_page_needs_none(monkeypatch):
    """It is said before anything is looked at."""
    monkeypatch.setattr(command.find_model, "resolve", lambda _name: pytest.fail("looked at"))
    request = command.Request(model="m", data=None, gpu=None, asked=Asked(), save=Path("r.toml"))

    with pytest.raises(UserError, match="a recipe needs data"):
        command.recommend(request)


@pytest.mark.parametrize("form", [["--json"], []])
def test_a_price_is_on_the_page_and_in_the_json(form, capsys):
    """Of the whole machine."""
    from tui.main import run

    name = "meta-llama/Llama-3.1-8B-Instruct"
    assert run(["recommend", "--model", name, "--gpu", "L4", "--price", "1.25", *form]) == 0

    out = capsys.readouterr().out
    assert ('"price_per_hour": 1.25' in out) == bool(form)
    assert ("at 1.25 per hour" in out) == (not form)
