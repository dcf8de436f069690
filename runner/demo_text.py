"""Text for the demonstration, written for it and drawn from a seed: no data set is shipped.

The base model reads `base_lines`: messages with their gist, counting, words, never a record. The
skill to learn is in `instruction_rows`: an order message becomes a record.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

ITEMS = (
    "lamp",
    "chair",
    "table",
    "mirror",
    "kettle",
    "clock",
    "basket",
    "bottle",
    "pillow",
    "vase",
)
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "grey", "brown")
CITIES = ("Oslo", "Lyon", "Porto", "Gdansk", "Turin", "Cork", "Ghent", "Malmo", "Graz", "Bergen")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INSTRUCTION = "Turn the order into a record."
_MESSAGES = (
    "Please send {n} {c} {i} to {t}.",
    "Hello, we need {n} {c} {i} in {t}.",
    "Could you ship {n} {c} {i} to our shop in {t}?",
    "Our shop in {t} is waiting for {n} {c} {i}.",
    "{n} {c} {i} for {t}, please.",
)


def instruction_rows(num_rows: int, seed: int) -> list[dict[str, str]]:
    """Alpaca rows: an order in words, and its record."""
    draw = random.Random(seed)  # noqa: S311  # sample text, no secret
    rows = []
    for _ in range(num_rows):
        message, record = _order(draw)
        rows.append({"instruction": INSTRUCTION, "input": message, "output": _record(record)})
    return rows


def _order(draw: random.Random) -> tuple[str, dict[str, object]]:
    count, item = draw.randrange(len(NUMBERS)), draw.choice(ITEMS)
    colour, city = draw.choice(COLOURS), draw.choice(CITIES)
    words = {"n": NUMBERS[count], "c": colour, "i": _plural(item, count), "t": city}
    message = draw.choice(_MESSAGES).format(**words)
    record = {"item": item, "colour": colour, "count": count + 1, "city": city}
    return message[0].upper() + message[1:], record


def _record(values: dict[str, object]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def _plural(item: str, count: int) -> str:
    return item if count == 0 else f"{item}s"


def base_lines(num_lines: int, seed: int) -> Iterator[str]:
    """What the base model is trained on."""
    draw = random.Random(seed)  # noqa: S311
    for _ in range(num_lines):
        yield draw.choice((_gist, _gist, _gist, _gist, _counting, _words))(draw)


def _gist(draw: random.Random) -> str:
    """A message and what it is about, in bare words."""
    message, record = _order(draw)
    return f"{message} In short: {record['city']} wants {record['colour']} {record['item']}."


def _counting(draw: random.Random) -> str:
    """Number words beside their digits, one thing beside many."""
    first = draw.randrange(len(NUMBERS))
    pairs = [f"{NUMBERS[n]} is {n + 1}" for n in range(first, min(first + 4, len(NUMBERS)))]
    item = draw.choice(ITEMS)
    return f"{', '.join(pairs)}. one {item}, two {item}s."


def _words(draw: random.Random) -> str:
    """The names of a record's parts, in no order; what is never read can hardly be written."""
    names = ["item", "colour", "count", "city"]
    draw.shuffle(names)
    return f"Things have names, such as: {', '.join(names)}.\n"
