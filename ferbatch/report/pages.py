"""A report as files: JSON, Markdown, one self-contained HTML page, and the charts as SVG."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from PIL import Image

from ferbatch.core.errors import UnreadableImageError
from ferbatch.core.files import replace_file
from ferbatch.core.records import REPORT_CHARTS, ImageRef
from ferbatch.images.decode import SEARCHED_SIDE, GrayImage, decode, read_bytes
from ferbatch.images.formats import type_of_name
from ferbatch.images.inputs import REDUCED_SIDE
from ferbatch.report import charts
from ferbatch.report.excerpt import excerpt

UNDEFINED = "\N{EN DASH}"  # in place of a number
TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 96  # pixels on the longer side
THUMBNAIL_FRAME = 1.2  # times the longer side of a face's box; what a thumbnail shows of the image
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~!&$^=@]|:(?=//)")  # what could be markup; its number is written instead
READABLE = {  # names in report.json that are more than words with underscores -> as people write them
    "interval_95": "95 % interval",
    "n": "n",
    "f1": "F1",
    "macro_avg": "Macro average",
    "weighted_avg": "Weighted average",
    "truth_avg": "Average over the truth's labels",
    "roc_auc": "ROC-AUC",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_by_chance": "ECE by chance",
    "accuracy_with_failed": "Accuracy with failed images",
    "majority": "People's commonest answer (majority)",
    "majority_of_labels": "Commonest among the labels",
    "model_share": "One person at random",
    "blame": "Whose error",
}
Report = Mapping[str, Any]


def files(report: Report, stem: str, thumbnails: Mapping[str, str] | None = None) -> dict[str, str]:
    """The report's files by the suffix of their names: `json`, `md`, `html`, `reliability.svg`, ...

    `stem` is what their names begin with: the Markdown points to the charts. `thumbnails` are data URIs by path; none
    is shown without. With several systems, the charts of the second and later ones have its number in their names.
    """
    drawn = {
        chart_file(chart, index): charts.draw(chart, result)
        for index, result in enumerate(report["results"])
        for chart in REPORT_CHARTS
    }
    return {
        "json": as_json(report),
        "md": _environment(html=False)
        .get_template("report.md.jinja")
        .render(report=report, chart_link=lambda chart, index: Markup(quote(f"{stem}.{chart_file(chart, index)}"))),
        "html": _page(report, thumbnails or {}),
        **drawn,
    }


def write(report: Report, prefix: str, thumbnails: Mapping[str, str] | None = None) -> list[str]:
    """Write the report's files to `prefix`.json, `prefix`.md, ...; returns their paths. Raises OutputError."""
    written = []
    for suffix, text in files(report, os.path.basename(prefix), thumbnails).items():
        written.append(f"{prefix}.{suffix}")
        with replace_file(written[-1]) as stream:
            stream.write(text.encode())
    return written


def chart_file(chart: str, index: int) -> str:
    """The suffix of a chart's file, for the result with this index."""
    return f"{chart}-{index + 1}.svg" if index else f"{chart}.svg"


def as_json(report: Report) -> str:
    """The report as JSON, every number to full precision."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def thumbnail(ref: ImageRef, box: Sequence[int] | None = None) -> str | None:
    """The image, or what is around the face's box, upright and gray, at most THUMBNAIL pixels wide, as a data URI."""
    side = SEARCHED_SIDE if box else REDUCED_SIDE * THUMBNAIL
    try:
        gray = decode(read_bytes(ref.file), type_of_name(ref.file), side)
    except UnreadableImageError:
        return None
    small = gray.pixels.crop(_around(box, gray)) if box else gray.pixels.convert("L")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    data = BytesIO()
    small.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _around(box: Sequence[int], gray: GrayImage) -> tuple[int, int, int, int]:
    """What lies around a face's box, as far as the decoded image goes, in its pixels."""
    x, y, width, height = box
    half, scale = THUMBNAIL_FRAME * max(width, height) / 2, gray.pixels.width / gray.width
    across, down = x + width / 2, y + height / 2
    wide, high = gray.pixels.size
    left, right = (min(wide, max(0, round(end * scale))) for end in (across - half, across + half))
    top, bottom = (min(high, max(0, round(end * scale))) for end in (down - half, down + half))
    return (left, top, right, bottom) if right > left and bottom > top else (0, 0, wide, high)


def _page(report: Report, thumbnails: Mapping[str, str]) -> str:
    """The HTML page: everything in one file, its script named by hash to browsers."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment(html=True)
        .get_template("report.html.jinja")
        .render(
            report=report,
            thumbnails=thumbnails,
            style=Markup(style),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
            chart=lambda name, result, place: Markup(charts.element(name, result, place)),
        )
    )


def _environment(*, html: bool) -> jinja2.Environment:
    """Templates in which every value is data: what could be markup in it is escaped, unless a filter here made it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=html,
        finalize=None if html else _in_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["excerpt"] = excerpt
    filters = (number, interval, percent, chance, readable, plainly)
    environment.filters |= {one.__name__: one for one in filters} | {"verbatim": Markup}
    return environment


def _in_markdown(value: Any) -> str:
    if isinstance(value, Markup | jinja2.Undefined):
        return str(value)
    return MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", str(value))


def number(measure: Mapping[str, Any] | float | None, digits: int = 3) -> str:
    """A measure's value; an en dash where it is undefined."""
    value = measure["value"] if isinstance(measure, Mapping) else measure
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def interval(measure: Mapping[str, Any], digits: int = 3) -> str:
    """A measure's 95 % interval, `0.731 to 0.765`; empty where it has none."""
    ends = measure["interval_95"]
    return " to ".join(f"{end:.{digits}f}" for end in ends) if ends else ""


def percent(value: float | None, digits: int = 0) -> str:
    """A share as `75 %`."""
    return UNDEFINED if value is None else f"{100 * value:.{digits}f} %"


def readable(name: str) -> str:
    """A name of report.json as people write it: `ROC AUC`, `95 % interval`."""
    return READABLE.get(name, name.replace("_", " ").capitalize())


def plainly(value: Any) -> str:
    """A card's nested values on one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name.replace('_', ' ')}: {plainly(one)}" for name, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def chance(p_value: float) -> str:
    """A p value: `0.03`, `< 0.0001`."""
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"
