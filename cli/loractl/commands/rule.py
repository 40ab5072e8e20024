"""The command ``rule``."""

from __future__ import annotations

from dataclasses import asdict

import click

from loractl import options, output
from rankloom.errors import NotFoundError


@click.command()
@click.argument("rule_id", metavar="[ID]", default="")
@options.as_json
def rule(rule_id: str, *, as_json: bool) -> None:
    """Say what a rule demands, why, and how to fix what it finds; without ID: list all rules."""
    from rankloom import validate
    from rankloom.recipe import rules

    known = {**rules.RULES, **validate.RULES}
    chosen = [found for key, found in known.items() if rule_id.upper() in {"", key}]
    if not chosen:
        message = f"there is no rule {rule_id!r}"
        raise NotFoundError(message, hint="'loractl rule' lists them all")
    if as_json:
        output.as_json([asdict(found) for found in chosen])
    elif rule_id:
        found = chosen[0]
        click.echo(f"{found.id} ({found.severity}, since {found.since})  {found.title}")
        click.echo(f"why: {found.why}")
        if found.evidence:
            click.echo(f"seen: {found.evidence}")
        click.echo(f"fix: {found.fix}")
    else:
        rows = ((found.id, str(found.severity), found.title) for found in chosen)
        output.table(("rule", "severity", "demands"), rows)
