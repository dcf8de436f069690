"""A recommendation saved as a recipe: paths, downloads, what is said; files written whole."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from known import dataset, model
from made_up import pick, recommendation

from advisor.choice.answers import Answers
from advisor.choice.recommend import recommend
from advisor.recipe import parse
from profiles import paths
from profiles.errors import ExitCode, UserError
from profiles.machines import planned
from tui import output
from tui.commands import save
from tui.output import Kind, Target


def found(tmp_path, **changes):
    """What is recommended for data and a model below `tmp_path`."""
    base = model("qwen2.5-0.5b", **({"path": str(tmp_path / "model")} | changes))
    data = replace(dataset(), path=str(tmp_path / "data" / "rows.json"))
    return recommend(base, planned.plan_machine("RTX 4090"), data, Answers())


def at(path):
    """A place for a recipe, found free."""
    return output.target(str(path), Kind.RECIPE, force=False)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder without links in its name."""
    folder = tmp_path.resolve()
    monkeypatch.chdir(folder)
    return folder


def test_a_recipe_names_what_lies_below_it_by_relative_paths(place):
    """They can move together; what lies elsewhere is named in full."""
    save.write(found(place), at(place / "r.toml"))
    (place / "sub").mkdir()
    save.write(found(place), at("sub/r.toml"))

    beside = parse((place / "r.toml").read_text(), where="r")
    below = parse((place / "sub" / "r.toml").read_text(), where="r")
    assert (beside.model.id, beside.data.train) == ("model", "data/rows.json")
    assert (below.model.id, below.data.train) == (
        str(place / "model"),
        str(place / "data" / "rows.json"),
    )


def test_a_model_that_is_not_here_keeps_its_name(place):
    """It is downloaded to where the recipe looks for it."""
    save.write(found(place, id="org/name", path=None), at(place / "r.toml"))

    assert parse((place / "r.toml").read_text(), where="r").model.id == "org/name"


def test_what_a_run_has_published_keeps_its_name(place):
    """So that the parent is known, and is looked for where runs are."""
    save.write(found(place, id="run:abcde"), at(place / "r.toml"))

    assert parse((place / "r.toml").read_text(), where="r").model.id == "run:abcde"


def test_what_was_recommended_is_not_asked_about_again(tmp_path, place):
    """The person named data and model by hand."""
    (tmp_path / "data").mkdir()
    other = tmp_path / "recipes"
    other.mkdir()
    os.chdir(other)
    named = [tmp_path / "data" / "rows.json", tmp_path / "model"]
    assert paths.unanswered(named, other) == [path.resolve() for path in named]

    save.write(found(tmp_path), at(other / "r.toml"))

    assert paths.unanswered(named, other) == []


HERE = model(path="/models/m")
AWAY = model(id="org/name", path=None)
SAME = pick(rung="lora", why="")


@pytest.mark.parametrize(
    ("base", "runnable", "expected"),
    [
        (HERE, SAME, ["wrote a b/r.toml; start it with: advisor run 'a b/r.toml'"]),
        (
            HERE,
            pick(),
            [
                "wrote a b/r.toml: QLoRA 4-bit rank 8, about 12.0 GiB at the peak",
                "start it with: advisor run 'a b/r.toml'",
            ],
        ),
        (
            AWAY,
            SAME,
            [
                "wrote a b/r.toml",
                "before it can run, its model must be downloaded:",
                "  hf download org/name --local-dir 'a b/org/name'",
                "then start it with: advisor run 'a b/r.toml'",
            ],
        ),
        (
            AWAY,
            pick(),
            [
                "wrote a b/r.toml: QLoRA 4-bit rank 8, about 12.0 GiB at the peak",
                "before it can run, its model must be downloaded:",
                "  hf download org/name --local-dir 'a b/org/name'",
                "then start it with: advisor run 'a b/r.toml'",
            ],
        ),
    ],
)
def test_what_is_said_of_a_saved_recipe(base, runnable, expected):
    """How to start it, and what comes first; what it holds where that is not what was shown."""
    answer = recommendation(model=base, runnable=runnable)

    place = Target(kind=Kind.RECIPE, path=Path("a b/r.toml"))

    assert save.told(answer, place) == expected


def test_a_recipe_on_standard_output_gets_a_name_later():
    """Nobody knows it yet; the download lies beside it."""
    place = Target(kind=Kind.RECIPE, path=None)

    assert save.told(recommendation(model=HERE, runnable=SAME), place) == [
        "wrote the recipe to standard output; start it with: advisor run R.toml"
    ]
    assert save.told(recommendation(model=AWAY, runnable=SAME), place)[2:] == [
        "  hf download org/name --local-dir org/name",
        "then start it with: advisor run R.toml",
    ]


def test_a_model_of_the_hub_must_be_downloaded_before_a_run(tmp_path):
    """One that is there passes, and so does a name that nobody knows: the next check tells."""
    known = "meta-llama/Llama-3.1-8B-Instruct"
    save.check_downloaded("no/such-model", tmp_path)
    with pytest.raises(UserError, match="is not on this disk") as caught:
        save.check_downloaded(known, tmp_path)
    assert caught.value.code is ExitCode.NO_INPUT
    assert caught.value.do == f"hf download {known} --local-dir {tmp_path / known}"

    (tmp_path / known).mkdir(parents=True)
    save.check_downloaded(known, tmp_path)


def test_only_a_model_with_weights_can_be_launched(tmp_path):
    """A plan needs none."""
    save.download_first(HERE, tmp_path)

    with pytest.raises(UserError, match="org/name is not on this disk"):
        save.download_first(AWAY, tmp_path)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_that_was_asked_for_belongs_to_the_person(tmp_path, mask, mode):
    """Their own umask decides who may read it, and stays as it was."""
    before = os.umask(mask)
    try:
        at(tmp_path / "r.md").write("text é")
        kept = os.umask(mask)
    finally:
        os.umask(before)

    assert (tmp_path / "r.md").read_text(encoding="utf-8") == "text é"
    assert stat.S_IMODE((tmp_path / "r.md").stat().st_mode) == mode
    assert kept == mask
