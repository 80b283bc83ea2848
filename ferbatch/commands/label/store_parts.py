"""Labels that go to a folder of a store, as objects of so many images each and a manifest."""

from __future__ import annotations

import json
import os
from contextlib import suppress

from ferbatch.commands.label.parts import MANIFEST, MOST_MANIFEST, OURS, PartsOutput, format_of
from ferbatch.commands.label.store_output import StoreOutput
from ferbatch.core.errors import OutputError, UsageError
from ferbatch.core.files import writing
from ferbatch.core.names import escape, shown
from ferbatch.core.stores import objects
from ferbatch.core.writers import WRITERS


def format_at(url: str) -> str:
    """The format of a folder's parts, by its name or its manifest; csv where neither says one."""
    if os.path.splitext(url)[1].lstrip(".").lower() in WRITERS:
        return format_of(url)
    with suppress(ValueError, RecursionError, TypeError, KeyError, OutputError):  # the store will be heard of soon
        name = json.loads(objects.begins(f"{url}/{MANIFEST}", MOST_MANIFEST) or b"")["format"]
        return name if name in WRITERS else "csv"
    return "csv"


class StorePartsOutput(StoreOutput, PartsOutput):
    """A folder of labels objects. What is beside a labels object is beside the folder.

    The manifest is taken away before parts are replaced, and put when all are there: where it is, they are its own.
    """

    def __init__(self, url: str, format_: str, spool: str | None = None) -> None:
        super().__init__(url, format_, spool)
        self.shown = f"{shown(url)}/"
        self.main = os.path.join(self.path, MANIFEST)
        self.objects.remove(self.path)

    def _look(self, *, patient: bool = True) -> None:
        super()._look(patient=patient)
        inside = objects.versions_in(self.url)
        if others := sorted(name for name in inside if not OURS.fullmatch(name)):
            name = escape(others[0])
            raise UsageError(f"{self.shown} holds other objects ({name} for one): parts need a folder of their own")
        self.found = {**self.found, **{os.path.join(self.path, name): version for name, version in inside.items()}}

    def _label_files(self) -> list[str]:
        names = sorted(file for file in self.found if os.path.dirname(file) == self.path and file != self.main)
        with writing(shown(self.path)):
            os.makedirs(self.path, exist_ok=True)
        return [*names, self.main]

    def _is_begun_on_these(self) -> bool:
        return self.main not in self.found or super()._is_begun_on_these()

    def _put_files(self) -> None:
        if self.main in self.found:
            objects.remove(self.url_of(self.main))
        here = {os.path.join(self.path, name) for name in os.listdir(self.path)}
        for file in sorted(here - {self.main}):
            objects.put(file, self.url_of(file))
        there = {file for file in self.found if os.path.dirname(file) == self.path}
        objects.remove_all([self.url_of(file) for file in sorted(there - here - {self.main})])
        super()._put_files()
        objects.put(self.main, self.url_of(self.main))
