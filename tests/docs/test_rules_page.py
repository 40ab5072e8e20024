"""The page of rules is what the rules say."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/rules_page.py"


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("rules_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run python scripts/rules_page.py"
