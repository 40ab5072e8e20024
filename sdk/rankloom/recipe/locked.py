"""Composing again what a lock pins, and no other byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from rankloom import ref
from rankloom.errors import IntegrityError, NotFoundError, RefError
from rankloom.manifest import RECORD, Manifest
from rankloom.recipe.recipe import Lock

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from rankloom.recipe.part import Part

    PathLike = str | os.PathLike[str]

_HINT = "compose without the lock, or take the adapters and the recipe that it was made of"


class Locked(NamedTuple):
    """What is to be reproduced.

    Attributes:
        record: files and their digests, base and lock of the composition.
        lock: the lock in it.
    """

    record: Manifest
    lock: Lock


def read_locked(path: Path) -> Locked:
    """Read the record of a composition.

    Args:
        path: its folder, its ``rankloom.json``, or a copy of that under any name.

    Raises:
        NotFoundError: there is none.
        RefError: it is none, or of something that was not composed.
    """
    file = path / RECORD if path.is_dir() else path
    if not file.is_file():
        message = f"there is no lock {file}"
        raise NotFoundError(message, hint=f"name a composition's folder or its {RECORD}")
    try:
        record = Manifest.model_validate_json(file.read_bytes())
        lock = Lock.model_validate(record.lock)
    except ValidationError as error:
        message = f"MRG008 {file} holds no lock of a composition: {error.errors()[0]['msg']}"
        raise RefError(message, hint=f"name a composition's folder or its {RECORD}") from error
    return Locked(record, lock)


def pinned(refs: Sequence[PathLike], lock: Lock) -> list[PathLike]:
    """Return refs with the versions of the lock, whatever aliases name by now.

    Raises:
        IntegrityError: there are not as many adapters, or a ref names another version itself.
    """
    if len(refs) != len(lock.parts):
        message = f"MRG008 {len(refs)} adapters, but the lock has {len(lock.parts)}"
        raise IntegrityError(message, hint=_HINT)
    return [_pin(item, part.digest) for item, part in zip(refs, lock.parts, strict=True)]


def _pin(item: PathLike, digest: str) -> PathLike:
    where = ref.parse(item)
    if isinstance(where, Path) or where.number is not None:
        return item  # its digest is compared once it is known
    if where.digest not in {None, digest}:
        message = f"MRG008 {item} is not what the lock has, {digest}"
        raise IntegrityError(message, hint=_HINT)
    return str(ref.VersionRef(where.adapter, digest=digest))


def check_parts(parts: Sequence[Part], lock: Lock) -> None:
    """Demand that adapters are those of a lock.

    Raises:
        IntegrityError: naming the first that is another.
    """
    for part, locked in zip(parts, lock.parts, strict=True):
        if part.digest != locked.digest:
            message = f"MRG008 {part.label} is {part.digest}, the lock has {locked.digest}"
            raise IntegrityError(message, hint=_HINT)


def check_lock(found: Lock, wanted: Lock) -> None:
    """Demand that a recipe gives a lock again.

    Raises:
        IntegrityError: naming what differs.
    """
    one, two = found.to_json(), wanted.to_json()
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            message = f"MRG008 the recipe and the lock differ in {name}: {one.get(name)} here,"
            message += f" {two.get(name)} there"
            raise IntegrityError(message, hint=_HINT)


def check_record(found: Manifest, wanted: Manifest) -> None:
    """Demand that a composition is the recorded one, byte for byte.

    Raises:
        IntegrityError: naming the files that differ.
    """
    if found.digest == wanted.digest:
        return
    mine, theirs = ({(one.path, one.digest) for one in record.files} for record in (found, wanted))
    what = ", ".join(sorted({path for path, _ in mine ^ theirs})) or "base or lock"
    message = f"MRG008 the composition is {found.digest}, the lock has {wanted.digest}: {what}"
    hint = "nothing was kept; another version of torch, or another processor, may round otherwise"
    raise IntegrityError(f"{message} differ", hint=hint)
