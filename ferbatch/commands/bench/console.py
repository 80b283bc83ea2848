"""What `ferbatch bench` shows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
    peers = [name for name in models[0]["median"] if name in PEER_ROWS]
    table = Table("images/s", box=None, pad_edge=False)
    for one in models:
        table.add_column(f"{escape(one['model'])} ({one['precision']}, {one['device']})", justify="right")
    for name, called in (BENCH_ROWS | {name: PEER_ROWS[name] for name in peers}).items():
        table.add_row(called, *(f"{one['median'][name]:,.0f}" for one in models))
    for name in ("limit", "decode", *peers):
        called = (BENCH_ROWS | PEER_ROWS)[name]
        table.add_row(f"ferbatch label / {called}", *(f"{one['median'][f'end_to_end / {name}']:.2f}" for one in models))
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
