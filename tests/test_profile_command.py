"""`advisor profile` of a run that is over: the report, its files, a recipe with findings.

The run is that of `fixtures/v1`, moved beside a model that is read and never loaded.
"""

from __future__ import annotations

import json
import shutil
import tomllib

import pytest
from finished_run import finished_run

from profiles.models import model, written
from tests.canned_run import canned_run
from tui import plain
from tui.main import run as advisor_here


@pytest.fixture
def base(tmp_path):
    """The directory that the run was started in."""
    return tmp_path / "base"


@pytest.fixture
def finished(home, base):
    """The run under this test's home, started from `base`."""
    return finished_run(home, base)


@pytest.fixture
def call(capsys, monkeypatch):
    """Run `advisor profile` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "90")

    def called(*arguments):
        code = advisor_here(["profile", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def test_the_report_begins_with_how_the_run_ended(finished, call):
    """Then verdict and numbers; nothing is said beside it."""
    code, out, err = call(finished.id)

    rows = out.splitlines()
    assert (code, err) == (0, "")
    assert rows[0] == "finished at step 6 of 6"
    assert rows[1].startswith("model: better than the base model: evaluation loss 6.2458 -> 6.2379")
    assert "run       2026-11-22_0450_tiny_rwdxs" in rows
    assert "memory, process: peak 539.2 MiB; parts predicted at the loss backward" in rows
    assert any(row.startswith("  B14 critical: 6 evaluations took 0.4 s") for row in rows)


def test_what_was_measured_needs_no_base_model(finished, base, call):
    """Its facts are kept with the run since its start; a folder that is gone changes no word."""
    with_folder = call(finished.id)
    facts = written.to_dict(model.from_folder(base / "model"))
    manifest = json.loads(finished.manifest.read_text()) | {"model": json.loads(json.dumps(facts))}
    finished.manifest.write_text(json.dumps(manifest))
    shutil.rmtree(base / "model")

    assert call(finished.id) == with_folder


@pytest.mark.parametrize("kept", [None, 7, {}, {"id": "x"}])
def test_kept_facts_that_are_none_leave_the_folder_to_tell(finished, call, kept):
    """Of an older version, or damaged."""
    manifest = json.loads(finished.manifest.read_text()) | {"model": kept}
    finished.manifest.write_text(json.dumps(manifest))

    assert call(finished.id)[0] == 0


def test_scripts_get_json_and_nothing_else(finished, call):
    """With its schema."""
    code, out, _ = call(finished.id, "--json")

    found = json.loads(out)
    assert (code, found["schema"], set(found)) == (0, 1, {"schema", "report", "layers"})
    assert found["report"]["run"]["id"] == finished.id
    assert "verdict" in found["report"]
    assert found["layers"] == {"experts": None, "adapters": None}


def test_the_report_is_written_as_markdown_where_asked(finished, call, tmp_path):
    """And shown all the same."""
    code, out, err = call(finished.id, "--md", tmp_path / "r.md")

    assert (code, err) == (0, f"wrote {tmp_path / 'r.md'}\n")
    assert out.startswith("finished at")
    assert (tmp_path / "r.md").read_text().startswith("# Bottleneck report\n")


def test_the_report_is_written_even_if_nobody_reads_the_page(finished, call, tmp_path, monkeypatch):
    """As in `advisor profile --md r.md | head -1`: the file comes first, and is told."""

    def left(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(plain, "show", left)

    code, out, err = call(finished.id, "--md", tmp_path / "r.md")

    assert (code, out, err) == (130, "", f"wrote {tmp_path / 'r.md'}\n")
    assert (tmp_path / "r.md").is_file()


def test_a_finding_becomes_a_recipe_that_can_lie_anywhere(finished, call, base, tmp_path):
    """Inputs are named in full; the report makes way for it; the old recipe stays as it was."""
    before = finished.recipe.read_text()
    target = tmp_path / "elsewhere" / "r2.toml"
    target.parent.mkdir()

    code, out, err = call(finished.id, "--apply", "B14", "--out", target)

    made = tomllib.loads(target.read_text())
    assert (code, out) == (0, "")
    assert err == f"wrote {target}; start it with: advisor run {target}\n"
    assert made["model"]["id"] == str(base / "model")
    assert made["data"]["train"] == str(base / "orders.json")
    assert "eval" not in made["data"]
    assert (made["train"]["eval_every"], made["train"]["save_every"]) == (6, 6)
    assert (made["train"]["micro_batch"], made["method"]["rank"]) == (2, 2)
    assert finished.recipe.read_text() == before


def test_data_to_evaluate_on_is_named_in_full_too(finished, call, base, tmp_path):
    """Wherever it lies."""
    text = finished.recipe.read_text().replace("[data]\n", '[data]\neval = "held/out.json"\n')
    finished.recipe.write_text(text)

    assert call(finished.id, "--apply", "B14", "--out", tmp_path / "r2.toml")[0] == 0

    made = tomllib.loads((tmp_path / "r2.toml").read_text())
    assert made["data"]["eval"] == str(base / "held" / "out.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--apply", "B14"), "--apply needs a place for the new recipe"),
        (("--out", "r2.toml"), "--out needs a finding to apply"),
        (("--apply", "B99", "--out", "r2.toml"), "no finding B99 with a change"),
        (("--apply", "B14", "--apply", "B27", "--out", "r2.toml"), "no finding B27 with a change"),
    ],
)
def test_what_cannot_be_applied_is_refused(finished, call, arguments, words, monkeypatch, tmp_path):
    """Before anything is written; the findings that have a change are named."""
    monkeypatch.chdir(tmp_path)

    code, out, err = call(finished.id, *arguments)

    assert (code, out) == (2, "")
    assert f"error: {words}" in err
    assert "why:   the report has B14" in err or " needs " in words
    assert not (tmp_path / "r2.toml").exists()


def test_a_run_without_a_step_has_nothing_to_report(home, call):
    """Exit code 66, and where to look instead."""
    run = canned_run(done=0)

    code, out, err = call(run.id)

    assert (code, out) == (66, "")
    assert "error: there is nothing to report yet" in err
    assert str(run.path) in err
