"""What `ferbatch bench` shows."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ferbatch.core.names import count, escape
from ferbatch.shell.console import answer, as_text, is_terminal
from ferbatch.shell.log import say

PEER_ROWS = {"naive": "plain PyTorch, Pillow", "fer": "fer (TFLite)"}
BENCH_ROWS = {  # what is measured -> what the table calls it
    "read": "reading the files",
    "decode": "reading and decoding",
    "forward": "the network alone",
    "rows": "writing rows, one process",
    "limit": "the limit of all three",
    "end_to_end": "ferbatch label",
}
ON_CORES = {  # what is measured besides where a device looks for faces
    "looks": "the detector alone, on the device",
    "cores_look": "the detector alone, on the cores",
    "decode_on_cores": "reading and decoding, faces by the cores",
    "end_to_end_on_cores": "ferbatch label, faces by the cores",
}
ON_CORES_RATIOS = ("looks / cores_look", "end_to_end / end_to_end_on_cores")


def note(sentence: str, *, quiet: bool) -> None:
    """How far the benchmark is."""
    say(sentence, shown=not quiet)


def show_bench(found: Mapping[str, Any]) -> None:
    """The benchmark's tables, to stdout."""
    machine, drawn = found["machine"], found["images"]["drawn"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    what = f"{drawn}, drawn" if drawn else f"{found['images']['bytes'] / found['images']['n'] / 1000:,.1f} kB each"
    lines = [
        f"{count(machine['cores'], 'core')} of {machine['cpu']}{gpu}; PyTorch {found['torch']}; {found['decoder']}",
        f"{count(found['images']['n'], 'image')} ({what}); medians of {count(found['rounds'], 'round')}",
    ]
    models = found["models"]
    table = _rates(models)
    alone = found["memory_of_torch_alone"]
    for called, less in ("peak memory, MB", 0.0), ("more than PyTorch alone, MB", alone or 0.0):
        known = [one["peak_memory"] for one in models]
        table.add_row(called, *("unknown" if peak is None else f"{peak - less:,.0f}" for peak in known))
    seconds = found["seconds"]
    lines += ["", as_text(table, is_terminal(sys.stdout)), ""]
    lines.append(
        f"start-up: one image in {seconds['one_image']:.2f} s; ferbatch --help {seconds['help']:.2f} s,"
        f" {seconds['help / import_typer']:.1f} times what importing typer takes"
    )
    for one in models:
        median = one["median"]
        parquet = f", {1e6 / median['rows_parquet']:.1f} with parquet" if "rows_parquet" in median else ""
        csv = f"{1e6 / median['rows']:.1f} us of CPU an image with csv"
        lines.append(f"{escape(one['model'])}: writing rows: {csv}{parquet}")
        if best := one["recommended"]:
            lines.append(
                f"{escape(one['model'])}: recommended are --workers {best['workers']} and --batch-size"
                f" {best['batch_size']} ({best['options'] or 'the defaults'})"
            )
    answer("\n".join(lines))


def _rates(models: Sequence[Mapping[str, Any]]) -> Table:
    """images/s of each part and of the whole, by model, and how they compare."""
    peers = [name for name in models[0]["median"] if name in PEER_ROWS]
    table = Table("images/s", box=None, pad_edge=False)
    for one in models:
        table.add_column(f"{escape(one['model'])} ({one['precision']}, {one['device']})", justify="right")
    beside = ON_CORES if "looks" in models[0]["median"] else {}
    rows = BENCH_ROWS | beside | {name: PEER_ROWS[name] for name in peers}
    for name, called in rows.items():
        table.add_row(called, *(f"{one['median'][name]:,.0f}" for one in models))
    ratios = [f"end_to_end / {other}" for other in ("limit", "decode", *peers)] + ([*ON_CORES_RATIOS] if beside else [])
    for name in ratios:
        called = " / ".join(rows[part] for part in name.split(" / "))
        table.add_row(called, *(f"{one['median'][name]:.2f}" for one in models))
    return table
