"""Of many labels, those that are confused most."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import rich
from support import LABELS

from ferbatch.commands.label.console import _summary
from ferbatch.core.records import UNIT, ImageRef
from ferbatch.report import build, charts, pages
from ferbatch.report.excerpt import MOST_CURVES, MOST_IN_PAGES, MOST_ON_A_TERMINAL, excerpt
from ferbatch.scoring.comparison import compare
from ferbatch.scoring.outcomes import Outcomes
from ferbatch.shell.console import report_text
from ferbatch.stream.recorder import Tally

MANY = tuple(f"person {number:02}" for number in range(40))


def of_many(hits: float, seed: int = 0) -> Outcomes:
    """Each label's images, some of them taken for the next label; the last five labels are never mistaken."""
    rng, k = np.random.default_rng(seed), len(MANY)
    truth = np.repeat(np.arange(k), 6)
    said = np.where((rng.random(len(truth)) < hits) | (truth >= k - 5), truth, (truth + 1) % (k - 5))
    probabilities = np.zeros((len(truth), k), np.uint16)
    probabilities[np.arange(len(truth)), said] = UNIT
    return Outcomes(MANY, truth.astype(np.int16), said.astype(np.int16), probabilities)


def report_of(outcomes: Outcomes) -> dict[str, Any]:
    subject = build.Subject("truth", outcomes.labels, len(outcomes), dict.fromkeys(outcomes.labels, 6))
    images = [ImageRef(f"{at}.png", b"") for at in range(len(outcomes))]
    return build.build(subject, [build.System("m", images, outcomes)])


def test_all_of_few_labels_are_shown_as_they_are() -> None:
    matrix = [[5, 1, 0, 0], [0, 3, 0, 0], [2, 0, 0, 0], [0, 0, 0, 7]]
    part = excerpt({"labels": dict.fromkeys(LABELS), "confusion_matrix": matrix})
    assert (list(part.labels), part.counts, part.totals, part.said) == ([*LABELS], matrix, [6, 3, 2, 7], "")
    two = excerpt({"labels": dict.fromkeys(LABELS), "confusion_matrix": matrix}, 2)
    assert list(two.rows) == [("happy", 6, [5, 0]), ("neutral", 2, [2, 0])]
    assert two.said == "The 2 labels that are confused most, of 4."


def test_reports_of_many_labels_show_those_confused_most_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "draw", lambda *_, **__: "<svg></svg>")
    report = report_of(of_many(0.7))
    files = pages.files(report, "report")
    said = f"The {MOST_IN_PAGES} labels that are confused most, of 40."
    assert said in files["html"]
    assert said in files["md"]
    assert files["html"].count('<th scope="col">as person') == MOST_IN_PAGES
    assert "and more of 10 labels" in files["html"]
    assert "as person 39" not in files["html"]
    assert files["html"].count('<tr><th scope="row">person 39</th>') == 2  # its figures, and its curve's area
    text = report_text(report, False)
    assert f"The {MOST_ON_A_TERMINAL} labels that are confused most, of 40." in text
    assert "… and 10 more" in text
    assert len(report["results"][0]["confusion_matrix"]) == 40


def test_a_chart_of_many_labels_has_as_many_as_there_is_room_for() -> None:
    result = report_of(of_many(0.6))["results"][0]
    drawn = charts.draw("precision-recall", result)
    assert sum(name in drawn for name in MANY) == MOST_CURVES
    assert "person 39" not in drawn


def test_differences_of_models_with_many_labels_are_those_of_their_figures() -> None:
    this, other = of_many(0.8, 1), of_many(0.6, 2)
    found = compare("this", this, "other", other)
    right, also = this.correct.mean(), other.correct.mean()
    assert found.accuracy.value == pytest.approx(right - also)
    low, high = found.accuracy.interval_95 or (0, 0)
    assert low < right - also < high
    assert found.both_right + found.only_this_right + found.only_other_right + found.both_wrong == len(this)


def test_the_summary_names_the_commonest_labels_and_adds_up_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(labels=Counter({name: 5 + (at < 30) for at, name in enumerate(MANY)}))
    rich.print(_summary(tally, MANY))
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 1 + 30 + 1
    assert [rows[1][0], rows[30][0]] == [MANY[0], MANY[29]]
    assert rows[31][0] == "10 labels more"
    assert "50" in " ".join(rows[31])
