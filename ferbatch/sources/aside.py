"""What is left aside of a folder: REASONS, the table of why; KEPT_BY_PROGRAMS and UNFINISHED, by which names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ferbatch.core.errors import UsageError
from ferbatch.core.names import count, escape, listed
from ferbatch.core.records import Rules
from ferbatch.images.formats import type_of_bytes


class Reason(NamedTuple):
    """Why a path is taken or left aside."""

    kind: str  # a key of REASONS
    which: str = ""  # the program's folder, or the GLOB


class Said(NamedTuple):
    """How a kind of reason is said."""

    rule: str  # of one path; {} is which
    noun: str = ""  # of many; none where they are not counted
    rest: str = ""  # after the noun


REASONS: dict[str, Said] = {
    "taken": Said("taken"),
    "listed": Said("already listed"),
    "other_shares": Said("of another share"),
    "below": Said("below PATH, with --no-recursive"),
    "hidden_files": Said("hidden", "hidden file"),
    "hidden_folders": Said("hidden", "hidden folder"),
    "program_folders": Said("folder of a program: {}", "folder", " of other programs"),
    "unfinished_files": Said("not finished", "unfinished file"),
    "excluded": Said("excluded by {}", "", " excluded"),
    "own_folders": Said("written by ferbatch", "folder", " written by ferbatch"),
    "archives": Said("archive", "archive", " (name one to label what it holds)"),
    "unread_tables": Said("table that needs pyarrow", "table", " not looked into (pip install 'ferbatch[parquet]')"),
    "path_tables": Said("table of paths", "table", " of paths alone (name one to label what it lists)"),
    "arrow_tables": Said("Arrow table", "Arrow table", " not read (write Parquet instead)"),
    "other_files": Said("not an image", "other file"),
    "links": Said("link not followed", "link", " to folders not followed (--follow-links)"),
    "loops": Said("loop", "link", " back to a folder above not followed"),
}
TAKEN, LISTED, OTHER_SHARE, BELOW = (Reason(kind) for kind in ("taken", "listed", "other_shares", "below"))
HIDDEN_FILE, HIDDEN_FOLDER, UNFINISHED_FILE = map(Reason, ("hidden_files", "hidden_folders", "unfinished_files"))
OWN_FOLDER, ARCHIVE, OTHER_FILE = (Reason(kind) for kind in ("own_folders", "archives", "other_files"))
UNREAD_TABLE, PATH_TABLE, ARROW_TABLE = map(Reason, ("unread_tables", "path_tables", "arrow_tables"))
TABLE = Reason("taken", "table")  # taken, but for what it holds
LINK, LOOP = Reason("links"), Reason("loops")
BY_HIDDEN = frozenset(["hidden_files", "hidden_folders", "program_folders", "unfinished_files"])  # what --hidden takes

# Folders that programs keep beside the user's own, whose names nobody gives a folder of faces; in whatever case. Names
# that begin with a dot need none of it.
KEPT_BY_PROGRAMS = {
    name.lower().encode(): name
    for name in (
        *("@eaDir", "@tmp", "@sharebin", "#recycle", "#snapshot"),  # Synology
        *("@Recycle", "@Recently-Snapshot", "@Transcode"),  # QNAP
        *("$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information"),  # Windows
        *(
            "__MACOSX",
            "Network Trash Folder",
            "Temporary Items",
            "TheVolumeSettingsFolder",
        ),  # macOS, in zips, on shares
        *("lost+found", "LOST.DIR"),  # Linux, Android: what a repair of the file system found
        *("~snapshot", "files_trashbin", "files_versions"),  # NetApp, Nextcloud
        *("_vti_cnf", "_gsdata_"),  # FrontPage, which calls its notes like the images; GoodSync
    )
}
# Suffixes of files that a browser, a copy or a synchronization is not done with.
UNFINISHED = frozenset(
    [
        *(b".part", b".partial", b".filepart", b".crdownload", b".opdownload", b".tmp"),
        *(b".!sync", b".!qb", b".!ut"),
    ]
)


def by_name(name: bytes, is_folder: bool) -> Reason | None:
    """Why an entry of a folder is left aside whatever it holds, if it is called so."""
    if name.startswith(b"."):
        return HIDDEN_FOLDER if is_folder else HIDDEN_FILE
    kept = KEPT_BY_PROGRAMS.get(name.lower()) if is_folder else None
    return Reason("program_folders", kept) if kept else None


def by_rules(path: bytes, is_folder: bool, rules: Rules, globs: Globs | None) -> Reason | None:
    """Why what lies at a path below PATH is left aside whatever it holds, if it is; the folders above it are not."""
    hidden = None if rules.hidden else by_name(os.path.basename(path), is_folder)
    return hidden or (globs.excluding(path, is_folder) if globs else None)


def by_content(name: bytes, begins: bytes, rules: Rules) -> Reason:
    """Whether a file counts whose name does not say what it is, by its first bytes."""
    if type_of_bytes(begins) is None:
        return ARROW_TABLE if name.lower().endswith(b".arrow") else OTHER_FILE
    return UNFINISHED_FILE if is_unfinished(name) and not rules.hidden else TAKEN


def is_unfinished(name: bytes) -> bool:
    """Whether a file is called like one that is still being written."""
    return os.path.splitext(name)[1].lower() in UNFINISHED


def in_words(aside: Mapping[Reason, int]) -> str:
    """What was left aside, by kind: `4 hidden files, 2 folders of other programs (@eaDir) left aside`; or nothing."""
    of_kind = by_kind(aside)
    whole = []
    for kind, n in of_kind.items():
        names = sorted(reason.which for reason in aside if reason.kind == kind and reason.which)
        named = f" ({listed(names, 4)})" if names and kind == "program_folders" else ""
        noun, rest = REASONS[kind].noun, REASONS[kind].rest
        whole.append(f"{count(n, noun) if noun else f'{n:,}'}{rest}{named}")
    links = [text for kind, text in zip(of_kind, whole, strict=True) if kind in ("links", "loops")]
    others = [text for text in whole if text not in links]
    return ", ".join(([", ".join(others) + " left aside"] if others else []) + links)


def by_kind(aside: Mapping[Reason, int]) -> dict[str, int]:
    """How many were left aside by each kind of reason, in the order of REASONS; those that are none have no entry."""
    counted: Counter[str] = Counter()
    for reason, n in aside.items():
        counted[reason.kind] += n
    return {kind: counted[kind] for kind, said in REASONS.items() if counted[kind] and (said.noun or said.rest)}


def rule_of(reason: Reason) -> str:
    """The rule by which a path was taken or left aside, in words."""
    return REASONS[reason.kind].rule.format(reason.which)


class Globs:
    """Patterns as .gitignore has them, asked of one path after another from the top down: what is out is not walked."""

    def __init__(self, globs: Sequence[str]) -> None:
        """UsageError for one that no path can match."""
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # most runs need none

        self.patterns = []  # the last one first, for it decides
        for glob in reversed(globs):
            try:
                # `a/**/` is every folder below a, of which pathspec makes a itself.
                pattern = GitIgnoreSpecPattern(re.sub(r"(/\*\*)+/(?=\s*$)", "/**/*/", glob).replace("\n", "\0"))
            except (ValueError, re.error):
                raise UsageError(_unfit(glob)) from None
            if pattern.include is None or pattern.regex is None or {".", ".."} & {*glob.lstrip("!").split("/")}:
                raise UsageError(_unfit(glob))
            out = Reason("excluded", escape(glob)) if pattern.include else None
            self.patterns.append((pattern.regex, glob.rstrip().endswith("/"), out))

    def excluding(self, path: bytes, is_folder: bool) -> Reason | None:
        """The pattern that leaves out a path below PATH, if one does; the folders above it are not."""
        text = path.decode("utf-8", "surrogateescape").replace("\n", "\0")  # for a dot to match it as git's does
        for regex, of_folders, out in self.patterns:
            if of_folders:
                # One that ends before the path does matches a folder above it.
                matches = is_folder and any(found.end() > len(text) for found in regex.finditer(f"{text}/"))
            else:
                matches = (found := regex.search(text)) is not None and found.lastgroup is None
            if matches:
                return out
        return None


def _unfit(glob: str) -> str:
    """Why no path can match this, in one sentence."""
    short = escape(glob)[:80]
    said = f"--exclude '{short}'"
    if glob.startswith("#"):
        return f"{said} is a comment by gitignore's rules: '\\{short}' is what is called so"
    if {".", ".."} & {*glob.lstrip("!").split("/")}:
        return (
            f"{said} matches nothing: patterns begin at each of the PATHS, without ./ or ../ ('thumbs/', '**/raw/**')"
        )
    return f"{said} is no pattern that a path could match by gitignore's rules ('thumbs/', '*.gif', '!keep.jpg' are)"
