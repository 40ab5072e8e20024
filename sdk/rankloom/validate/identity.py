"""The identity of a finding, by which it is known again in a later run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rankloom import digest

if TYPE_CHECKING:
    from rankloom.finding import Finding


def identity(adapter: str, finding: Finding, subject: str) -> str:
    """Return a name for a finding that is the same on every machine.

    Whatever changes of what was found makes another one, so that a known finding never hides a
    new one.

    Args:
        adapter: what the adapter is called.
        finding: the finding.
        subject: the folder, which differs between machines and does not count.
    """
    message = re.sub(rf"(?<!\S){re.escape(subject)}(?=[/:\s])", "", finding.message)
    content = [adapter, finding.rule, finding.where, message]
    return digest.of_json(content).removeprefix("sha256:")[:32]
