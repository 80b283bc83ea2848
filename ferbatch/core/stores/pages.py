"""What lies below a folder of a store, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from ferbatch.core.stores import remote, urls
from ferbatch.core.stores.answers import Entry

DEEPEST = 64  # folders in one another; more is a web server's loop

Pages = Iterator[list[Entry]]


def pages(path: bytes, deep: bool) -> Pages:
    """What is below a folder, whose path ends in a slash: in order where the store has one, else folder by folder.

    StoreError where it cannot be had.

    deep: whether folders in it are entered.
    """
    if urls.is_ordered(path):
        return remote.ahead().pages(path, deep)
    return _folder_by_folder(path, b"", deep)


def _folder_by_folder(path: bytes, inner: bytes, deep: bool) -> Pages:
    page: list[Entry] = []
    for entry in sorted(remote.ahead().folder(path + inner)):
        page.append(entry._replace(name=inner + entry.name))
        if deep and entry.name.endswith(b"/"):
            yield page
            page = []
            if inner.count(b"/") < DEEPEST:
                yield from _folder_by_folder(path, inner + entry.name, deep)
    yield page
