"""Writes the table of methods in ``docs/composition.md`` from the methods themselves."""

import re
from pathlib import Path

from rankloom.recipe.methods import METHODS, Method
from rankloom.recipe.parameters import REQUIRED

PAGE = Path(__file__).parents[1] / "docs/composition.md"
MARK = "<!-- methods: scripts/methods_table.py -->\n"


def table() -> str:
    """Return the table's text."""
    lines = [
        "| method | engine | what it computes | parameters | from |",
        "| --- | --- | --- | --- | --- |",
        *(_row(method) for method in METHODS.values()),
    ]
    return "\n".join(lines) + "\n"


def _row(method: Method) -> str:
    parameters = [
        f"`{name}`" if known.default is REQUIRED else f"`{name}={_text(known.default)}`"
        for name, known in method.parameters.items()
    ]
    if method.needs_rank:
        parameters.append("`rank`")
    cells = (f"`{method.name}`", method.engine, method.what, ", ".join(parameters), method.paper)
    return "| " + " | ".join(cells) + " |"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def written(page: str) -> str:
    """Return the page with the table in its place."""
    return re.sub(f"{re.escape(MARK)}(\\|.*\n)*", MARK + table(), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
