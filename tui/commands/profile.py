"""`advisor profile`: a run's facts, the rules, and recipes with findings applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from advisor import findings, recipe
from advisor.findings import Report
from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.models import model
from profiles.runs import notices, rundir
from profiles.runs import run as runs
from profiles.runs.rundir import RunDir
from profiles.runs.state import status
from tui import output, plain
from tui import report as page
from tui.terminal import look_at_terminal

JSON_SCHEMA = 1


def profile(
    text: str | None,
    *,
    as_json: bool,
    markdown: Path | None,
    apply: tuple[str, ...],
    out: Path | None,
) -> int:
    """Print the report; write it, or a changed recipe, where asked."""
    run = rundir.find(text)
    target = _out(out) if apply else None
    report = load(run)
    changed = _applied(run, report, apply) if apply else None
    if as_json:
        plain.show_json({"schema": JSON_SCHEMA, "report": report})
    elif changed is None:
        ended = page.ending(status(run))
        plain.show([ended, *page.lines(report, plain.page_width(), look_at_terminal().symbols)])
    if markdown is not None:
        output.write(markdown, page.markdown(report))
        plain.say(f"wrote {markdown}")
    if changed is not None and target is not None:
        output.write(target, changed.to_toml())
        plain.say(f"wrote {target}; start it with: advisor run {target}")
    return 0


def load(run: RunDir) -> Report:
    """Facts, prediction and findings of a run; UserError if it has no step yet."""
    facts, num_damaged = runs.from_run_dir(run)
    lacking = notices.passed_over(num_damaged)
    if facts is None:
        raise UserError(
            "there is nothing to report yet",
            why="; ".join(filter(None, ["no finished training step is recorded", lacking])),
            do="`advisor watch` shows what it does, `advisor logs` what it said",
            where=str(run.path),
            code=ExitCode.NO_INPUT,
        )
    made = recipe_of(run)
    base = model.from_folder(run.base_dir() / made.model.id)
    found = findings.report(facts, made, base)
    return replace(found, not_measured=(*found.not_measured, lacking)) if lacking else found


def recipe_of(run: RunDir) -> Recipe:
    """The recipe a run was started with."""
    return recipe.parse(run.recipe.read_text(), where=str(run.recipe))


def _out(out: Path | None) -> Path:
    if out is None:
        raise UserError(
            "--apply needs a place for the new recipe",
            why="the recipe of a run is never changed",
            do="add --out R2.toml",
            where="--apply",
            code=ExitCode.USAGE,
        )
    return out


def _applied(run: RunDir, report: Report, ids: tuple[str, ...]) -> Recipe:
    known = {f.id: f for f in report.findings if f.change}
    wrong = [i for i in ids if i not in known]
    if wrong:
        raise UserError(
            f"no finding {', '.join(wrong)} with a change",
            why=f"the report has {', '.join(known) or 'none'}",
            do="name one of these",
            where="--apply",
            code=ExitCode.USAGE,
        )
    made, base = recipe_of(run), run.base_dir()
    content = findings.patched(made, [known[i] for i in ids])
    # the new recipe may lie elsewhere than the old one, so its inputs are named in full
    held_out = made.data.eval_files
    absolute = {name: str((base / file).resolve()) for name, file in held_out.items()}
    content["model"]["id"] = str((base / made.model.id).resolve())
    content["data"]["train"] = str((base / made.data.train).resolve())
    if absolute:
        content["data"]["eval"] = absolute.get("", absolute)
    return recipe.validate(content, where=str(run.recipe))
