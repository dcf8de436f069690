"""Commands about a run as advice gives them: whoever follows one acts on that run and no other.

Also what a run's files say of its place, told as it is where the run lies today.
"""

from __future__ import annotations

import re
import shlex

from profiles.runs import listing, reading
from profiles.runs.rundir import RunDir, has_id, read_json

_COMMAND = re.compile(r"(`advisor [^`]* )([^ `]+)(?=`)")
"""What a run's files tell to do is about that run."""


def name_of(run: RunDir) -> str:
    """What a command takes for this run in any folder: its id, or its path if it lies elsewhere."""
    return shlex.quote(run.id) if listing.is_at_home(run) else shlex.quote(str(run.path.absolute()))


def line(verb: str, run: RunDir, *options: str) -> str:
    """Like "advisor stop --now 2026-11-22_0450_tiny_rwdxs"."""
    return " ".join(("advisor", verb, *options, name_of(run)))


def command(verb: str, run: RunDir, *options: str) -> str:
    """The same inside a sentence."""
    return f"`{line(verb, run, *options)}`"


def anew(run: RunDir, *options: str) -> str:
    """How the recipe of a run is started from its beginning, as a run of its own."""
    if not reading.is_file(run.recipe):
        return f"no {run.recipe.name} is left to start anew"
    if listing.is_at_home(run) and run.base_dir() != run.path:
        asked = " ".join(("advisor run", *options, shlex.quote(str(run.path))))
        return f"`{asked}` starts its recipe anew"
    return (
        f"copy {shlex.quote(str(run.recipe))} into the folder where its data and model lie, and "
        "start the copy with `advisor run FILE`"
    )


def going_on(run: RunDir, step: int | None) -> str:
    """What a resume does; `step` is the newest checkpoint's, which nobody has verified yet."""
    resume = command("resume", run)
    if step is None:
        return f"{resume} starts from step 0: no checkpoint was saved"
    return f"{resume} goes on from step {step}, or from an older one if that does not verify"


def of_damaged(run: RunDir) -> str:
    """What helps a run of which nothing is known: it can be neither resumed nor asked."""
    way = "; " if not reading.is_file(run.recipe) else ", or "
    return f"put its {run.manifest.name} back{way}{anew(run)}"


def told_here(run: RunDir, text: str) -> str:
    """A text from the run's files, with the place and the name that the run has today.

    It was written where the run was made, and its directory may have been moved or copied since.
    """
    manifest = read_json(run.manifest) or {}
    made, id_then = reading.place(manifest, "path"), reading.words(manifest, "id")
    if made == run.path:
        return text
    if id_then:
        place = re.escape(str(made)) if made else rf"/(?:[^\s`/]+/)*{re.escape(id_then)}"
        text = re.sub(rf"{place}(?![\w.-])", lambda _: str(run.path), text)

    def named(found: re.Match[str]) -> str:
        is_this = found[2] == id_then or has_id(found[2])
        return found[1] + (name_of(run) if is_this else found[2])

    return _COMMAND.sub(named, text)
