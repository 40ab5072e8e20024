"""Repairs before a validation: into a new folder, or in place if that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


def apply(
    adapters: Sequence[str],
    target: Path | None,
    against: str | None,
    *,
    in_place: bool,
    rank: int | None,
) -> tuple[str, ...]:
    """Repair adapters, say what was done, and return the folders to validate.

    Args:
        adapters: their folders.
        target: the folder to make, for one adapter.
        against: the base's folder or name.
        in_place: repair the folders themselves.
        rank: fill up to this rank.

    Raises:
        UsageError: (click's) the options do not fit together.
    """
    from rankloom import ref, sdk

    if (target is None) is not in_place:
        message = "a fix needs either --fix DIR or --fix-in-place"
        raise click.UsageError(message)
    if target is not None and len(adapters) > 1:
        message = "--fix DIR takes one adapter; --fix-in-place takes several"
        raise click.UsageError(message)
    folders = []
    for adapter in adapters:
        place = ref.parse(adapter)
        if not isinstance(place, Path):
            message = f"{adapter} is a version of the registry, which never changes; pull it first"
            raise click.UsageError(message)
        repaired = sdk.repair(place, target, against=against, rank=rank)
        for rule, what in repaired.done or (("", "nothing to repair"),):
            click.echo(f"{adapter}: {rule} {what}".replace("  ", " "), err=True)
        folders.append(_name(repaired.folder))
    return tuple(folders)


def _name(folder: Path) -> str:
    text = folder.as_posix()
    return text if text.startswith((".", "/")) else f"./{text}"
