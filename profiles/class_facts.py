"""How a model sorts rows into classes, as plain facts: records keep them, the report shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """How the rows of a set were sorted into classes; shares from 0 to 1.

    A mean over classes takes those that some row is of, or was put into. What has nothing to be
    counted in counts as 0.
    """

    precision: float
    """Of the rows that were put into a class, those that are of it; a mean over classes."""
    recall: float
    """Of the rows of a class, those that were put into it; a mean over classes."""
    macro_f1: float
    """Mean of the classes' own."""
    micro_f1: float
    """Over all rows, which is the accuracy where each has one class."""
    auc: float | None = None
    """Area under the ROC curve, that a row of a class is held to be likelier of it than another
    row: of the second of two classes, of more the mean over each against the rest. None where no
    class has both kinds of rows, and where there are too many classes."""
    names: tuple[str, ...] = ()
    """Of the classes of the table, in their order; none where there are too many for it."""
    table: tuple[tuple[int, ...], ...] = ()
    """Rows by their class, and in it by the class that they were put into."""

    @property
    def words(self) -> str:
        """Like "precision 0.812, recall 0.790, F1 0.799 (macro), 0.805 (micro), ROC-AUC 0.901"."""
        auc = "" if self.auc is None else f", ROC-AUC {self.auc:.3f}"
        f1 = f"F1 {self.macro_f1:.3f} (macro), {self.micro_f1:.3f} (micro)"
        return f"precision {self.precision:.3f}, recall {self.recall:.3f}, {f1}{auc}"
