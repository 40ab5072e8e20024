"""The table of settings is the settings."""

import re
from pathlib import Path

from rankloom_server.settings import Settings

DOC = (Path(__file__).parents[2] / "docs/registry.md").read_text()


def test_every_setting_is_in_the_table_and_no_other() -> None:
    table = DOC.partition("## Settings of the server")[2].partition("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {name.upper() for name in Settings.model_fields}
