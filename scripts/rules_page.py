"""Writes ``docs/rules.md`` and a page per rule in ``docs/rules/``; a test compares them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rankloom import validate
from rankloom.rules import RULES
from rankloom.validate import Rule
from rankloom.validate.engines import FEATURES, engines

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "rules.md"
PAGES = DOCS / "rules"
FAMILIES = {
    "FMT": "The tensor file",
    "CFG": "The config",
    "TEN": "The tensors",
    "BASE": "Adapter and base",
    "NUM": "The values",
    "PRB": "The probe",
    "SEC": "Security",
    "MRG": "Compositions",
    "REG": "The registry",
    "ENG": "Serving engines",
    "INT": "Interference",
}


def page() -> str:
    """Return the index."""
    lines = [
        "# Rules",
        "What `loractl validate`, every push and every composition check; `loractl rule ID` prints",
        "one of them. Ids are never reused. An error stops a push, a composition and an apply.",
    ]
    for family in dict.fromkeys(rule.family for rule in RULES.values()):
        lines += ["", f"## {FAMILIES.get(family, family)}", ""]
        lines += ["| id | severity | demands | how to fix |", "| --- | --- | --- | --- |"]
        for rule in (rule for rule in RULES.values() if rule.family == family):
            cells = (f"[{rule.id}](rules/{rule.id}.md)", rule.severity, rule.title, rule.fix)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def rule_page(rule: Rule) -> str:
    """Return the page of one rule."""
    lines = [
        f"# {rule.id}: {rule.title}",
        f"Severity {rule.severity}; since rankloom {rule.since}. [All rules](../rules.md)",
        "",
        "## Why",
        rule.why,
        *(["", "## What other software does", rule.evidence] if rule.evidence else []),
        *(["", "## What engines do", *_engines(rule)] if rule.family == "ENG" else []),
        "",
        "## How to fix",
        rule.fix,
    ]
    if rule.id in validate.RULES:
        lines += [
            "",
            "## How to leave it out",
            f"`loractl validate … --ignore {rule.id}`, or `ignore` in the project's",
            f"[settings](../ci.md#settings-of-a-project). {_push(rule)}",
        ]
    return "\n".join(lines) + "\n"


def _engines(rule: Rule) -> Iterator[str]:
    """Return the table of what each engine does."""
    name = next(name for name, feature in FEATURES.items() if feature.rule.id == rule.id)
    yield "| engine | verdict | how | read in |"
    yield "| --- | --- | --- | --- |"
    for engine in engines():
        cell = engine.cells[name]
        spoken = f"{engine.title} {engine.version}"
        yield f"| {spoken} | {cell.verdict} | {cell.reason} | `{cell.source}` |"


def _push(rule: Rule) -> str:
    if rule.option:
        return f"Without `{rule.option}` nothing checks it, a push neither."
    return "A push checks it all the same."


def pages() -> Mapping[Path, str]:
    """Return all pages: the index, and one per rule."""
    return {PAGE: page(), **{PAGES / f"{rule.id}.md": rule_page(rule) for rule in RULES.values()}}


def main() -> None:
    """Write all pages and remove those of rules that are no more."""
    PAGES.mkdir(exist_ok=True)
    found = pages()
    for path in set(PAGES.glob("*.md")) - found.keys():
        path.unlink()
    for path, text in found.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
