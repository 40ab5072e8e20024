"""Commands over who may do what: token, namespace, audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loractl import options, output

if TYPE_CHECKING:
    from datetime import datetime

    from rankloom.registry.wire import AuditEntry, NamespaceRules, TokenRecord


@click.group()
def token() -> None:
    """Make, list and revoke tokens of the registry."""


@token.command()
@click.argument("name")
@click.argument("grants", nargs=-1, required=True, metavar="SCOPE[:NAMESPACE]...")
@click.option("--days", type=click.IntRange(1, 3650), help="Its life; without, until revoked.")
@options.as_json
def create(name: str, grants: tuple[str, ...], days: int | None, *, as_json: bool) -> None:
    """Make a token and show it once, e.g. for read push:acme.

    The scopes are read, push and admin; none includes another. Without a namespace they hold
    everywhere.
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


def _count(least: int) -> click.IntRange:
    return click.IntRange(least, 36500)


@click.group()
def namespace() -> None:
    """Show and set what holds for a namespace as a whole."""


@namespace.command()
@click.argument("name")
@options.as_json
def show(name: str, *, as_json: bool) -> None:
    """Show the rules of a namespace."""
    from rankloom import ref
    from rankloom.sdk import Client

    with Client() as client:
        rules = client.registry.namespace_rules(ref.check_name(name, "namespace"))
    _print(name, rules, as_json=as_json)


def _print(name: str, rules: NamespaceRules, *, as_json: bool) -> None:
    values = rules.model_dump(mode="json")
    if as_json:
        output.as_json(values)
        return
    click.echo(name)
    values["required_signers"] = ", ".join(map(str, rules.required_signers)) or None
    for rule, value in values.items():
        click.echo(f"  {rule.replace('_', '-'):20} {'-' if value is None else value}")


@namespace.command("set")
@click.argument("name")
@click.option("--anonymous-read/--no-anonymous-read", default=None, help="Everybody may read it.")
@click.option("--keep-versions", type=_count(1), help="How many versions of an adapter are kept.")
@click.option("--keep-days", type=_count(0), help="Younger versions are kept in any case.")
@click.option("--purge-yanked-days", type=_count(0), help="When a yanked version is purged.")
@click.option("--quota-bytes", type=click.IntRange(0), help="How much its versions may take.")
@click.option("--no-quota", is_flag=True, help="As much as there is.")
@click.option("--protect", multiple=True, metavar="ALIAS", help="Only admins move this alias.")
@click.option("--unprotect", multiple=True, metavar="ALIAS", help="Pushers move it too.")
@click.option(
    "--require-signature/--no-require-signature",
    default=None,
    help="Give out only versions that one of these signed; replaces those named before.",
)
@options.signers
@click.option("--keep-all", is_flag=True, help="Purge nothing any more.")
@options.as_json
def set_rules(
    name: str,
    *,
    by: options.Signers,
    require_signature: bool | None,
    protect: tuple[str, ...],
    unprotect: tuple[str, ...],
    keep_all: bool,
    no_quota: bool,
    as_json: bool,
    **given: int | None,
) -> None:
    """Set rules of a namespace; those that are not named stay as they are."""
    from rankloom import ref
    from rankloom.sdk import Client

    if bool(by) != bool(require_signature):
        message = "--require-signature and whose: --key, or --identity and --issuer"
        raise click.UsageError(message)
    off = {"keep_versions", "purge_yanked_days"} if keep_all else set()
    off |= {"quota_bytes"} if no_quota else set()
    changed: dict[str, Any] = {
        rule: value for rule, value in given.items() if value is not None or rule in off
    }
    if require_signature is not None:
        changed["required_signers"] = by
    known = ref.check_name(name, "namespace")
    with Client() as client:
        before = client.registry.namespace_rules(known)
        aliases = ({*before.protected_aliases} | {*protect}) - {*unprotect}
        changed["protected_aliases"] = tuple(
            ref.check_name(one, "alias") for one in sorted(aliases)
        )
        rules = client.registry.set_namespace_rules(known, before.model_copy(update=changed))
    _print(name, rules, as_json=as_json)


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
