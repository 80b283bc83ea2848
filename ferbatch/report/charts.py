"""The report's charts as SVG, drawn by matplotlib from a result of the report."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

os.environ.pop("MPLBACKEND", None)  # a wrong one ends the import; none is needed here

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ferbatch.report.excerpt import MOST_CURVES, Result, excerpt

INK = "#1a1d21"  # becomes the page's own colour in a chart that stands in a page
BLUES = "Blues"
SERIES = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", "-."), ("#a24c86", ":"))  # readable on white and on black
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ferbatch",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
FEW_LABELS = 6  # have room in a chart as it is


def _confusion_matrix(axes: Axes, result: Result) -> None:
    """Counts and shares of each truth's row; the darker, the larger the share. Of many labels, those confused most."""
    part = excerpt(result)
    labels, matrix = part.labels, part.counts
    shares = [[count / max(total, 1) for count in row] for _, total, row in part.rows]
    if len(labels) > FEW_LABELS:
        axes.tick_params("x", labelrotation=90)
        axes.set_title(part.said)
    axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("labelled")
    axes.set_ylabel("truth")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            dark = shares[row][column] > 0.6
            text = f"{count:,}\n{shares[row][column]:.0%}" if count or len(labels) <= FEW_LABELS else ""
            said = axes.text(column, row, text, ha="center", va="center", color="#ffffff" if dark else "#000000")
            said.set_in_layout(False)  # it lies inside, and its size takes long to find


def _reliability(axes: Axes, result: Result) -> None:
    """Accuracy over confidence per bin, with intervals, over bars for how many images a bin has."""
    bins = [one for one in result["calibration"] if one["n"]]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
    color = SERIES[0][0]
    most = max((bin_["n"] for bin_ in bins), default=1)
    for bin_ in bins:
        width = bin_["up_to"] - bin_["above"]
        axes.bar(bin_["above"], 0.18 * bin_["n"] / most, width, align="edge", color=color, alpha=0.25)
        low, high = bin_["accuracy"]["interval_95"]
        axes.plot([bin_["confidence"]] * 2, [low, high], color=color, linewidth=1)
    axes.plot(
        [bin_["confidence"] for bin_ in bins],
        [bin_["accuracy"]["value"] for bin_ in bins],
        "o-",
        color=color,
        markersize=4,
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share that is right")
    axes.text(0.02, 0.95, "surer than it should be: below the dashed line", transform=axes.transAxes, fontsize=8)


def _precision_recall(axes: Axes, result: Result) -> None:
    """A curve for each label that has one; of many labels, for those confused most."""
    part = excerpt(result, MOST_CURVES)
    for index, label in enumerate(part.labels):
        measures = result["labels"][label]
        if measures["curve"]:
            color, (_, dashes) = SERIES[index % len(SERIES)][0], SERIES[(index + index // len(SERIES)) % len(SERIES)]
            area = measures["average_precision"]["value"]
            _, precision, recall = zip(*measures["curve"], strict=True)
            name = f" {label}" if label.startswith("_") else label  # which matplotlib would leave out
            axes.plot(recall, precision, dashes, color=color, label=f"{name} ({area:.2f})")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    if axes.lines:
        size = None if len(part.labels) <= FEW_LABELS else "x-small"
        axes.legend(loc="lower left", title="label (average precision)", fontsize=size)
        axes.set_title(part.said, fontsize="small")


def _coverage(axes: Axes, result: Result) -> None:
    """Accuracy over the share of images kept, with its interval and the threshold that was chosen."""
    points = [one for one in result["coverage"] if one["accuracy"]["value"] is not None]
    share = [one["coverage"]["value"] for one in points]
    low, high = ([one["accuracy"]["interval_95"][end] for one in points] for end in (0, 1))
    color = SERIES[0][0]
    axes.fill_between(share, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(share, [one["accuracy"]["value"] for one in points], color=color)
    chosen = result["min_confidence"]
    if chosen and chosen["accuracy"]["value"] is not None:
        place = chosen["coverage"]["value"], chosen["accuracy"]["value"]
        axes.plot(*place, "o", color=SERIES[1][0])
        text = f"min. confidence {chosen['min_confidence']:g}"
        axes.annotate(text, place, (-6, -6), textcoords="offset points", ha="right", va="top")
    bottom = min([0.5, *low])
    axes.set(xlim=(0, 1), ylim=(bottom, 1.01), xlabel="share of images kept, the surest first", ylabel="accuracy")


CHARTS: dict[str, tuple[str, Callable[[Axes, Result], None]]] = {
    "confusion-matrix": (
        "Confusion matrix: truth in rows, label given in columns, counts and shares",
        _confusion_matrix,
    ),
    "reliability": (
        "Reliability diagram: confidence against the share that is right, with 95 % intervals",
        _reliability,
    ),
    "precision-recall": ("Precision-recall curves, each label against the rest", _precision_recall),
    "coverage": ("Accuracy against coverage, with 95 % intervals", _coverage),
}


def draw(name: str, result: Result, *, transparent: bool = False) -> str:
    """A chart of CHARTS as an SVG file's text: no time stamp, the same for the same result."""
    title, plot = CHARTS[name]
    with warnings.catch_warnings(), mpl.style.context(["default", STYLE]):  # not the user's own style
        warnings.simplefilter("ignore")  # matplotlib misses glyphs, which whoever shows the file draws
        times = max(1.0, len(excerpt(result).labels) / FEW_LABELS) if name == "confusion-matrix" else 1.0
        figure = Figure(figsize=(5.2 * times, 4.0 * times), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure.subplots(), result)
        text = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Title": title}
        figure.savefig(text, format="svg", transparent=transparent, metadata=metadata)
    return text.getvalue()


def curves(what: str, lines: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG of what training and validation reached epoch by epoch; the same for the same numbers."""
    with mpl.style.context(["default", STYLE]):
        figure = Figure(figsize=(5.2, 4.0), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for (name, values), (color, dashes) in zip(lines.items(), SERIES, strict=False):
            axes.plot(range(1, len(values) + 1), values, dashes, color=color, label=name)
        axes.set(xlabel="epoch", ylabel=what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def element(name: str, result: Result, place: str) -> str:
    """A chart as an element of a page: in the page's colours, as wide as there is room; `place` parts its ids."""
    svg = draw(name, result, transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{place}-", svg)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    for index, (color, _) in enumerate(SERIES):
        svg = svg.replace(color, f"var(--series-{index})")
    title = escape(CHARTS[name][0])
    return svg.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
