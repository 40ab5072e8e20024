"""The command ``validate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from loractl import options, output
from loractl.failures import show
from rankloom.errors import NotFoundError, RankloomError, RefError

if TYPE_CHECKING:
    from rankloom.validate import Report

_COULD_NOT_CHECK = 3


@click.command()
@click.argument("adapters", nargs=-1, required=True, metavar="REF|DIR...")
@click.option("--against", metavar="DIR|NAME", help="The base that they must fit.")
@click.option("--headers-only", is_flag=True, help="Do not read values; the report says so.")
@options.as_json
@click.pass_context
def validate(
    ctx: click.Context,
    adapters: tuple[str, ...],
    against: str | None,
    *,
    headers_only: bool,
    as_json: bool,
) -> None:
    """Check adapters, and how they fit a base.

    Ends with 0 (sound), 1 (errors found), 2 (wrong usage) or 3 (something could not be checked).
    """
    try:
        reports = {name: _check(name, against, headers_only=headers_only) for name in adapters}
    except RefError:
        raise
    except RankloomError as error:
        show(error)
        ctx.exit(_COULD_NOT_CHECK)
    if as_json:
        output.as_json([{"adapter": name, **report.to_json()} for name, report in reports.items()])
    else:
        for name, report in reports.items():
            _print(name, report)
    ctx.exit(0 if all(report.ok for report in reports.values()) else 1)


def _check(adapter: str, against: str | None, *, headers_only: bool) -> Report:
    from rankloom import sdk

    with output.progress("fingerprint") as progress:
        return sdk.validate(adapter, against=against, headers_only=headers_only, progress=progress)


def _print(name: str, report: Report) -> None:
    verdict = click.style("ok", fg="green") if report.ok else click.style("refused", fg="red")
    level = f", same base at level {report.level}" if report.level else ""
    click.echo(f"{name}: {verdict} ({len(report.checked)} rules checked{level})")
    for finding in report.findings:
        click.echo(f"  {finding.severity}: {finding}")
    for rule, reason in report.not_checked.items():
        click.echo(f"  not checked: {rule} ({reason})")


@click.command()
@click.argument("rule_id", metavar="[ID]", default="")
@options.as_json
def rule(rule_id: str, *, as_json: bool) -> None:
    """Say what a rule demands, why, and how to fix what it finds; without ID: list all rules."""
    from rankloom.validate import RULES

    chosen = [found for key, found in RULES.items() if rule_id.upper() in {"", key}]
    if not chosen:
        message = f"there is no rule {rule_id!r}"
        raise NotFoundError(message, hint="'loractl rule' lists them all")
    if as_json:
        output.as_json([asdict(found) for found in chosen])
    elif rule_id:
        found = chosen[0]
        click.echo(f"{found.id} ({found.severity})  {found.title}")
        click.echo(f"why: {found.why}\nfix: {found.fix}")
    else:
        rows = ((found.id, str(found.severity), found.title) for found in chosen)
        output.table(("rule", "severity", "demands"), rows)
