"""Commands for who runs a registry, on the machine that holds its database's address."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loractl import options, output
from loractl.overview import Overview

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom_server.service import Service


@click.group(cls=Overview)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="The registry's folder (default: what RANKLOOM_SERVER_… say, else the embedded one).",
)
@click.pass_context
def admin(context: click.Context, data_dir: Path | None) -> None:
    """Look after a registry: collect garbage, check, back up, restore.

    Everybody may go on working meanwhile.
    """
    context.obj = data_dir


@contextlib.contextmanager
def _opened(data_dir: Path | None) -> Iterator[Service]:
    service = _open(data_dir)
    try:
        yield service
    finally:
        service.close()


def _open(data_dir: Path | None) -> Service:
    from rankloom import config
    from rankloom_server.service import open_embedded

    if data_dir is not None or "RANKLOOM_SERVER_DATA_DIR" not in os.environ:
        return open_embedded(data_dir or config.load().registry_dir)
    from rankloom_server.settings import Settings
    from rankloom_server.wiring import open_service

    return open_service(Settings())


@admin.command()
@click.option("--dry-run", is_flag=True, help="Change nothing; tell what would be done now.")
@click.option(
    "--grace-hours",
    default=24,
    show_default=True,
    type=click.IntRange(1),
    help="How long a blob must have been unwanted before each of the two passes.",
)
@options.as_json
@click.pass_obj
def gc(data_dir: Path | None, grace_hours: int, *, dry_run: bool, as_json: bool) -> None:
    """Purge versions that the rules of their namespace let go, and remove unnamed blobs.

    A blob that nobody names is condemned first, and deleted by a run a day later if nobody wanted
    it meanwhile; so run this daily.
    """
    from rankloom_server.collect import Collector

    with _opened(data_dir) as service:
        grace = timedelta(hours=grace_hours)
        done = Collector(service.engine, service.store, service.actor, grace).run(dry=dry_run)
    if as_json:
        output.as_json(asdict(done))
        return
    would = "would be " if dry_run else ""
    click.echo(f"{len(done.purged)} versions {would}purged")
    for name in done.purged:
        click.echo(f"  {name}")
    click.echo(f"{len(done.condemned)} blobs {would}condemned")
    click.echo(f"{len(done.deleted)} blobs {would}deleted, {output.size(done.nbytes)}")
    if done.abandoned:
        click.echo(f"{done.abandoned} blobs given up of which only parts had come")


@admin.command()
@click.option("--rehash", is_flag=True, help="Read and hash every blob that a version names.")
@click.option(
    "--repair",
    is_flag=True,
    help="Let the next push bring damaged blobs anew, and gc remove unknown ones.",
)
@options.as_json
@click.pass_context
def fsck(context: click.Context, *, rehash: bool, repair: bool, as_json: bool) -> None:
    """Compare database and store in both directions; exit code 8 if a version is not whole."""
    from rankloom.errors import IntegrityError
    from rankloom_server import fsck as checking

    with _opened(context.obj) as service, output.progress("fsck") as progress:
        found = checking.check(service.engine, service.store, rehash=rehash, progress=progress)
        if repair:
            checking.adopt(service.engine, service.actor, found)
            checking.note_damage(service.engine, service.actor, found)
    if as_json:
        output.as_json({**asdict(found), "sound": found.sound})
    else:
        click.echo(f"{found.versions} versions, {found.blobs} blobs, {found.rehashed} hashed")
        for what in ("missing", "damaged", "unknown"):
            for line in getattr(found, what):
                click.echo(f"  {what}: {line}")
    if not found.sound:
        context.exit(IntegrityError.exit_code)


@admin.command()
@click.option("--limit", type=click.IntRange(1), help="Judge at most so many; repeat for the rest.")
@options.as_json
@click.pass_context
def index(context: click.Context, limit: int | None, *, as_json: bool) -> None:
    """Judge versions anew that other tables of engines judged, or none.

    Run it after an upgrade: until then 'search --engine' leaves them out, and says so. Ranks and
    kinds are derived anew, too. Versions of which single tensors (for 'related') or the header's
    digest are not known are read whole. It may be stopped at any time and goes on from there;
    exit code 3 if a version could not be judged.
    """
    from rankloom.errors import RankloomError
    from rankloom_server import index as indexing

    with _opened(context.obj) as service:
        done = indexing.run(service, limit)
    if as_json:
        output.as_json(asdict(done))
    else:
        click.echo(f"{done.judged} versions judged, {done.read} of them read whole")
        for line in done.failed:
            click.echo(f"  failed: {line}")
        if done.left:
            click.echo(f"{done.left} versions are left")
    if done.failed:
        context.exit(RankloomError.exit_code)


@admin.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@options.as_json
@click.pass_obj
def backup(data_dir: Path | None, folder: Path, *, as_json: bool) -> None:
    """Write the registry as it is now into DIR, or renew the backup there.

    DIR is a registry itself: 'loractl serve --data-dir DIR' opens it. Every blob is hashed on its
    way, and those that DIR has already are not copied again.
    """
    from rankloom_server import backup as copying

    with _opened(data_dir) as service, output.progress("backup") as progress:
        copied = copying.backup(service.engine, service.store, folder, progress)
    if as_json:
        output.as_json(asdict(copied))
    else:
        click.echo(f"{copied.rows} rows, {copied.blobs} blobs; {copied.sent} of them copied")


@admin.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True))
@options.as_json
@click.pass_obj
def restore(data_dir: Path | None, folder: Path, *, as_json: bool) -> None:
    """Fill an empty registry, on whatever database and store, from the backup in DIR."""
    from rankloom_server import backup as copying

    with _opened(data_dir) as service, output.progress("restore") as progress:
        copied = copying.restore(folder, service.engine, service.store, progress)
    if as_json:
        output.as_json(asdict(copied))
    else:
        click.echo(f"{copied.rows} rows and {copied.blobs} blobs restored")
