"""What the library says about uploaded files: the client's rules, which no upload can skip."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankloom.errors import AdapterError, RankloomError
from rankloom.finding import Finding
from rankloom.registry.wire import AdapterFacts
from rankloom_server.publish.materialise import header_digest

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.adapter.reader import Adapter
    from rankloom.manifest import Manifest
    from rankloom.registry.wire import BaseRecord
    from rankloom.tensorfile.tensor_digest import Leaf


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the registry keeps of an adapter beside its files.

    Attributes:
        facts: what the catalogue shows.
        contents: digests of its tensors' contents, see :mod:`rankloom_server.tensors`; ``None``:
            the tensors were not read.
        verdicts: what each engine does with it; empty: judging it failed.
        header_digest: by which its header is known again, see
            :func:`rankloom_server.publish.materialise.header_digest`.
    """

    facts: AdapterFacts
    contents: frozenset[bytes] | None
    verdicts: dict[str, str]
    header_digest: str


def examine(
    folder: Path, manifest: Manifest, base: BaseRecord | None, beside: BaseRecord | None
) -> Examined:
    """Validate a materialised adapter and derive what is kept of it.

    Args:
        folder: the adapter's.
        manifest: the version's.
        base: the base that it must fit.
        beside: the base beside which engines are judged.

    Raises:
        AdapterError: a rule found an error; all findings are in it.
        IncompatibleError: the adapter does not fit the base.
    """
    try:
        adapter, tensors = _read_valid(folder, manifest, base)
    except RankloomError as error:
        raise _without_folder(error, folder) from error
    return _examined(adapter, tensors, _judge_if_possible(adapter, manifest, beside))


def _judge_if_possible(
    adapter: Adapter, manifest: Manifest, base: BaseRecord | None
) -> dict[str, str]:
    """Return verdicts, or none: what is valid is published, though our tables have a fault."""
    try:
        return judge(adapter, manifest, base)
    except Exception:  # noqa: BLE001 - whatever it is, the index tries again and names it
        _LOG.exception("engines could not be judged for %s", manifest.digest)
        return {}


def derive(
    folder: Path, manifest: Manifest, base: BaseRecord | None, known: AdapterFacts | None
) -> Examined:
    """Derive anew what is kept of a version.

    Args:
        folder: the adapter's.
        manifest: the version's.
        base: the base that is recorded for it.
        known: what was kept until now: of the tensors only the header is read, and their digest is
            taken from here. ``None``: they are read whole.

    Raises:
        AdapterError: the present readers refuse it.
    """
    from rankloom.adapter.reader import read
    from rankloom.tensorfile.tensor_digest import leaves

    try:
        adapter = read(folder)
    except RankloomError as error:
        raise _without_folder(error, folder) from error
    verdicts = judge(adapter, manifest, base)
    if known is None:
        return _examined(adapter, leaves(adapter.header.tensors.values()), verdicts)
    return Examined(
        _facts(adapter, known.tensors), None, verdicts, header_digest(adapter.header.path)
    )


def judge(adapter: Adapter, manifest: Manifest, base: BaseRecord | None) -> dict[str, str]:
    """Return what each engine does with an adapter, beside the base that is recorded for it."""
    from rankloom.registry.base_record import from_record
    from rankloom.validate.verdicts import verdicts

    if base is None or not base.tensors:
        return {**verdicts(adapter)}
    same = None if manifest.base is None else manifest.base.match(base.fingerprint) is not None
    return {**verdicts(adapter, from_record(base), same=same)}


def _examined(adapter: Adapter, tensors: list[Leaf], verdicts: dict[str, str]) -> Examined:
    from rankloom.tensorfile.tensor_digest import contents, tensor_digest

    facts = _facts(adapter, tensor_digest(tensors))
    return Examined(facts, contents(tensors), verdicts, header_digest(adapter.header.path))


def _facts(adapter: Adapter, tensors: str | None) -> AdapterFacts:
    return AdapterFacts(
        kinds=adapter.kinds,
        ranks=adapter.ranks,
        targets=tuple(target.name for target in adapter.targets),
        parameters=adapter.parameters,
        nbytes=adapter.nbytes,
        tensors=tensors,
    )


def _read_valid(
    folder: Path, manifest: Manifest, base: BaseRecord | None
) -> tuple[Adapter, list[Leaf]]:
    """Return a valid adapter and its tensors with their digests."""
    from rankloom.adapter.reader import read
    from rankloom.registry.base_record import from_record
    from rankloom.tensorfile.tensor_digest import leaves
    from rankloom.validate import validate

    adapter = read(folder)
    _check_files(adapter, manifest)
    with ThreadPoolExecutor(1) as pool:  # hashing holds no lock, so it takes another core
        hashed = pool.submit(leaves, adapter.header.tensors.values())
        if base is None or not base.tensors:
            report = validate(adapter)
        else:
            report = validate(
                adapter, from_record(base), expected=manifest.base, found=base.fingerprint
            )
    report.raise_for_errors()
    return adapter, hashed.result()


def _check_files(adapter: Adapter, manifest: Manifest) -> None:
    """Refuse what the reader would leave out: in a version everything has a meaning."""
    belongs = {file.relative_to(adapter.path).as_posix() for file in adapter.files}
    findings = [
        Finding("SEC001", f"{entry.path} is no part of an adapter", where=entry.path)
        for entry in manifest.files
        if entry.path not in belongs
    ]
    if findings:
        message = f"the version has {len(findings)} files that are no part of an adapter"
        raise AdapterError(
            message, hint="push with rankloom, it leaves them out", findings=findings
        )


def _without_folder(error: RankloomError, folder: Path) -> RankloomError:
    """Return the error without the server's paths, which are nobody's business."""

    def plain(text: str) -> str:
        return text.replace(f"{folder}/", "").replace(str(folder), "the adapter")

    findings = [
        replace(found, message=plain(found.message), where=plain(found.where), fix=plain(found.fix))
        for found in error.findings
    ]
    return type(error)(plain(error.message), hint=plain(error.hint), findings=findings)
