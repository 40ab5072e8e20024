"""Repairs a folder and proves it: values are compared, and the result is validated again."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import digest
from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS, listing
from rankloom.errors import AdapterError, RankloomError, RefError
from rankloom.files import check_output, output_folder, write_atomic
from rankloom.finding import Severity
from rankloom.manifest import RECORD, FileEntry, Manifest, read_record
from rankloom.repair import draft as drafts
from rankloom.repair import repairs
from rankloom.validate.run import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.base.model import Base
    from rankloom.repair.draft import Draft


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was repaired.

    Attributes:
        folder: where the repaired adapter lies.
        done: each repair: the rule that it is for, and what was done.
    """

    folder: Path
    done: tuple[tuple[str, str], ...]


def repair(
    source: Path, target: Path | None, *, base: Base | None = None, rank: int | None = None
) -> Repaired:
    """Write an adapter's folder with what is mechanical repaired.

    Args:
        source: the folder.
        target: the folder to make; ``None``: repair ``source`` itself.
        base: the base, which tells what names mean where that is open.
        rank: bring the factors to this rank with zeros, for engines that ask for one.

    Raises:
        NotFoundError: there is no such folder, or no adapter in it.
        RefError: keys lack a prefix, and only a base can tell which.
        AdapterError: a file is too broken to be read; or what was repaired is not sound.
        UnsupportedAdapterError: the factors cannot be brought to ``rank``.
        ConflictError: ``target`` exists and is not an empty folder.
    """
    if target is not None:
        check_output(target)
    made = _read(source)
    near = (target or source).absolute().parent
    near.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=near) as name:
        work = Path(name)
        final = _repaired(source, made, work, base, rank)
        if target is None:
            _replace(work, source)
        else:
            with output_folder(target) as folder:
                shutil.copytree(work, folder, dirs_exist_ok=True)
    return Repaired(target or source, final.done)


def _read(source: Path) -> Draft:
    try:
        return drafts.read(source)
    except (ValueError, OSError) as error:
        message = f"{source / CONFIG} cannot be repaired: {error}"
        raise AdapterError(message, hint="save the adapter again with PEFT") from None


def _repaired(source: Path, made: Draft, work: Path, base: Base | None, rank: int | None) -> Draft:
    """Write the first draft that fits, and prove it."""
    candidates = list(_candidates(made, rank))
    if len(candidates) > 1 and base is None:
        message = f"TEN001 the keys of {source} lack a prefix, and it may be one of two"
        raise RefError(message, hint="give the base with --against: its names tell")
    for last, draft in enumerate(candidates, 1):
        for file in listing(source).files:
            shutil.copyfile(file, work / file.name)
        drafts.write(draft, work)
        try:
            _prove(draft, work, base)
        except AdapterError:
            if last == len(candidates):
                raise
        else:
            _record(source, work)
            return draft
    raise AssertionError  # the last candidate returned or raised


def _candidates(made: Draft, rank: int | None) -> Iterator[Draft]:
    for start in repairs.starts(made.parts):
        draft = repairs.prefix(made, start)
        for step in (repairs.adapter_name, repairs.numbers, repairs.imports, repairs.dtypes):
            draft = step(draft)
        yield draft if rank is None else repairs.rank(draft, rank)


def _prove(draft: Draft, work: Path, base: Base | None) -> None:
    """Compare all values with the source, and demand that no repaired rule is broken any more."""
    from rankloom.repair import values

    written = drafts.read(work)
    for key, part in draft.parts.items():
        found = written.parts[key]
        if found.load() != part.load() or not values.same(part):
            message = f"{key} changed its values while it was repaired"
            raise AdapterError(message, hint="nothing was kept; repeat it")
    report = validate(work, base)
    repaired = {rule for rule, _ in draft.done}
    if "TEN001" in repaired and base is not None:
        repaired.add("TEN005")
    left = [found for found in report.findings if found.rule in repaired]
    wrong = [found for found in left if found.severity is Severity.ERROR]
    if wrong:
        message = f"the repair did not hold: {wrong[0]}"
        raise AdapterError(message, hint="nothing was written", findings=wrong)


def _record(source: Path, work: Path) -> None:
    """Keep what the folder says of its base; a lineage is that of other bytes and goes."""
    try:
        record = read_record(source)
    except RankloomError:
        return
    if record is None or record.base is None:
        return
    files = tuple(
        FileEntry(path=file.name, size=file.stat().st_size, digest=digest.of_file(file))
        for file in listing(work).files
    )
    write_atomic(work / RECORD, Manifest(files=files, base=record.base).record())


def _replace(work: Path, source: Path) -> None:
    for name in (TENSORS, CONFIG, RECORD):
        if (work / name).exists():
            (work / name).replace(source / name)
