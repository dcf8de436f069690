"""`advisor data check`: data files row by row, and held-out rows that are also trained on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from advisor.registry.lookup import kinds_of_rows
from profiles.data import dataset, formats
from profiles.data.dataset import Inspected, OnBad
from profiles.data.encoding import Encoder
from profiles.data.rendering import Learn
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Model
from profiles.models import find_model
from profiles.quantities import count_text, percent_text
from runner.checks import chat_templates
from tui import plain
from tui.pages import data as page

_SHOWN_FROM_BYTES = 20_000_000
"""Smaller files are done before a person looks for progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options that hold for every file."""

    data_format: str | None = None
    model: str | None = None
    max_length: int | None = None
    chat_template: str | None = None
    learn: Learn = "all"
    on_bad: OnBad = "error"
    encoding: str | None = None
    columns: Mapping[str, str] | None = None
    clean: dict[str, bool] | None = None
    mask: tuple[str, ...] | None = None
    tokens: tuple[str, ...] = ()
    """Texts that are to become tokens of the model."""
    split_by: str | None = None


@dataclass(slots=True, kw_only=True)
class _Result:
    """A file: what was found, or why it cannot be used."""

    path: str
    found: Inspected | None = None
    error: UserError | None = None

    @property
    def code(self) -> int:
        """The exit code of this file alone."""
        if self.error is not None:
            return int(self.error.code)
        assert self.found is not None
        return int(ExitCode.BAD_DATA if self.found.dataset.problem else ExitCode.FINISHED)


def check(files: Sequence[str], held_out: str | None, asked: Asked, *, as_json: bool) -> int:
    """Print what the files hold; the code is that of the first file that cannot be used."""
    base = _base(asked)
    results = [_look(file, asked, base) for file in files]
    evaluation = _look(held_out, asked, base, is_held_out=True) if held_out is not None else None
    if as_json:
        _show_json(results, evaluation)
    else:
        _show(results, evaluation)
    looked = [*results, *([evaluation] if evaluation else [])]
    return next((result.code for result in looked if result.code), int(ExitCode.FINISHED))


def _base(asked: Asked) -> Model | None:
    if asked.chat_template is not None:
        chat_templates.known(asked.chat_template)
    base = find_model.resolve(asked.model) if asked.model is not None else None
    if base is not None and base.path is None:
        plain.say(f"{base.id} is not on this disk: its tokens are estimated from characters")
    return base


def _look(path: str, asked: Asked, base: Model | None, *, is_held_out: bool = False) -> _Result:
    progress = _progress(path)
    try:
        encoder = _encoder(base, asked)
        found = dataset.inspect(
            path,
            format=asked.data_format,
            encoder=encoder,
            max_length=asked.max_length,
            on_bad=asked.on_bad,
            encoding=asked.encoding,
            columns=asked.columns,
            clean=asked.clean or (),
            mask=asked.mask or (),
            split_by=None if is_held_out else asked.split_by,
            progress=progress,
            kinds=kinds_of_rows(),
        )
    except UserError as error:
        return _Result(path=path, error=error)
    finally:
        if progress is not None:
            sys.stderr.write("\r\033[K")
    data = _seen_with(base, asked, found.dataset, is_held_out=is_held_out)
    if encoder is not None and encoder.added is not None:
        data = replace(data, warnings=(*encoder.added.warnings(), *data.warnings))
    return _Result(path=path, found=replace(found, dataset=data))


def _seen_with(base: Model | None, asked: Asked, data: Dataset, *, is_held_out: bool) -> Dataset:
    """What is to be said of it beside what is in it."""
    warnings = list(data.warnings)
    if base is not None and data.tokens:
        beyond = page.beyond(data.tokens.lengths, base, asked.max_length)
        warnings += [beyond] if beyond else []
    lacks_template = base is not None and base.path is not None and not base.has_chat_template
    lacks_template = lacks_template and asked.chat_template is None
    if lacks_template and formats.by_name(data.format).is_chat:
        warnings.insert(0, chat_templates.NONE_OF_ITS_OWN)
    divided = asked.split_by is not None and not is_held_out
    read_with = {"split_by": asked.split_by} if divided else {}
    return replace(data, warnings=tuple(warnings), read_with=read_with)


def _encoder(base: Model | None, asked: Asked) -> Encoder | None:
    if base is None:
        return None
    return chat_templates.encoder(base, asked.chat_template, asked.learn, tokens=asked.tokens)


def _progress(path: str) -> Callable[[int, float], None] | None:
    """A line that is written over, for a person who waits at a terminal."""
    try:
        is_large = Path(path).stat().st_size >= _SHOWN_FROM_BYTES
    except (OSError, ValueError):
        return None
    if not is_large or not sys.stderr.isatty():
        return None

    def tell(num_rows: int, share: float) -> None:
        sys.stderr.write(f"\r{count_text(num_rows)} rows, {percent_text(share)} ")
        sys.stderr.flush()

    return tell


def _show(results: list[_Result], evaluation: _Result | None) -> None:
    width = plain.page_width()
    looked = [*results, *([evaluation] if evaluation else [])]
    for number, result in enumerate(looked):
        gap = [""] if number else []
        if result.found is not None:
            data = result.found.dataset
            plain.show([*gap, *page.lines(data, width), "", *page.verdict(data, width)])
        elif result.error is not None:
            plain.say("\n".join([*gap, *plain.error_lines(result.error, width)]))
    for result in results:
        if evaluation and evaluation.found and result.found:
            leak = evaluation.found.leaks_from(result.found)
            held_out = evaluation.found.dataset
            plain.show(["", *page.leak_lines(leak, result.path, held_out, width)])


def _show_json(results: list[_Result], evaluation: _Result | None) -> None:
    """One file gives its facts; several, or an --eval, give a list and the leaks."""
    files = [_jsonable(result) for result in results]
    if len(results) == 1 and evaluation is None:
        plain.show_json(files[0])
        return
    shown: dict[str, object] = {"files": files}
    if evaluation is not None:
        shown["eval"] = _jsonable(evaluation)
        shown["leaks"] = [
            evaluation.found.leaks_from(result.found) if evaluation.found and result.found else None
            for result in results
        ]
    plain.show_json(shown)


def _jsonable(result: _Result) -> object:
    if result.error is not None:
        return {"error": result.error.as_dict()}
    assert result.found is not None
    data = result.found.dataset
    return plain.jsonable(data) | {"counts": data.tokens.counts if data.tokens else None}
