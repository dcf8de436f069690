"""Text to token ids, and which of them are learnt: the tokenizer's side of a written example."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from profiles.data.formats.spec import Example, Message, Role, RowError
from profiles.data.new_tokens import Added
from profiles.data.rendering import Learn, Renderer, Written
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from profiles.models import chat_template
from profiles.models.chat_template import ChatTemplate, Span
from profiles.quantities import some_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE_CHARS: Final = 1 << 18
"""An encoding takes 100 bytes a token, so a longer text is not encoded at once."""
_MARK: Final = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<\uff5c[^<>\uff5c]{1,40}\uff5c>|</?\w{1,40}>|\[/?[A-Z_]{3,40}\]"
)
"""What templates write as marks of who speaks."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A written example in tokens."""

    num_tokens: int
    learnt: tuple[Span, ...]
    """First token and the one after the last of each part that is learnt."""
    pieces: tuple[Any, ...]
    """tokenizers' encodings of the text, in order."""
    starts: tuple[int, ...] = (0,)
    """Character of the text at which each piece begins."""

    @property
    def tokens(self) -> Iterator[tuple[str, Span]]:
        """Each token as the vocabulary has it, and its characters, none for a mark put before."""
        for piece, start in zip(self.pieces, self.starts, strict=True):
            for token, (first, last) in zip(piece.tokens, piece.offsets, strict=True):
                yield token, (start + first, start + last)

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        return [one for piece in self.pieces for one in piece.ids]

    def num_learnt_within(self, max_length: int | None) -> int:
        """Learnt tokens that are left at a length."""
        end = self.num_tokens if max_length is None else max_length
        return sum([max(0, min(last, end) - first) for first, last in self.learnt])


@dataclass(slots=True)
class Encoder:
    """What a model reads: its tokenizer, and its way of writing examples."""

    renderer: Renderer
    tokenizer: Tokenizer
    added: Added | None = None
    """The new tokens that the model is to learn, where any were asked for."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, renderer: Renderer) -> Encoder:
        """Of a tokenizer, whose own truncation and padding are put aside."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        closing = tokenizer.encode("").tokens[-1:]  # what it writes after every text by itself
        eos = "" if closing == [renderer.eos] else renderer.eos
        return cls(replace(renderer, special=_special(tokenizer), eos=eos), tokenizer)

    @property
    def special(self) -> frozenset[str]:
        """The tokens that stand for marks, wherever their text is found."""
        return _special(self.tokenizer)

    def encode(self, rows: Sequence[Written]) -> list[Encoded]:
        """The tokens of some rows."""
        found: list[Encoded | None] = [None] * len(rows)
        for is_chat in (False, True):
            chosen = [i for i, row in enumerate(rows) if row.is_chat == is_chat]
            short = [i for i in chosen if len(rows[i].text) <= PIECE_CHARS]
            encodings = self.tokenizer.encode_batch(
                [rows[i].text for i in short], add_special_tokens=not is_chat
            )
            for i, encoding in zip(short, encodings, strict=True):
                found[i] = _encoded(rows[i], (encoding,), (0,))
            for i in set(chosen).difference(short):
                found[i] = self._encode_giant(rows[i])
        return [one for one in found if one is not None]

    def _encode_giant(self, row: Written) -> Encoded:
        starts = _cuts(row.text)
        bounds = zip(starts, [*starts[1:], len(row.text)], strict=True)
        pieces = [
            self.tokenizer.encode(
                row.text[first:last], add_special_tokens=not (row.is_chat or first)
            )
            for first, last in bounds
        ]
        return _encoded(row, tuple(pieces), tuple(starts))

    def encode_one(self, example: Example) -> Encoded:
        """An example in tokens; RowError if the template does not take it."""
        return self.encode([self.renderer.write(example)])[0]

    def ask(self, example: Example) -> list[int]:
        """The tokens of what the last reply of an example, or its completion, answers."""
        asked = self.renderer.ask(example)
        return self.encode([asked])[0].ids

    def remarks(self) -> list[str]:
        """What of a chosen chat template does not go with the tokenizer; none of the model's own.

        Nor where no chat was written.
        """
        template = self.renderer.chats
        written = self._trial() if template is not None and template.name else None
        if template is None or written is None:
            return []
        found = []
        marks = dict.fromkeys(_MARK.findall(written.text))
        if strange := [mark for mark in marks if self.token_of(mark) is None]:
            named = some_of([f"`{printable(mark, 40)}`" for mark in strange], 8)
            found.append(
                f"the chat template {template.name} writes {named}, no tokens of this tokenizer: "
                f'the model reads them in pieces of text; its own family, or "plain", fits better'
            )
        mark, eos = written.end, self.renderer.eos
        if mark and eos and mark != eos:
            found.append(
                f"replies end with `{mark}`, as {template.name} has it, and the tokenizer's own "
                f"end is `{printable(eos, 40)}`: what serves the model must stop at `{mark}` too"
            )
        return found

    def _trial(self) -> Written | None:
        """A chat of two turns, with a system text if the template has a place for it."""
        said: tuple[Role, ...] = ("system", *("user", "assistant") * 2)
        turns = tuple([Message(role=role, content=f"a{i}") for i, role in enumerate(said)])
        for messages in (turns, turns[1:]):
            with contextlib.suppress(RowError):
                written = self.renderer.write(Example(messages=messages))
                if written.learnt:
                    return written
        return None

    def token_of(self, mark: str) -> int | None:
        """The one token as which a model reads a mark; None where it reads several."""
        token: int | None = self.tokenizer.token_to_id(mark)
        ids = list(self.tokenizer.encode(mark, add_special_tokens=False).ids)
        return token if ids == [token] else None


def _special(tokenizer: Tokenizer) -> frozenset[str]:
    added = tokenizer.get_added_tokens_decoder().values()
    return frozenset([one.content for one in added if one.special and one.content])


def _cuts(text: str) -> list[int]:
    """Where the pieces of a giant text begin: at spaces, which begin a token anyway."""
    starts = [0]
    while len(text) - starts[-1] > PIECE_CHARS:
        least = starts[-1] + 1
        space = text.rfind(" ", least, starts[-1] + PIECE_CHARS)
        starts.append(space if space >= least else starts[-1] + PIECE_CHARS)
    return starts


def _encoded(row: Written, pieces: tuple[Any, ...], starts: tuple[int, ...]) -> Encoded:
    total, learnt = sum(map(len, pieces)), []
    for first, last in row.learnt:
        begin = _token_at(first, pieces, starts) if first else 0
        end = _token_at(last, pieces, starts) if last < len(row.text) else total
        if begin < end:
            learnt.append((begin, end))
    return Encoded(total, tuple(learnt), pieces, starts)


def _token_at(char: int, pieces: tuple[Any, ...], starts: tuple[int, ...]) -> int:
    """The token that holds a character, or the next one that holds any, counted over all pieces.

    So a token across a border belongs to what comes after: of a prompt alone it would be another.
    """
    before = 0
    for index, (piece, start) in enumerate(zip(pieces, starts, strict=True)):
        is_last = index + 1 == len(starts)
        if is_last or char < starts[index + 1]:
            return before + _token_in(piece, char - start)
        before += len(piece)
    return before


def _token_in(piece: Any, char: int) -> int:
    while (token := piece.char_to_token(char)) is None:  # white space that makes no token
        char += 1
        if char >= _end_of(piece):
            return len(piece)
    return int(token)


def _end_of(piece: Any) -> int:
    """Characters that the tokens of an encoding reach."""
    return max((last for _, last in piece.offsets[-2:]), default=0)


# --- From a model's folder ----------------------------------------------------------------------


def of_folder(
    folder: str | Path,
    *,
    choose: Callable[[bool], ChatTemplate | None] | None = None,
    learn: Learn = "all",
) -> Encoder:
    """The encoder of a model folder; UserError without a tokenizer.json that can be read.

    `choose`: as a Renderer has it; None takes the folder's own template.
    """
    folder = Path(folder)

    def own(with_tools: bool) -> ChatTemplate | None:
        source = chat_template.source_of(folder, with_tools=with_tools)
        return ChatTemplate(source, chat_template.special_tokens(folder)) if source else None

    eos = chat_template.special_tokens(folder).get("eos_token", "")
    renderer = Renderer(choose or own, learn=learn, eos=eos)
    return Encoder.of(_tokenizer(folder / "tokenizer.json"), renderer)


def _tokenizer(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415 - costs 50 ms and is not always needed

    if not file.is_file():
        raise UserError(
            f"no tokenizer.json in {file.parent}",
            why="token counts need the tokenizer of the model",
            do="give the folder of the model, or leave it out for a prediction from bytes",
            where=str(file),
            code=ExitCode.NO_INPUT,
        )
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise UserError(
            "the tokenizer cannot be read",
            why=printable(str(error), 200),
            do="copy or download tokenizer.json again",
            where=str(file),
            code=ExitCode.BAD_DATA,
        ) from error
