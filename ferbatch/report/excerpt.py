"""What is shown of a confusion matrix that is too large to look at: the labels that are confused most.

Standard library only, for consoles use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]  # one of report.json's results

MOST_IN_PAGES, MOST_ON_A_TERMINAL = 30, 8  # labels of a matrix
MOST_CURVES = 12  # labels of a chart that has a curve for each


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Some of a result's labels, in their order, and how many more there are."""

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]  # the confusion matrix, of these labels alone
    totals: Sequence[int]  # images of each truth, whatever they were labelled
    more: int

    @property
    def rows(self) -> Iterator[tuple[str, int, Sequence[int]]]:
        """Of each label its name, its images and its row."""
        return zip(self.labels, self.totals, self.counts, strict=True)

    @property
    def said(self) -> str:
        """A sentence that says what is left out; empty where that is nothing."""
        return f"The {len(self.labels)} labels that are confused most, of {len(self.labels) + self.more:,}." * bool(
            self.more
        )


def excerpt(result: Result, most: int = MOST_IN_PAGES) -> Excerpt:
    """All labels, or of more than `most` those with the most images mistaken for another or another's for them."""
    labels, matrix = list(result["labels"]), result["confusion_matrix"]
    totals, given = list(map(sum, matrix)), list(map(sum, zip(*matrix, strict=True)))
    mistaken = [totals[at] + given[at] - 2 * matrix[at][at] for at in range(len(labels))]
    chosen = sorted(sorted(range(len(labels)), key=lambda at: -mistaken[at])[:most])
    return Excerpt(
        [labels[at] for at in chosen],
        [[matrix[at][other] for other in chosen] for at in chosen],
        [totals[at] for at in chosen],
        len(labels) - len(chosen),
    )
