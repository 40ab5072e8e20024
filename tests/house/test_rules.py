"""Ids that messages begin with are explained somewhere, and no rule is only a page."""

from __future__ import annotations

import re
from pathlib import Path

import rankloom
import rankloom_server
from rankloom.rules import RULES

SOURCES = (Path(rankloom.__file__).parent, Path(rankloom_server.__file__).parent)
ID = re.compile(r"\b(?:FMT|CFG|TEN|BASE|NUM|SEC|ENG|MRG|INT|PRB|REG)\d{3}\b")


def test_every_id_is_a_rule_and_every_rule_is_used() -> None:
    rooms = [path for source in SOURCES for path in source.rglob("*.py") if path.name != "rules.py"]
    used = {found for path in rooms for found in ID.findall(path.read_text())}
    assert used == RULES.keys()
