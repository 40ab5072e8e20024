"""Ids that messages of compositions begin with are explained somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import rankloom
from rankloom import validate
from rankloom.recipe.rules import RULES

SOURCES = Path(rankloom.__file__).parent


def test_every_id_is_a_rule_and_every_rule_is_used() -> None:
    rooms = [path for path in SOURCES.rglob("*.py") if path.name != "rules.py"]
    text = "\n".join(path.read_text() for path in rooms)
    used = set(re.findall(r"\b(?:MRG|INT|NUM)\d{3}\b", text))
    assert used <= RULES.keys() | validate.RULES.keys()
    assert {rule for rule in RULES if not rule.startswith("ENG")} <= used
