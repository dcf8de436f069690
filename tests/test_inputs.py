"""A person is asked about each file outside the recipe's folder, and every answer counts."""

from __future__ import annotations

import click
import pytest
from small_model import recipe_text

from advisor import recipe as recipes
from profiles import paths
from profiles.errors import ExitCode, UserError
from tui.commands import inputs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the recipe lies; the person works there."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """Two files of data in another folder."""
    files = [tmp_path / "other" / name for name in ("train.json", "eval.json")]
    files[0].parent.mkdir()
    for file in files:
        file.write_text("[]")
    return files


@pytest.fixture
def person(monkeypatch):
    """Give the answers of a person at a terminal; returns what was asked."""
    said = []

    def answers(*given):
        left = iter(given)
        monkeypatch.setattr(inputs.asking, "can_ask", lambda: True)
        monkeypatch.setattr(inputs.plain, "say", said.append)

        def confirm(_question, *, default, err):
            assert (default, err) == (False, True), "no answer is no, and stdout is for data"
            answer = next(left)
            if answer is None:
                raise click.Abort
            return answer

        monkeypatch.setattr(inputs.asking.click, "confirm", confirm)
        return said

    return answers


def accept(place, elsewhere, *set_keys, **more):
    """Judge a recipe that trains on one file and evaluates on the other."""
    train, held_out = elsewhere
    text = recipe_text(train=str(train)).replace("[data]\n", f'[data]\neval = "{held_out}"\n')
    recipe = recipes.parse(text, where="r.toml")
    inputs.accept(recipe, place / "r.toml", place, set_keys, **{"allow_outside": False} | more)


def test_yes_to_each_file_is_remembered(place, elsewhere, person):
    """The next time nobody is asked."""
    said = person(True, True)

    accept(place, elsewhere)
    accept(place, elsewhere)

    assert said == [
        f"the recipe reads {file}, which lies outside its own folder" for file in elsewhere
    ]


@pytest.mark.parametrize("answers", [(True, False), (False, True), (True, None)])
def test_one_no_refuses_the_recipe(place, elsewhere, person, answers):
    """And nothing is remembered, not even the yes; ctrl-c is a no."""
    person(*answers)

    with pytest.raises(UserError) as caught:
        accept(place, elsewhere)

    assert caught.value.code is ExitCode.REFUSED
    assert paths.unanswered(elsewhere, place) == elsewhere


def test_what_was_named_by_hand_is_not_asked_about(place, elsewhere, person):
    """The other file is."""
    said = person(True)

    accept(place, elsewhere, "data.eval")

    assert [line.split()[3] for line in said] == [f"{elsewhere[0]},"]


def test_where_all_is_allowed_nobody_is_asked(place, elsewhere, person):
    """And nothing is remembered for another time."""
    said = person()

    accept(place, elsewhere, allow_outside=True)

    assert said == []
    assert paths.unanswered(elsewhere, place) == elsewhere


def test_without_a_terminal_the_first_file_is_named(place, elsewhere, monkeypatch):
    """A script is told what to add."""
    monkeypatch.setattr(inputs.plain, "say", lambda _: pytest.fail("a question"))

    with pytest.raises(UserError, match=str(elsewhere[0])) as caught:
        accept(place, elsewhere)

    assert "--allow-outside" in caught.value.do


def test_asking_needs_both_ends_of_a_terminal(monkeypatch):
    """The question goes to one, the answer comes from the other."""
    able = []
    for stdin, stderr in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr("sys.stdin", type("Stream", (), {"isatty": lambda _s, v=stdin: v})())
        monkeypatch.setattr("sys.stderr", type("Stream", (), {"isatty": lambda _s, v=stderr: v})())
        able.append(inputs.asking.can_ask())

    assert able == [True, False, False]


def test_what_was_started_is_known_wherever_it_is_replayed_from(place, elsewhere, tmp_path):
    """Data and model."""
    text = recipe_text(train=str(elsewhere[0]), model=str(tmp_path / "model"))

    inputs.remember(recipes.parse(text, where="r.toml"), place)

    assert paths.unanswered([*elsewhere, tmp_path / "model"], place) == [elsewhere[1]]
