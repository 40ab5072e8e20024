"""A baseline: the identities of findings that were there when a project began to check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rankloom.errors import RefError
from rankloom.files import write_atomic
from rankloom.validate.identity import identity

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.validate.outcome import Outcome

VERSION = 1


def read(path: Path) -> frozenset[str]:
    """Return the identities that a file lists.

    Raises:
        RefError: there is no such file, or it is no baseline.
    """
    if not path.is_file():
        message = f"there is no baseline {path}"
        raise RefError(message, hint="'loractl validate … --write-baseline FILE' makes one")
    try:
        content = json.loads(path.read_text("utf-8"))
        known = [entry["identity"] for entry in content["findings"]]
        sound = content["baseline_version"] == VERSION
    except (ValueError, KeyError, TypeError):
        sound, known = False, []
    if not sound or not all(isinstance(key, str) for key in known):
        message = f"{path} is no baseline of version {VERSION}"
        raise RefError(message, hint="make it again with --write-baseline")
    return frozenset(known)


def write(path: Path, outcome: Outcome) -> int:
    """Write all findings of a run that was judged without a baseline; return how many."""
    entries = [
        {"adapter": name, "rule": found.rule, "identity": identity(name, found, report.subject)}
        for name, report in outcome.reports.items()
        for found in report.findings
    ]
    content = {"baseline_version": VERSION, "findings": entries}
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())
    return len(entries)
