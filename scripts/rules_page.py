"""Writes ``docs/rules.md`` from the rules themselves; a test compares the two."""

from pathlib import Path

from rankloom.validate import RULES

PAGE = Path(__file__).parents[1] / "docs/rules.md"


def page() -> str:
    """Return the page's text."""
    lines = [
        "# Rules",
        "What `loractl validate` and every push check; `loractl rule ID` prints one of them. Ids",
        "are never reused. An error stops a push, a composition and an apply.",
        "",
        "| id | severity | demands | why | how to fix |",
        "| --- | --- | --- | --- | --- |",
    ]
    for rule in RULES.values():
        cells = (rule.id, str(rule.severity), rule.title, rule.why, rule.fix)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
