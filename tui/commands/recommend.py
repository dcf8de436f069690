"""`advisor recommend`: facts in, the page or JSON out, the recipe saved if asked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from advisor.choice import checks
from advisor.choice import recommend as advice
from advisor.choice.recommend import Recommendation
from advisor.registry.lookup import kinds_of_rows
from profiles import installation
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Machine, Model
from profiles.machines import machine
from profiles.models import find_model
from tui import plain
from tui.commands.request import Asked, Request
from tui.pages import recommendation as page
from tui.terminal import look_at_terminal

if TYPE_CHECKING:
    from runner.rehearsal.results import Rehearsed
    from tui.output import Target


def recommend(request: Request) -> int:
    """Print the recommendation; exit code 71 if nothing fits."""
    _check(request)
    place = _place(request)
    aside = place is not None and place.path is None
    base = find_model.resolve(request.model)
    target = _target(request)
    if request.rehearse and base.unmodelled:
        from tui.commands import rehearse  # noqa: PLC0415

        return rehearse.unmodelled(base, target, request, aside=aside)
    found = find(base, request.data, target, request.asked)
    rehearsed = _rehearsed(found, request)
    try:
        told = _save(found, place) if place is not None else []
    except UserError:
        if not request.as_json:  # that is one document, and the error's
            _show(found, rehearsed, request, aside=aside)
        raise
    try:
        _show(found, rehearsed, request, aside=aside)
    finally:  # the page's reader may leave early, as in `| head`
        for line in told:
            plain.say(line)
    cannot = found.rung is None or (place is not None and found.runnable is None)
    return int(ExitCode.DRIVER) if cannot else 0


def _place(request: Request) -> Target | None:
    """Where the recipe goes, refused before anything is worked out in vain."""
    if request.save is None:
        return None
    from tui import output  # noqa: PLC0415  # only when a recipe is wanted

    wanted = ("--save", request.save, output.Kind.RECIPE)
    return output.targets(wanted, force=request.force, as_json=request.as_json)[0]


def _save(found: Recommendation, place: Target) -> list[str]:
    """Write the recipe of what runs, if anything does; returns what to say of it."""
    if found.runnable is None:
        return [f"no recipe was written: {found.detour or 'this version runs nothing that fits'}"]
    from tui.commands import save  # noqa: PLC0415  # pydantic, only when a recipe is wanted

    save.write(found, place)
    return save.told(found, place)


def _rehearsed(found: Recommendation, request: Request) -> Rehearsed | None:
    """Level 2 of the estimate, if it is wanted."""
    if not request.rehearse:
        return None
    from tui.commands import rehearse  # noqa: PLC0415

    return rehearse.of(found)


def _show(
    found: Recommendation, rehearsed: Rehearsed | None, request: Request, *, aside: bool
) -> None:
    price = request.prices[0] if request.prices else None
    if request.as_json:
        from tui.pages import recommendation_json  # noqa: PLC0415

        plain.show_json(recommendation_json.document(found, rehearsed, price=price))
        return
    shown = page.Shown(explained=request.explain, rehearsed=rehearsed, price=price)
    lines = page.lines(found, plain.page_width(), look_at_terminal().symbols, shown)
    plain.show(lines, aside=aside)


def _check(request: Request) -> None:
    """What contradicts itself is refused before anything is read."""
    if request.save is not None and request.data is None:
        raise usage(
            "a recipe needs data",
            why="--save writes a recipe that can be run",
            do="add --data FILE",
            where="--save",
        )
    sizes = {"--ram": request.ram, "--disk": request.disk}
    if request.gpu is None and (given := [name for name, size in sizes.items() if size]):
        raise usage(
            f"{' and '.join(given)} without --gpu",
            why="the machine that this runs on was looked at, and has the RAM and disk that it has",
            do='name the machine that they are of: --gpu "8x H100" --ram 480G',
            where=given[0],
        )
    check_prices(request.prices, 1)


def check_prices(prices: tuple[float, ...], num_machines: int) -> None:
    """One price for each machine, or none at all; UserError for anything else."""
    if prices and len(prices) != num_machines:
        machines = "1 machine" if num_machines == 1 else f"{num_machines} machines"
        raise usage(
            f"{len(prices)} prices for {machines}",
            why="--price is what one whole machine costs per hour",
            do="give one --price for each machine, in their order",
            where="--price",
        )
    wrong = [price for price in prices if not math.isfinite(price) or price < 0]
    if wrong:
        raise usage(
            f"a price of {wrong[0]:g} cannot be",
            why="a machine costs nothing or more",
            do="write it like --price 1.10",
            where="--price",
        )


def usage(what: str, *, why: str, do: str, where: str) -> UserError:
    """An error of whoever typed the command."""
    return UserError(what, why=why, do=do, where=where, code=ExitCode.USAGE)


def _target(request: Request) -> Machine:
    """The planned machine, of which nothing is looked up here, or the one we are on."""
    if request.gpu is None:
        return machine.probe(installation.home())
    from profiles.machines import planned  # noqa: PLC0415  # reads the table only if it is asked for

    return planned.plan_machine(request.gpu, ram=request.ram, disk=request.disk)


def find(base: Model, data_file: str | None, target: Machine, asked: Asked) -> Recommendation:
    """Collect the facts and ask the advisor."""
    checks.check(base, target, None, asked.answers())  # before minutes go into a large file
    data = read_data(base, data_file, asked) if data_file is not None else None
    return advice.recommend(base, target, data, asked.answers(data))


def read_data(base: Model, data_file: str, asked: Asked) -> Dataset:
    """The data, counted with the model's tokenizer where the model lies on this disk."""
    from profiles.data import dataset  # noqa: PLC0415  # the tokenizer library loads with it
    from runner.checks import chat_templates  # noqa: PLC0415

    options = dict(asked.read_with)
    template, learn = options.pop("chat_template", None), options.pop("learn", "all")
    if template is not None:
        chat_templates.known(template)
    found = dataset.check(
        data_file,
        encoder=chat_templates.encoder(base, template, learn),
        max_length=asked.seq_len,
        kinds=kinds_of_rows(asked.task),
        count_up_to_bytes=dataset.COUNTED_WHILE_WAITING_BYTES,
        **options,
    )
    return replace(found, read_with=asked.read_with)
