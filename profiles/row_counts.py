"""What a model reads and learns of the rows of a file, in numbers and in words.

One count for check, recommendation, run and report: they tell the same rows with the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from profiles.quantities import count_text, percent_text


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Of rows that are cut at one length."""

    num_rows: int
    num_dropped: int = 0
    """Rows among them of which nothing is learnt at that length: they are left out."""
    num_cut: int = 0
    """Rows among the others that are longer."""
    num_tokens: int = 0
    """Of the rows that are not left out, as far as they are read, and"""
    num_learnt: int = 0
    """those among them that the loss is taken on."""

    def __add__(self, other: RowCounts) -> RowCounts:
        """Of two lots of rows."""
        both = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return RowCounts(**both)

    @classmethod
    def none(cls) -> RowCounts:
        """Of no rows."""
        return cls(num_rows=0)

    def expected_of(self, num_rows: int) -> RowCounts:
        """Of another number of rows like these."""
        of = max(1, self.num_rows)
        return RowCounts(
            **{f.name: round(getattr(self, f.name) * num_rows / of) for f in fields(self)}
        )

    @property
    def learnt_share(self) -> float:
        """Of the tokens, those that are learnt."""
        return self.num_learnt / max(1, self.num_tokens)

    @property
    def words(self) -> str:
        """Like "3 201 tokens, 1 203 of them learnt (38 %)"."""
        learnt = f"{count_text(self.num_learnt)} of them learnt ({percent_text(self.learnt_share)})"
        return f"{count_text(self.num_tokens)} tokens, {learnt}"

    def losses(self, limit: str = "") -> str:
        """What is lost of the rows, as a sentence; empty for nothing.

        `limit`: what cuts them, like "max_length 512"; empty where nothing does.
        """
        rows, told = f" of {count_text(self.num_rows)} rows", []
        if self.num_cut:
            told.append(f"{count_text(self.num_cut)}{rows} are cut at {limit}")
            rows = " more"
        if self.num_dropped:
            limit = "it" if told else limit
            lost = f"{count_text(self.num_dropped)}{rows} are left out, for nothing is learnt"
            told.append(f"{lost} within {limit}" if limit else f"{lost} of them")
        return "; ".join(told)
