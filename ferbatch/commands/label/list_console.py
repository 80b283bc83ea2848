"""What `ferbatch label --list` shows: each path as it is met, and at the end how many were met by which rule."""

from __future__ import annotations

import json
from collections import Counter

from ferbatch.core.errors import UsageError
from ferbatch.core.files import writing
from ferbatch.core.names import encode_path, escape
from ferbatch.core.options import Existing
from ferbatch.shell.console import answering
from ferbatch.shell.log import fail, say
from ferbatch.sources.aside import OTHER_SHARE, TAKEN, Reason, rule_of

WIDTH = 30  # characters of a rule, that paths stand below each other


class ListConsole:
    """Says of each path whether it would be labelled, keeping none of them: lines for people, one object as JSON."""

    def __init__(self, format_: str | None, *, quiet: bool) -> None:
        """UsageError where the format is none of these."""
        if format_ not in (None, "json"):
            raise UsageError(f"--list comes as lines or, with --format json, as JSON, not as '{escape(format_)}'")
        self.is_json, self.quiet = format_ == "json", quiet
        self.stdout = answering()
        self.counts: Counter[Reason] = Counter()

    def told(self, path: bytes, reason: Reason) -> None:
        """One path more."""
        rule, shown = rule_of(reason), encode_path(path)
        if self.is_json:
            said = {"path": shown, "taken": reason == TAKEN, "kind": reason.kind, "rule": rule}
            line = (",\n" if self.counts else '{"paths": [\n') + json.dumps(said)
        else:
            line = f"{rule:<{WIDTH}} {shown}\n"
        self.counts[reason] += 1
        with writing("stdout"):
            self.stdout.write(line)

    def finished(self, existing: Existing) -> int:
        """The counts, and what an earlier run's part in it would be; the exit code."""
        by_rule = {rule_of(reason): n for reason, n in self.counts.most_common()}
        with writing("stdout"):
            if self.is_json:
                end = "\n" if self.counts else '{"paths": ['
                self.stdout.write(f'{end}], "counts": {json.dumps(by_rule)}}}\n')
            self.stdout.flush()
        say(", ".join(f"{n:,} {rule}" for rule, n in by_rule.items()) or "nothing there", shown=not self.quiet)
        if existing.resume or existing.incremental:
            said = "--list says which images count, not which of them an earlier run has labelled already"
            say(said, shown=not self.quiet)
        if self.counts[TAKEN] or self.counts[OTHER_SHARE]:
            return 0
        fail("no image would be labelled", 4)
        return 4
