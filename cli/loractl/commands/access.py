"""Commands over who may do what, and who did: token, audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loractl import options, output
from loractl.overview import Overview

if TYPE_CHECKING:
    from datetime import datetime

    from rankloom.registry.wire import AuditEntry, TokenRecord


@click.group(cls=Overview)
def token() -> None:
    """Make, list and revoke tokens of the registry."""


@token.command()
@click.argument("name")
@click.argument("grants", nargs=-1, required=True, metavar="SCOPE[:NAMESPACE[/ADAPTER]]...")
@click.option("--days", type=click.IntRange(1, 3650), help="Its life; without, until revoked.")
@options.as_json
def create(name: str, grants: tuple[str, ...], days: int | None, *, as_json: bool) -> None:
    """Make a token and show it once, e.g. for read push:acme.

    The scopes are read, push and admin; none includes another. Without a namespace they hold
    everywhere; push:acme/zh is for one adapter.
    """
    from datetime import UTC, datetime, timedelta

    from rankloom import ref
    from rankloom.registry.wire import TokenRequest
    from rankloom.sdk import Client

    ref.check_name(name, "token name")
    end = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with Client() as client:
        made = client.registry.create_token(TokenRequest(name=name, grants=grants, expires_at=end))
    if as_json:
        output.as_json(output.dump(made))
    else:
        click.echo(made.token)


@token.command("list")
@options.as_json
def list_tokens(*, as_json: bool) -> None:
    """List the tokens that you may administer, without their secrets."""
    from rankloom.sdk import Client

    with Client() as client:
        records = client.registry.list_tokens().items
    if as_json:
        output.as_json([output.dump(record) for record in records])
    else:
        columns = ("token", "scopes", "state", "made", "expires", "last used")
        output.table(columns, (_token_row(record) for record in records))


def _token_row(record: TokenRecord) -> tuple[str, ...]:
    return (
        record.name,
        " ".join(record.grants),
        "revoked" if record.revoked_at else "in use",
        _day(record.created_at),
        _day(record.expires_at),
        _day(record.last_used_at),
    )


def _day(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d") if time else "never"


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """End a token's life at once."""
    from rankloom.sdk import Client

    with Client() as client:
        client.registry.revoke_token(name)
    click.echo(f"{name} is revoked")


@click.command()
@click.option("--namespace", help="Only what was changed in this namespace.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
@options.as_json
def audit(namespace: str | None, limit: int, *, as_json: bool) -> None:
    """Show who changed what and when, newest first."""
    from rankloom.sdk import Client

    with Client() as client:
        lines = client.registry.audit_log(namespace=namespace, limit=limit).items
    if as_json:
        output.as_json([output.dump(line) for line in lines])
    else:
        columns = ("when", "who", "action", "namespace", "subject", "detail")
        output.table(columns, (_audit_row(line) for line in lines))


def _audit_row(line: AuditEntry) -> tuple[str, ...]:
    detail = " ".join(f"{name}={value}" for name, value in line.detail.items())
    when = line.at.strftime("%Y-%m-%d %H:%M:%S")
    return (when, line.actor, line.action, line.namespace or "-", line.subject, detail)
