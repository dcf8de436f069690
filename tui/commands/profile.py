"""`advisor profile`: a run's facts, the rules, and recipes with findings applied."""

from __future__ import annotations

import shlex
from dataclasses import replace

from advisor import findings, recipe
from advisor.findings import Report
from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import find_model, written
from profiles.runs import advice, caveats, find_run, notices, parents, recipe_copy, rundir
from profiles.runs import run as runs
from profiles.runs.rundir import RunDir
from profiles.runs.state import status
from tui import plain
from tui import report as page
from tui.output import Kind, targets
from tui.pages import layers
from tui.terminal import look_at_terminal

JSON_SCHEMA = 1


def profile(
    text: str | None,
    *,
    as_json: bool,
    markdown: str | None,
    apply: tuple[str, ...],
    out: str | None,
    force: bool = False,
) -> int:
    """Print the report; write it, or a changed recipe, where asked."""
    _check(apply, out)
    run = find_run.find(text)
    wanted = (("--md", markdown, Kind.REPORT), ("--out", out, Kind.RECIPE))
    report_to, recipe_to = targets(*wanted, force=force, as_json=as_json)
    report = load(run)
    changed = _applied(run, report, apply) if apply else None
    told = []
    if report_to is not None:
        report_to.write(page.markdown(report))
        told.append(report_to.wrote)
    if changed is not None and recipe_to is not None:
        recipe_to.write(changed.to_toml())
        start = shlex.quote(str(recipe_to.path or "R2.toml"))
        told.append(f"{recipe_to.wrote}; start it with: advisor run {start}")
    try:
        if as_json:
            plain.show_json(
                {
                    "schema": JSON_SCHEMA,
                    "report": report,
                    "layers": layers.as_json(report.run.layers),
                }
            )
        elif changed is None and (report_to is None or report_to.path is not None):
            width = plain.page_width()
            ended = plain.wrap(page.ending(run, status(run)), width, indent="  ", first="")
            plain.show([*ended, *page.lines(report, width, look_at_terminal().symbols)])
    finally:  # its reader may leave early, as in `| head`
        for line in told:
            plain.say(line)
    return 0


def load(run: RunDir) -> Report:
    """Facts, prediction and findings of a run; UserError if it has no step yet."""
    facts, num_damaged = runs.from_run_dir(run)
    lacking = notices.passed_over(num_damaged)
    if facts is None:
        raise UserError(
            "there is nothing to report yet",
            why="; ".join(filter(None, ["no finished training step is recorded", lacking])),
            do=f"{advice.command('watch', run)} shows what it does, "
            f"{advice.command('logs', run)} what it said",
            where=str(run.path),
            code=ExitCode.NO_INPUT,
        )
    made = recipe_of(run)
    base = _model_of(run, made)
    found = findings.report(facts, made, base)
    return replace(found, not_measured=(*found.not_measured, lacking)) if lacking else found


def _model_of(run: RunDir, made: Recipe) -> Model:
    """As it was when the run was started: its folder may be gone, or hold another one."""
    caveats.refuse_without_manifest(run, "report")
    kept = written.from_dict((rundir.read_json(run.manifest) or {}).get(written.KEY))
    return kept or find_model.named(made.model.id, run.base_dir())


def recipe_of(run: RunDir) -> Recipe:
    """The recipe a run was started with."""
    return recipe.parse(recipe_copy.text_of(run), where=str(run.recipe))


def _check(apply: tuple[str, ...], out: str | None) -> None:
    """One of these options without the other is refused."""
    if apply and out is None:
        raise UserError(
            "--apply needs a place for the new recipe",
            why="the recipe of a run is never changed",
            do="add --out R2.toml",
            where="--apply",
            code=ExitCode.USAGE,
        )
    if out is not None and not apply:
        raise UserError(
            "--out needs a finding to apply",
            why="the new recipe is the run's with the change of a finding",
            do="add --apply with the id of a finding, or write the report with --md",
            where="--out",
            code=ExitCode.USAGE,
        )


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
    for key, named in (("id", made.model.id), ("adapter", made.model.adapter)):
        if named is not None and not parents.names_run(named):
            content["model"][key] = str((base / named).resolve())
    content["model"]["adapters"] = [
        named if parents.names_run(named) else str((base / named).resolve())
        for named in made.model.adapters
    ]
    trained = made.data.train
    content["data"]["train"] = (
        str((base / trained).resolve())
        if isinstance(trained, str)
        else [{"file": str((base / one.file).resolve()), "weight": one.weight} for one in trained]
    )
    if absolute:
        content["data"]["eval"] = absolute.get("", absolute)
    return recipe.validate(content, where=str(run.recipe))
