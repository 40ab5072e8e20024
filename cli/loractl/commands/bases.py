"""Commands over bases."""

from __future__ import annotations

import click

from loractl import options, output
from loractl.overview import Overview


@click.group(cls=Overview)
def base() -> None:
    """Record and fingerprint base models."""


@base.command()
@click.argument("folder", metavar="DIR")
@click.option("--name", help="Its name in the registry (default: the folder's).")
@options.as_json
def add(folder: str, name: str | None, *, as_json: bool) -> None:
    """Record the base in DIR: its fingerprint and headers, not its weights."""
    from rankloom import sdk

    with output.progress("fingerprint") as progress:
        record = sdk.add_base(folder, name, progress=progress)
    if as_json:
        output.as_json(output.dump(record))
    else:
        click.echo(f"{record.name}  {record.fingerprint.exact}")


@base.command("list")
@options.as_json
def list_bases(*, as_json: bool) -> None:
    """List the recorded bases."""
    from rankloom import sdk

    records = sdk.list_bases()
    if as_json:
        output.as_json([output.dump(record) for record in records])
    else:
        rows = ((r.name, r.source, output.short(r.fingerprint.exact or "")) for r in records)
        output.table(("base", "source", "exact"), rows)


@base.command()
@click.argument("name")
@options.as_json
def show(name: str, *, as_json: bool) -> None:
    """Show what the registry has recorded of a base."""
    from rankloom import sdk

    record = sdk.show_base(name)
    if as_json:
        output.as_json(output.dump(record))
        return
    click.echo(f"{record.name}  ({record.source}, {len(record.tensors)} tensors)")
    for level, digest in output.dump(record.fingerprint).items():
        click.echo(f"  {level:6}  {digest}")


@base.command()
@click.argument("folder", metavar="DIR")
@options.as_json
def fingerprint(folder: str, *, as_json: bool) -> None:
    """Print the fingerprint of the base in DIR at all levels; nothing is recorded."""
    from rankloom import sdk

    with output.progress("fingerprint") as progress:
        found = sdk.fingerprint(folder, progress=progress)
    if as_json:
        output.as_json(output.dump(found))
        return
    for level, digest in output.dump(found).items():
        click.echo(f"{level:6}  {digest}")
