"""Data sets of drawn faces, as the Hugging Face Hub has them: Parquet tables of images and classes, by split."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from support import face_file, parquet_tools

NAMES = ["angry", "happy", "sad"]
README = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': angry
          '1': happy
          '2': sad
---
# Faces
"""
INFOS = {"default": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
SHARDS = {"data/train-00000-of-00002": 6, "data/train-00001-of-00002": 5, "data/test-00000-of-00001": 4}


def table(start: int, n: int, *, says: bool = True, named: bool = True, held: str = "struct") -> bytes:
    """A Parquet table of `n` drawn faces and their classes, as numbers; `says`: what these mean, in its schema."""
    pa, pq = parquet_tools()
    data = [face_file(start + at) for at in range(n)]
    images = [{"bytes": one, "path": f"{start + at:03}.jpg" if named else None} for at, one in enumerate(data)]
    made = pa.table({"image": images if held == "struct" else data, "label": [(start + at) % 3 for at in range(n)]})
    if says:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": INFOS["default"]})})
    stream = io.BytesIO()
    pq.write_table(made, stream, row_group_size=4)
    return stream.getvalue()


def laid_out(folder: Path, names: dict[str, int] = SHARDS, suffix: str = ".parquet", **how: Any) -> Path:
    """A data set of these tables, of so many images each, and what lies beside them."""
    start = 0
    for name, n in names.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(table(start, n, **how))
        start += n
    (folder / "README.md").write_text("# Faces\n")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    return folder
