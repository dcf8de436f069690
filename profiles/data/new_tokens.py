"""Tokens that a model is to learn: added to its tokenizer, with what it read their texts as before.

A token is found wherever its text stands, as it stands: no normalizer touches it, and no white
space beside it is taken. What is a token already is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KEY = "model.new_tokens"
MOST_CHARS = 100
_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class Added:
    """What came of it."""

    pieces: dict[int, tuple[int, ...]]
    """Id of each token that is new -> ids of the tokens that its text was read as."""
    known: tuple[str, ...]
    """What was a token before."""

    @property
    def least_vocabulary(self) -> int:
        """Rows that an embedding must have for all of them; 0 if none is new."""
        return max(self.pieces, default=-1) + 1

    def warnings(self) -> list[str]:
        """What to tell of those that are not new."""
        if not self.known:
            return []
        named = ", ".join(f"`{printable(text, _SHOWN_CHARS)}`" for text in self.known[:8])
        more = f" and {len(self.known) - 8} more" if len(self.known) > 8 else ""
        what = "a token of this tokenizer already: it is"
        if len(self.known) > 1:
            what = "tokens of this tokenizer already: they are"
        return [f"{KEY} names {named}{more}, {what} neither added nor trained by itself"]


def fault(texts: Sequence[str]) -> str:
    """What is wrong with a list of new tokens; empty if nothing is."""
    for text in texts:
        if not text or text != text.strip() or len(text) > MOST_CHARS:
            return (
                f"must list texts of 1 to {MOST_CHARS} characters, without white space at their "
                f"ends; {printable(text, _SHOWN_CHARS)!r} is none"
            )
    twice = [text for text in texts if texts.count(text) > 1]
    return f"names {printable(twice[0], _SHOWN_CHARS)!r} twice" if twice else ""


def add(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    add_tokens: Callable[[Any], Any] | None = None,
    known: Collection[str] = (),
) -> Added:
    """Add those that are no tokens yet, in their order.

    `add_tokens`: of what wraps the tokenizer, so that it knows of them too. `known`: tokens that
    the wrapper has beside the tokenizer's own. UserError for a text that is read as nothing.
    """
    from tokenizers import AddedToken  # noqa: PLC0415 - costs 50 ms and is not always needed

    read = {text: tuple(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts}
    old = tuple([t for t in texts if t in known or _is_token(tokenizer, t, read[t])])
    new = [text for text in texts if text not in old]
    for text in new:
        if not read[text]:
            raise _nothing(text)
    if new:
        made = [AddedToken(text, normalized=False, special=False) for text in new]
        (add_tokens or tokenizer.add_tokens)(made)
    ids = tokenizer.get_vocab()
    return Added({ids[text]: read[text] for text in new}, old)


def _is_token(tokenizer: Tokenizer, text: str, ids: tuple[int, ...]) -> bool:
    """By its text, or by what it is read as: vocabularies write a space as another character."""
    if tokenizer.token_to_id(text) is not None:
        return True
    return len(ids) == 1 and tokenizer.decode(list(ids), skip_special_tokens=False) == text


def _nothing(text: str) -> UserError:
    return UserError(
        f"{KEY} names {printable(text, _SHOWN_CHARS)!r}, which the tokenizer reads as nothing",
        why="a new token starts as the mean of what its text was read as before",
        do=f"leave it out of {KEY}, or write it with letters",
        where=KEY,
        code=ExitCode.BAD_RECIPE,
    )
