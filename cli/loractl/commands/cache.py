"""Commands for the cache of pulled versions on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from loractl import options, output
from loractl.overview import Overview

if TYPE_CHECKING:
    from datetime import timedelta

    from rankloom.registry.cache.survey import CachedVersion


@click.group(cls=Overview)
def cache() -> None:
    """See, check and clear what was pulled to this machine.

    It lies under RANKLOOM_HOME, and whatever is removed is fetched again by the next pull.
    """


@cache.command("list")
@options.as_json
def list_versions(*, as_json: bool) -> None:
    """List the versions that are here, the one used last first."""
    from rankloom.sdk import Client

    with Client() as client:
        found = client.cache.survey()
    if as_json:
        versions = [_described(version) for version in found.versions]
        output.as_json({"bytes": found.nbytes, "versions": versions})
    elif not found.versions:
        click.echo("the cache is empty; 'loractl pull' fills it")
    else:
        output.table(("digest", "size", "used", "refs"), map(_row, found.versions))
        click.echo(f"{len(found.versions)} versions, {output.size(found.nbytes)}")


@cache.command()
@click.option("--repair", is_flag=True, help="Remove what is damaged; the next pull fetches it.")
@options.as_json
@click.pass_context
def verify(context: click.Context, *, repair: bool, as_json: bool) -> None:
    """Hash every byte again; exit code 8 if something is not what its name says."""
    from rankloom.errors import IntegrityError
    from rankloom.sdk import Client

    with Client() as client, output.progress("cache verify") as progress:
        found = client.cache.verify(repair=repair, progress=progress)
    repaired = bool(found.damaged) and all(one.removed for one in found.damaged)
    if as_json:
        damaged = [
            {"path": str(one.path), "expected": one.digest, "found": one.found}
            for one in found.damaged
        ]
        counted = {"blobs": found.blobs, "versions": found.versions, "bytes": found.nbytes}
        output.as_json({**counted, "damaged": damaged, "repaired": repaired})
    else:
        size = output.size(found.nbytes)
        click.echo(f"{found.blobs} blobs hashed ({size}), {found.versions} versions compared")
        for one in found.damaged:
            state = "removed" if one.removed else "in use" if repair else "damaged"
            click.echo(f"  {state}: {one.path}, {one.digest}: {one.found}")
        if found.damaged and not repair:
            click.echo("'loractl cache verify --repair' removes them; then pull again")
        elif found.damaged and not repaired:
            click.echo("what is in use is removed once the process that uses it has ended")
    if found.damaged:
        context.exit(IntegrityError.exit_code)


@cache.command()
@click.option(
    "--older-than",
    type=options.duration,
    metavar="30d|12h",
    help="Remove versions that were not used for so long.",
)
@click.option(
    "--max-size",
    "max_bytes",
    type=options.byte_count,
    metavar="20GB",
    help="Remove versions, those first that were used least lately, until so much is left.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; tell what would be removed now.")
@options.as_json
def prune(
    older_than: timedelta | None, max_bytes: int | None, *, dry_run: bool, as_json: bool
) -> None:
    """Remove versions by age or size, and always what pulls left that broke over an hour ago.

    What a process uses stays, whatever its age.
    """
    from rankloom.sdk import Client

    with Client() as client:
        done = client.cache.prune(older_than=older_than, max_bytes=max_bytes, dry=dry_run)
    if as_json:
        shown = {
            "versions": [_described(version) for version in done.versions],
            "in_use": [_described(version) for version in done.in_use],
        }
        counted = {"blobs": done.blobs, "leftovers": done.leftovers, "bytes": done.nbytes}
        output.as_json({**shown, **counted, "dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    click.echo(
        f"{len(done.versions)} versions, {done.blobs} blobs and {done.leftovers} leftovers"
        f" {would}removed, {output.size(done.nbytes)}"
    )
    for version in done.versions:
        click.echo(f"  {' '.join(_row(version))}")
    for version in done.in_use:
        click.echo(f"  in use, so it stays: {' '.join(_row(version))}")


def _described(version: CachedVersion) -> dict[str, Any]:
    known = [
        {"registry": said.registry, "ref": said.ref, "resolved_at": said.at.isoformat()}
        for said in version.known_as
    ]
    return {
        "digest": version.digest,
        "bytes": version.nbytes,
        "missing_bytes": version.missing,
        "used_at": version.used_at.isoformat(),
        "refs": known,
    }


def _row(version: CachedVersion) -> tuple[str, ...]:
    return (
        output.short(version.digest),
        output.size(version.nbytes) + (" (not all)" if version.missing else ""),
        version.used_at.strftime("%Y-%m-%d %H:%M"),
        ", ".join(version.refs) or "-",
    )
