"""Commands over the catalogue: push, pull, list, show, alias, yank."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from loractl import options, output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rankloom.registry.wire import AdapterDetail, AdapterRecord, Version
    from rankloom.signing.signers import SigningKey


@click.command()
@click.argument("folder", metavar="DIR")
@click.argument("name")
@click.option("--base", metavar="DIR|NAME", help="The base it was trained on.")
@click.option("--alias", help="Let this alias name the new version.")
@click.option("--version", "semver", metavar="1.2.0", help="Its semantic version.")
@click.option(
    "--sign-with",
    metavar="PEM",
    help="Sign it with this private key first; RANKLOOM_KEY_PASSWORD is its password.",
)
@click.option("--probe", is_flag=True, help="Run the base on a few tokens; keep the answer.")
@options.as_json
def push(
    folder: str,
    name: str,
    base: str | None,
    alias: str | None,
    semver: str | None,
    sign_with: str | None,
    *,
    probe: bool,
    as_json: bool,
) -> None:
    """Make the adapter in DIR a version of NAME.

    The adapter is validated first, on its own and against its base. Pushing the same content
    twice is the same version and moves no bytes.

    --probe runs the base, a folder, without and with the adapter: an adapter without effect is
    refused, and 'loractl validate REF --against DIR --probe' compares the answer later.
    """
    from rankloom import sdk

    with output.progress(f"push {name}") as progress:
        version = sdk.push(
            folder,
            name,
            base=base,
            alias=alias,
            semver=semver,
            sign_with=_signing_key(sign_with),
            probe=probe,
            progress=progress,
        )
    if as_json:
        output.as_json(output.dump(version))
        return
    named = f", {', '.join(version.aliases)}" if version.aliases else ""
    tied = f" on {version.base}" if version.base else ""
    click.echo(f"{version.adapter}@v{version.number}{named}{tied}  {version.digest}")


def _signing_key(file: str | None) -> SigningKey | None:
    if file is None:
        return None
    from pathlib import Path

    from rankloom.signing.signers import SigningKey

    return SigningKey(Path(file), os.environ.get("RANKLOOM_KEY_PASSWORD"))


@click.command()
@click.argument("ref")
@options.output("Make a copy there; without it, the path in the cache is printed.")
@click.option("--require-signature", is_flag=True, help="Refuse it unless one of these signed it.")
@options.signers
@options.offline
@options.as_json
def pull(
    ref: str, target: Path | None, by: options.Signers, *, require_signature: bool, as_json: bool
) -> None:
    """Fetch the version that REF names, every byte verified, and print its folder."""
    from rankloom import sdk

    if require_signature != bool(by):
        message = "--require-signature and whose: --key, or --identity and --issuer"
        raise click.UsageError(message)
    with output.progress(f"pull {ref}") as progress:
        folder = sdk.pull(ref, target, signed_by=by or None, progress=progress)
    if as_json:
        output.as_json({"ref": ref, "path": str(folder)})
    else:
        click.echo(folder)


@click.command("list")
@click.argument("query", default="")
@click.option("--namespace", help="Only this namespace.")
@options.as_json
def list_adapters(query: str, namespace: str | None, *, as_json: bool) -> None:
    """List the adapters of the registry, or those whose name or card has QUERY in it."""
    from rankloom import sdk

    records = list(sdk.list(query, namespace=namespace))
    if as_json:
        output.as_json([output.dump(record) for record in records])
    elif not records:
        click.echo("no adapters" + (f" match {query!r}" if query else "; 'loractl push' adds one"))
    else:
        columns = ("adapter", "latest", "kind", "rank", "targets", "size", "base", "aliases")
        output.table(columns, (_row(record) for record in records))


def _row(record: AdapterRecord) -> tuple[str, ...]:
    from rankloom.ref import AdapterName

    name = str(AdapterName(record.namespace, record.name))
    if record.latest is None:
        return (name, "-", "", "", "", "", "", "")
    return (name, f"v{record.latest.number}", *_facts(record.latest))


def _facts(version: Version) -> tuple[str, ...]:
    facts = version.facts
    return (
        ", ".join(facts.kinds),
        ", ".join(str(rank) for rank in facts.ranks),
        str(len(facts.targets)),
        output.size(facts.nbytes),
        version.base or "-",
        ", ".join(version.aliases),
    )


@click.command()
@click.argument("name")
@options.as_json
def show(name: str, *, as_json: bool) -> None:
    """Show an adapter with all its versions."""
    from rankloom import sdk

    detail = sdk.show(name)
    if as_json:
        output.as_json(output.dump(detail))
        return
    columns = ("version", "digest", "kind", "rank", "targets", "size", "base", "aliases", "pushed")
    output.table(columns, (_version_row(version) for version in detail.versions))
    for line in _verdicts(detail):
        click.echo(line)
    if detail.card:
        click.echo(detail.card)


def _verdicts(detail: AdapterDetail) -> Iterator[str]:
    """Yield what engines do with the newest version that is kept, by verdict."""
    newest = next((one for one in detail.versions if one.purged_at is None), None)
    if newest is None:
        return
    engines = detail.verdicts.get(newest.digest)
    if engines is None:
        yield f"v{newest.number} was not judged by the present tables of engines yet"
        return
    beside = f"on {newest.base}" if newest.base else "without its base"
    yield f"v{newest.number} in engines as they start by default, {beside}:"
    for verdict in sorted(set(engines.values())):
        found = sorted(engine for engine in engines if engines[engine] == verdict)
        yield f"  {verdict}: {', '.join(found)}"


def _version_row(version: Version) -> tuple[str, ...]:
    number = f"v{version.number}" + (f" {version.semver}" if version.semver else "")
    number += " (yanked)" if version.yanked is not None else ""
    pushed = version.created_at.strftime("%Y-%m-%d %H:%M")
    return (number, output.short(version.digest), *_facts(version), pushed)


@click.command()
@click.argument("ref")
@click.argument("alias")
@click.option("--expected", metavar="DIGEST", help="Move it only if it names this version now.")
@options.as_json
def alias(ref: str, alias: str, expected: str | None, *, as_json: bool) -> None:
    """Let ALIAS name the version that REF resolves to.

    If somebody else moves the alias meanwhile, nothing happens and the command says so.
    """
    from rankloom import sdk

    move = sdk.alias(ref, alias, expected=expected)
    if as_json:
        output.as_json(output.dump(move))
        return
    before = output.short(move.before) if move.before else "(new)"
    click.echo(f"{move.alias}: {before} -> {output.short(move.after)}")


@click.command()
@click.argument("ref")
@click.option("--reason", help="Why; shown to everybody who asks for this version.")
@click.option("--undo", is_flag=True, help="Bring a yanked version back.")
@options.as_json
def yank(ref: str, reason: str | None, *, undo: bool, as_json: bool) -> None:
    """Withdraw the version that REF names: 'latest' skips it, its bytes stay."""
    from rankloom import sdk

    if not undo and not reason:
        message = "--reason is needed, so that others learn why (or --undo)"
        raise click.UsageError(message)
    version = sdk.unyank(ref) if undo else sdk.yank(ref, reason or "")
    if as_json:
        output.as_json(output.dump(version))
    else:
        state = "is back" if undo else "is yanked"
        click.echo(f"{version.adapter}@v{version.number} {state}")
