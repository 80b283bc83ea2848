"""A report on a terminal: rich tables and lines of text, for the console to print.

Names in it were escaped by whoever read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.style import Style
from rich.table import Table
from rich.text import Text

Figure = Mapping[str, Any]
Result = Mapping[str, Any]

SHADES = " ░▒▓█"  # the share of a row in a cell of the confusion matrix, where there is no colour
TOP = 3  # of the confusions


def drawn(report: Mapping[str, Any]) -> Iterator[Table | Text]:
    """The report, result by result; several side by side at the end."""
    several = len(report["results"]) > 1
    for result in report["results"]:
        if several:
            yield Text(result["name"], "bold underline")
        yield from _result(result)
    if several:
        yield from _side_by_side(report)


def _result(result: Result) -> Iterator[Table | Text]:
    for line in result["words"]:
        yield Text(line)
    yield Text()
    if not result["images"]:
        return
    yield _table(result)
    yield Text()
    yield _matrix(result)
    yield Text()
    for one in result["confusions"][:TOP]:
        yield Text(f"{one['truth']} taken for {one['label']}: {one['count']:,} of {one['of']:,}")
    yield Text(
        f"balanced accuracy {_cell(result['balanced_accuracy'], 3)}, ROC-AUC {_cell(result['roc_auc'], 3)},"
        f" NLL {_cell(result['nll'], 3)}, Brier {_cell(result['brier'], 3)}, ECE {_cell(result['ece'], 3)}"
    )
    if chosen := result["min_confidence"]:
        yield Text(
            f"at least {chosen['min_confidence']:g} sure: {_cell(chosen['coverage'], 3)} of the images,"
            f" accuracy {_cell(chosen['accuracy'], 3)}"
        )
    if result["votes"]:
        yield from _votes(result["votes"])
    for column, values in (result["slices"] or {}).items():
        yield Text()
        yield _slices(column, values)
    if result["others"]:
        yield Text()
        yield _others(result)
    yield Text()


def _cell(figure: Figure, digits: int = 2) -> str:
    """`0.75 (0.73-0.77)`; `-` where it is undefined."""
    if figure["value"] is None:
        return "-"
    ends = figure["interval_95"]
    interval = f" ({ends[0]:.{digits}f}-{ends[1]:.{digits}f})" if ends else ""
    return f"{figure['value']:.{digits}f}{interval}"


def _plain(*columns: str, title: str | None = None) -> Table:
    """A table whose first column holds text and the others numbers."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for at, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if at else "left", overflow="fold", no_wrap=bool(at))
    return table


def _table(result: Result) -> Table:
    """The study's table with intervals; an undefined figure is the 0.00 that scikit-learn prints, and says so."""
    table = _plain("", "precision", "recall", "f1-score", "support")
    for label, one in result["labels"].items():
        figures = [one[name] for name in ("precision", "recall", "f1")]
        row = ["0.00 (undefined)" if figure["value"] is None else _cell(figure) for figure in figures]
        table.add_row(Text(label), *row, f"{one['support']:,}")
    n = f"{result['images']:,}"
    table.add_row("", "", "", "", "")
    table.add_row("accuracy", "", "", _cell(result["accuracy"]), n)
    for name in ("macro_avg", "weighted_avg"):
        row = [_cell(result[name][figure]) for figure in ("precision", "recall", "f1")]
        table.add_row(name.replace("_", " "), *row, n)
    return table


def _matrix(result: Result) -> Table:
    """Rows are truths, columns the labels given; the darker, the larger its share of the row."""
    table = _plain("truth \\ labelled", *result["labels"])
    for label, row in zip(result["labels"], result["confusion_matrix"], strict=True):
        total = sum(row)
        table.add_row(Text(label, "bold"), *(_shaded(n, n / total if total else 0.0) for n in row))
    return table


def _shaded(n: int, share: float) -> Text:
    blue = Style(bgcolor=f"rgb({int(20 + 20 * share)},{int(30 + 70 * share)},{int(45 + 150 * share)})", color="white")
    return Text(f" {n:,} {share:4.0%} {SHADES[round(share * (len(SHADES) - 1))]} ", blue)


def _votes(votes: Mapping[str, Any]) -> Iterator[Text]:
    majority, blame, spread = votes["majority"], votes["blame"], votes["distribution"]
    yield Text()
    yield Text(
        f"people: the majority's answer is the model's label for {_cell(majority['model'], 3)} of"
        f" {majority['images']:,} images, the truth for {_cell(majority['truth'], 3)}"
    )
    yield Text(
        f"people: a single tagger agrees with the model for {_cell(spread['model_share'], 3)}, with the truth for"
        f" {_cell(spread['truth_share'], 3)}; probabilities and votes overlap by {_cell(spread['overlap'], 3)}"
    )
    yield Text(
        f"whose error: {blame['truth_alone']:,} the label's (model and people agree), {blame['model_alone']:,} the"
        f" model's (truth and people agree), {blame['all_differ']:,} with three opinions"
    )


def _slices(column: str, values: Mapping[str, Any]) -> Table:
    table = _plain(column, "images", "accuracy", "balanced", "macro F1", "ECE", "", title=f"by {column}")
    for value, one in values.items():
        figures = (one["accuracy"], one["balanced_accuracy"], one["macro_avg"]["f1"], one["ece"])
        table.add_row(Text(value), f"{one['images']:,}", *map(_cell, figures), "small" if one["small"] else "")
    return table


def _others(result: Result) -> Table:
    table = _plain("none of these", "images", *result["labels"], "mean confidence")
    for name, one in result["others"].items():
        shares = (f"{share['value']:.0%}" if share["value"] is not None else "-" for share in one["labelled"].values())
        table.add_row(Text(name), f"{one['images']:,}", *shares, _cell(one["mean_confidence"]))
    return table


def _side_by_side(report: Mapping[str, Any]) -> Iterator[Table | Text]:
    table = _plain("model", "accuracy", "balanced", "macro F1", "NLL", "ECE", "parameters")
    for result in report["results"]:
        rates = result["accuracy"], result["balanced_accuracy"], result["macro_avg"]["f1"]
        figures = [_cell(figure, 3) for figure in (*rates, result["nll"], result["ece"])]
        table.add_row(Text(result["name"]), *figures, f"{result['model']['parameters']:,}" if result["model"] else "-")
    yield table
    for one in report["comparisons"]:
        difference, p_value = one["accuracy"], one["p_value"]
        if difference["value"] is None:
            continue
        low, high = difference["interval_95"]
        p_text = "< 0.0001" if p_value < 1e-4 else f"= {p_value:.2g}"
        yield Text(
            f"{one['model']} against {one['against']}: accuracy {difference['value']:+.3f} ({low:+.3f} to {high:+.3f}),"
            f" {'more' if one['more_than_chance'] else 'no more'} than chance (McNemar p {p_text});"
            f" {one['only_this_right']:,} right by the first alone, {one['only_other_right']:,} by the second alone"
        )
