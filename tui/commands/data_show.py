"""`advisor data show`: rows as the model reads them, with what is learnt of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.registry.lookup import kinds_of_rows
from profiles.data import formats
from profiles.data.preview import Preview, Reader, Start
from profiles.data.rendering import Learn
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import find_model
from runner.checks import chat_templates
from tui import plain
from tui.pages import data_rows as page
from tui.pages.data import beyond
from tui.terminal import Colours, look_at_terminal
from tui.tones import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options."""

    model: str | None = None
    num_rows: int = 3
    start: str | None = None
    """A line, or "row:N"."""
    chat_template: str | None = None
    learn: Learn = "all"
    data_format: str | None = None
    max_length: int | None = None
    encoding: str | None = None
    columns: Mapping[str, str] | None = None
    clean: dict[str, bool] | None = None
    mask: tuple[str, ...] | None = None
    tokens: tuple[str, ...] = ()
    """Texts that are to become tokens of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Rows, what wrote them, and what to know of it."""

    preview: Preview
    how: str
    notes: tuple[str, ...] = ()

    def lines(self, width: int, *, unicode: bool) -> list[Line]:
        """The page."""
        return page.lines(self.preview, self.how, self.notes, width, unicode=unicode)


def show(path: str, asked: Asked, *, as_json: bool) -> int:
    """Print some rows; one that cannot be trained on is shown with the reason."""
    base = find_model.resolve(asked.model) if asked.model is not None else None
    found = look(path, base, asked)
    if as_json:
        plain.show_json(page.document(found.preview, found.how, found.notes))
        return 0
    terminal = look_at_terminal()
    lines = found.lines(plain.page_width(), unicode=terminal.unicode)
    plain.show_toned(lines, coloured=terminal.colours is not Colours.NONE)
    return 0


def look(path: str, base: Model | None, asked: Asked) -> Shown:
    """Some rows as this model reads them, or without one as a template writes them."""
    chosen = asked.chat_template and chat_templates.known(asked.chat_template)
    encoder = (
        chat_templates.encoder(base, chosen, asked.learn, tokens=asked.tokens)
        if base is not None
        else None
    )
    renderer = None
    if encoder is None and chosen is not None:
        renderer = chat_templates.renderer(chosen, asked.learn)
    reader = Reader(
        encoder=encoder,
        renderer=renderer,
        max_length=asked.max_length,
        reading={
            "format": asked.data_format,
            "encoding": asked.encoding,
            "columns": asked.columns,
            "clean": asked.clean or (),
            "mask": asked.mask or (),
            "kinds": kinds_of_rows(),
        },
    )
    preview = reader.look(path, asked.num_rows, _start(asked.start))
    how: str = "no template, for these rows are no chats"
    notes: tuple[str, ...] = ()
    if formats.by_name(preview.format).is_chat or any(row.is_chat for row in preview.rows):
        how, notes = _writer(base, chosen, has_tokenizer=encoder is not None)
    lengths = [(row.num_tokens, 1) for row in preview.rows if not row.is_refused]
    if base is not None and (told := beyond(lengths, base, asked.max_length)):
        notes = (*notes, f"of these rows {told}")
    if encoder is None:
        notes = (*notes, _missing(base))
    elif encoder.added is not None:
        notes = (*notes, *encoder.added.warnings())
    return Shown(preview=preview, how=how, notes=notes)


def _writer(
    base: Model | None, chosen: str | None, *, has_tokenizer: bool
) -> tuple[str, tuple[str, ...]]:
    """What writes chats, and what to know of that."""
    if chosen not in (None, chat_templates.CHOSEN_BY_MODEL):
        return f"the template {chosen}", ()
    if base is None or not has_tokenizer:
        return "no template: texts as the file has them", ()
    if base.has_chat_template:
        return f"the chat template of {base.id}", ()
    return "the template plain", (chat_templates.NONE_OF_ITS_OWN,)


def _missing(base: Model | None) -> str:
    """What is not known without a tokenizer."""
    missing = "without a tokenizer counts are rough, and where a row is cut is not shown"
    if base is None:
        return f"{missing}: --model MODEL shows what that model reads"
    return f"{missing}: {base.id} has no tokenizer.json on this disk; give the model's folder"


def _start(text: str | None) -> Start:
    """A number is a line, row:7 the seventh row."""
    word, mark, number = (text or "1").rpartition(":")
    if not number.isdecimal() or word not in ("", "row") or (mark and not word) or int(number) < 1:
        raise UserError(
            f"--at {text!r} is no place in a file",
            why="rows are found by the line they begin at, or counted from 1",
            do="write --at 120 for a line, --at row:7 for a row",
            where="--at",
            code=ExitCode.USAGE,
        )
    return Start(number=int(number)) if word else Start(line=int(number))
