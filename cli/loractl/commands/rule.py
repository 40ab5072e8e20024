"""The command ``rule``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from loractl import options, output
from rankloom.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@click.command()
@click.argument("rule_id", metavar="[ID]", default="")
@options.as_json
def rule(rule_id: str, *, as_json: bool) -> None:
    """Say what a rule demands, why, and how to fix what it finds; without ID: list all rules."""
    from rankloom.rules import RULES

    chosen = [found for key, found in RULES.items() if rule_id.upper() in {"", key}]
    if not chosen:
        message = f"there is no rule {rule_id!r}"
        raise NotFoundError(message, hint=f"{_near(rule_id, RULES)}'loractl rule' lists them all")
    if as_json:
        output.as_json([asdict(found) for found in chosen])
    elif rule_id:
        found = chosen[0]
        click.echo(f"{found.id} ({found.severity}, since {found.since})  {found.title}")
        click.echo(f"why: {found.why}")
        for seen in (found.evidence, *_engines(found.id)):
            if seen:
                click.echo(f"seen: {seen}")
        click.echo(f"fix: {found.fix}")
    else:
        rows = ((found.id, str(found.severity), found.title) for found in chosen)
        output.table(("rule", "severity", "demands"), rows)


def _near(rule_id: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(rule_id.upper(), known, cutoff=0.7)
    return f"perhaps {', '.join(near)}; " if near else ""


def _engines(rule_id: str) -> Iterator[str]:
    """Return what each engine does, for the rules of serving engines."""
    from rankloom.validate.engines import FEATURES, engines

    for feature in (found for found in FEATURES.values() if found.rule.id == rule_id):
        for engine in engines():
            cell = engine.cells[feature.name]
            yield f"{engine.title} {engine.version}: {cell.verdict} {cell.reason}".rstrip()
