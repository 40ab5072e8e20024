"""Pages that are made from the code are what the code says now."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["rules_page", "formats_page", "engines_page", "bad_inputs_page"])
def test_a_page_is_up_to_date(name: str) -> None:
    module = load(name)
    assert module.PAGE.read_text() == module.page(), f"run python scripts/{name}.py"


def test_every_rule_has_its_page_and_no_page_is_left_over() -> None:
    module = load("rules_page")
    pages = module.pages()
    assert {module.PAGE, *module.PAGES.glob("*")} == pages.keys()
    for path, text in pages.items():
        assert path.read_text() == text, "run python scripts/rules_page.py"
