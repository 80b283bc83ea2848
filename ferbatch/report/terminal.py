"""A report on a terminal: rich tables and lines of text, for the console to print.

Names in it were escaped by whoever read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.style import Style
from rich.table import Table
from rich.text import Text

from ferbatch.core.names import count
from ferbatch.report.excerpt import MOST_IN_PAGES, MOST_ON_A_TERMINAL, Result, excerpt

Measure = Mapping[str, Any]  # as report.json has it

SHADES = " .:*#"  # shares of a row, where a cell of the confusion matrix has no colour
MORE_CONFUSIONS = 3  # named after the commonest one


def render(report: Mapping[str, Any], *, coloured: bool) -> Iterator[Table | Text]:
    """The report: several results side by side, if there are several, then each by itself."""
    several = len(report["results"]) > 1
    if several:
        yield from _side_by_side(report)
    for result in report["results"]:
        if several:
            yield Text()
            yield Text(result["name"], "bold underline")
        yield from _result(result, coloured)


def _result(result: Result, coloured: bool) -> Iterator[Table | Text]:
    """One result: sentences, tables, then what votes, slices and other classes say."""
    for line in result["words"]:
        yield Text(line)
    yield Text()
    if not result["images"]:
        return
    yield _table(result)
    yield Text()
    yield _matrix(result, coloured)
    if left_out := excerpt(result, MOST_ON_A_TERMINAL).said:
        yield Text(left_out)
    yield Text()
    if next_ones := result["confusions"][1 : 1 + MORE_CONFUSIONS]:
        said = (f"{one['truth']} taken for {one['label']} ({one['count']:,} of {one['of']:,})" for one in next_ones)
        yield Text(f"next: {', '.join(said)}")
    yield Text(
        f"balanced accuracy {_cell(result['balanced_accuracy'], 3)}, ROC-AUC {_cell(result['roc_auc'], 3)},"
        f" NLL {_value(result['nll'])}, Brier {_value(result['brier'])}, ECE {_value(result['ece'])}"
        f" (by chance {_value(result['ece_by_chance'])})"
    )
    if chosen := result["min_confidence"]:
        yield Text(
            f"labels at least {chosen['min_confidence']:g} sure: {_percent(chosen['coverage'])} of them,"
            f" right for {_percent(chosen['accuracy'])}"
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


def _cell(measure: Measure, digits: int = 2) -> str:
    """`0.75 (0.73-0.77)`; `-` where it is undefined."""
    if measure["value"] is None:
        return "-"
    ends = measure["interval_95"]
    interval = f" ({ends[0]:.{digits}f}-{ends[1]:.{digits}f})" if ends else ""
    return f"{measure['value']:.{digits}f}{interval}"


def _value(measure: Measure) -> str:
    return "-" if measure["value"] is None else f"{measure['value']:.3f}"


def _percent(measure: Measure) -> str:
    """`74.8 % (73.1-76.5)`; `-` where it is undefined."""
    if measure["value"] is None:
        return "-"
    ends = measure["interval_95"]
    return f"{100 * measure['value']:.1f} %" + (f" ({100 * ends[0]:.1f}-{100 * ends[1]:.1f})" if ends else "")


def _plain(*columns: str) -> Table:
    """A table whose first column holds text and the others numbers."""
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if index else "left", no_wrap=True)
    return table


def _table(result: Result) -> Table:
    """The study's table with intervals; an undefined measure is the 0.00 that scikit-learn prints, and says so."""
    table = _plain("", "precision", "recall", "f1-score", "support")
    part = excerpt(result, MOST_IN_PAGES)
    for label in part.labels:
        one = result["labels"][label]
        measures = [one[name] for name in ("precision", "recall", "f1")]
        row = ["0.00 (undefined)" if measure["value"] is None else _cell(measure) for measure in measures]
        table.add_row(Text(label), *row, f"{one['support']:,}")
    n = f"{result['images']:,}"
    table.add_row(Text(f"… and {part.more:,} more" if part.more else ""), "", "", "", "")
    table.add_row("accuracy", "", "", _cell(result["accuracy"]), n)
    for name in ("macro_avg", "weighted_avg"):
        row = [_cell(result[name][measure]) for measure in ("precision", "recall", "f1")]
        table.add_row(name.replace("_", " "), *row, n)
        if name == "macro_avg" and result["beyond_truth"]:
            row = [_cell(result["truth_avg"][measure]) for measure in ("precision", "recall", "f1")]
            table.add_row("truth avg", *row, n)
    return table


def _matrix(result: Result, coloured: bool) -> Table:
    """Rows are truths, columns the labels given; the darker a cell, the larger its share of the row."""
    part = excerpt(result, MOST_ON_A_TERMINAL)
    table = _plain("truth \\ labelled", *part.labels)
    for label, total, row in part.rows:
        table.add_row(Text(label, "bold"), *(_shaded(n, n / total if total else 0.0, coloured) for n in row))
    return table


def _shaded(n: int, share: float, coloured: bool) -> Text:
    if not coloured:
        return Text(f" {n:,} {share:4.0%} {SHADES[round(share * (len(SHADES) - 1))]} ")
    blue = f"rgb({int(20 + 20 * share)},{int(30 + 70 * share)},{int(45 + 150 * share)})"
    return Text(f" {n:,} {share:4.0%} ", Style(bgcolor=blue, color="white"))


def _votes(votes: Mapping[str, Any]) -> Iterator[Text]:
    majority, blame, spread = votes["majority"], votes["blame"], votes["distribution"]
    yield Text()
    yield Text(
        f"people's commonest answer ({count(majority['images'], 'image')}) is the model's label in"
        f" {_percent(majority['model'])}, the truth in {_percent(majority['truth'])}"
    )
    yield Text(
        f"one person at random agrees with the model in {_percent(spread['model_share'])}, with the truth in"
        f" {_percent(spread['truth_share'])}; probabilities and votes overlap by {_percent(spread['overlap'])}"
    )
    yield Text(
        f"of {majority['images']:,}: all agree {blame['all_agree']:,}; the error looks like the truth's"
        f" {blame['truth_alone']:,}, like the model's {blame['model_alone']:,}; people alone {blame['people_alone']:,};"
        f" three answers {blame['all_differ']:,}"
    )


def _slices(column: str, values: Mapping[str, Any]) -> Table:
    table = _plain(column, "images", "accuracy", "macro F1", "ECE", "")
    for value, one in values.items():
        rates = (_cell(measure) for measure in (one["accuracy"], one["macro_avg"]["f1"]))
        table.add_row(Text(value), f"{one['images']:,}", *rates, _value(one["ece"]), "small" if one["small"] else "")
    return table


def _others(result: Result) -> Table:
    labels = excerpt(result, MOST_ON_A_TERMINAL).labels
    table = _plain("none of these", "images", *labels, "mean confidence")
    for name, one in result["others"].items():
        said = (one["labelled"][label]["value"] for label in labels)
        shares = ("-" if share is None else f"{share:.0%}" for share in said)
        table.add_row(Text(name), f"{one['images']:,}", *shares, _cell(one["mean_confidence"]))
    return table


def _side_by_side(report: Mapping[str, Any]) -> Iterator[Table | Text]:
    """A row per model, and how each differs from the first."""
    table = _plain("model", "accuracy", "macro F1", "NLL", "ECE", "parameters")
    for result in report["results"]:
        rates = result["accuracy"], result["macro_avg"]["f1"]
        measures = [*(_cell(measure, 3) for measure in rates), *map(_value, (result["nll"], result["ece"]))]
        table.add_row(Text(result["name"]), *measures, f"{result['model']['parameters']:,}" if result["model"] else "-")
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
            f" right where the other is not: {one['only_this_right']:,} against {one['only_other_right']:,}"
        )
