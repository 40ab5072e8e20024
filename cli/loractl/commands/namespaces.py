"""Commands over a namespace as a whole: its rules, and whom it trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loractl import options, output
from loractl.overview import Overview

if TYPE_CHECKING:
    from rankloom.registry.wire import NamespaceRules, TrustedPublisher


def _count(least: int) -> click.IntRange:
    return click.IntRange(least, 36500)


@click.group(cls=Overview)
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
    from rankloom.registry.wire import NamespaceRules
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
    aliases = {ref.check_name(one, "alias"): True for one in protect}
    aliases |= {ref.check_name(one, "alias"): False for one in unprotect}
    wanted = NamespaceRules(**changed)
    with Client() as client:
        # First what an older registry does not know: then nothing was changed when it refuses.
        for alias, protected in aliases.items():
            client.registry.protect(known, alias, protected=protected)
        if changed:
            client.registry.set_namespace_rules(known, wanted)
        rules = client.registry.namespace_rules(known)
    _print(name, rules, as_json=as_json)


@namespace.command()
@click.argument("name")
@click.option("--issuer", required=True, help="Who vouches for the job: github, gitlab, …")
@click.option("--repository", required=True, metavar="OWNER/REPO", help="Where its workflow is.")
@click.option("--workflow", required=True, metavar="FILE", help="E.g. publish.yml.")
@click.option("--environment", default="", help="The job's environment; without, any.")
@click.option("--adapter", help="The only adapter that they may push; without, all.")
@options.as_json
def trust(name: str, *, as_json: bool, **given: str | None) -> None:
    """Let jobs of a workflow in CI push to a namespace, without a token that is kept."""
    from pydantic import ValidationError

    from rankloom import ref
    from rankloom.errors import RefError
    from rankloom.registry.wire import TrustRequest
    from rankloom.sdk import Client

    try:
        said = {name: value for name, value in given.items() if value is not None}
        request = TrustRequest.model_validate(said)
    except ValidationError as error:
        found = error.errors()[0]
        message = f"this is no workflow: {found['loc'][0]}: {found['msg']}"
        raise RefError(
            message, hint="e.g. --repository acme/adapters --workflow publish.yml"
        ) from error
    with Client() as client:
        made = client.registry.trust(ref.check_name(name, "namespace"), request)
    if as_json:
        output.as_json(output.dump(made))
    else:
        click.echo(f"{name} trusts {' '.join(_publisher_row(made)[1:])} (number {made.id})")


@namespace.command()
@click.argument("name")
@options.as_json
def trusted(name: str, *, as_json: bool) -> None:
    """List the workflows that may push to a namespace."""
    from rankloom import ref
    from rankloom.sdk import Client

    with Client() as client:
        found = client.registry.trusted_publishers(ref.check_name(name, "namespace")).items
    if as_json:
        output.as_json([output.dump(one) for one in found])
    else:
        columns = ("number", "issuer", "repository", "workflow", "environment", "may push")
        output.table(columns, map(_publisher_row, found))


def _publisher_row(one: TrustedPublisher) -> tuple[str, ...]:
    where = (one.issuer, one.repository, one.workflow, one.environment or "any environment")
    return (str(one.id), *where, one.adapter or "everything")


@namespace.command()
@click.argument("name")
@click.argument("number", type=click.IntRange(1))
def distrust(name: str, number: int) -> None:
    """Let a workflow, by its NUMBER, push no longer; its tokens end at once."""
    from rankloom import ref
    from rankloom.sdk import Client

    with Client() as client:
        client.registry.distrust(ref.check_name(name, "namespace"), number)
    click.echo(f"{name} trusts {number} no longer")
