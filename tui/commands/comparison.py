"""`advisor recommend --compare`: one model on several machines."""

from __future__ import annotations

from advisor.choice import compare as comparison
from profiles.errors import ExitCode
from profiles.machines import planned
from profiles.models import find_model
from tui import plain
from tui.commands.recommend import check_prices, read_data, usage
from tui.commands.request import Request
from tui.pages import comparison as page


def compare(request: Request, machines: tuple[str, ...], *, compare: bool) -> int:
    """Print a row for each machine; exit code 71 if nothing fits on any."""
    _check(request, machines, compare=compare)
    targets = [planned.plan_machine(text) for text in machines]
    base = find_model.resolve(request.model)
    data = read_data(base, request.data, request.asked) if request.data is not None else None
    answers = request.asked.answers(data)
    found = comparison.compare(base, targets, data, answers)
    rows = comparison.rows(found, request.prices)
    if request.as_json:
        from tui.pages import recommendation_json  # noqa: PLC0415

        plain.show_json(recommendation_json.comparison(found, rows))
    else:
        plain.show(page.lines(found, rows, plain.page_width()))
    return 0 if any(row.rung for row in rows) else int(ExitCode.DRIVER)


def _check(request: Request, machines: tuple[str, ...], *, compare: bool) -> None:
    if not compare:
        raise usage(
            f"{machines[0]!r} is no option",
            why="machines are named after --compare, one by --gpu",
            do='add --compare "RTX 4090" "8x H100", or --gpu',
            where="advisor recommend",
        )
    if not machines:
        raise usage(
            "there is nothing to compare",
            why="--compare needs the names of machines",
            do='write it like --compare "RTX 4090" "1x L40S" "8x H100"',
            where="--compare",
        )
    others = {"--gpu": request.gpu, "--ram": request.ram, "--disk": request.disk}
    others |= {"--save": request.save, "--rehearse": "yes" if request.rehearse else None}
    if given := [name for name, value in others.items() if value]:
        raise usage(
            f"--compare does not go with {' and '.join(given)}",
            why="it puts several machines beside each other and writes nothing",
            do="leave one of them out",
            where="--compare",
        )
    check_prices(request.prices, len(machines))
