"""Reads an adapter's folder into a value, from its config and headers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from rankloom.adapter import config_reader, keys
from rankloom.adapter.change import rank_of
from rankloom.adapter.config import FILE as CONFIG
from rankloom.adapter.folder import TENSORS, listing
from rankloom.errors import AdapterError, NotFoundError
from rankloom.finding import Finding, Severity
from rankloom.manifest import Manifest, read_record
from rankloom.tensorfile.header import Header, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.adapter.change import Target
    from rankloom.adapter.config import AdapterConfig
    from rankloom.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter; its values stay in its file.

    Attributes:
        path: its folder.
        config: what its config says.
        targets: the base tensors that it changes, by name.
        files: the files of the folder that belong to a version, by name.
        record: the manifest that the folder carries, if it was pulled or composed.
        findings: what is odd, but no error.
        header: header of its tensor file.
    """

    path: Path
    config: AdapterConfig
    targets: tuple[Target, ...]
    files: tuple[Path, ...]
    record: Manifest | None
    findings: tuple[Finding, ...]
    header: Header

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of its changes, each once."""
        return tuple(sorted({target.kind for target in self.targets}))

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of its changes, each once, ascending; changes without two factors have none."""
        ranks = {rank_of(target.change) for target in self.targets}
        return tuple(sorted(rank for rank in ranks if rank is not None))

    @property
    def parameters(self) -> int:
        """Number of values in its tensors."""
        return sum(math.prod(entry.shape) for entry in self.header.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(entry.nbytes for entry in self.header.tensors.values())

    @property
    def base(self) -> Fingerprint | None:
        """Fingerprint of the base that its record names."""
        return self.record.base if self.record else None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A folder as far as it could be read, and everything that was found on the way.

    ``adapter`` is ``None`` if any finding is an error.
    """

    path: Path
    adapter: Adapter | None
    findings: tuple[Finding, ...]


def read(path: Path) -> Adapter:
    """Read an adapter.

    Args:
        path: the folder that PEFT's ``save_pretrained`` or a Trainer wrote.

    Raises:
        NotFoundError: there is no such folder, or no adapter in it.
        AdapterError: it is broken; ``findings`` holds everything that is wrong.
        UnsupportedAdapterError: it is sound, but of a kind that rankloom cannot treat exactly.
    """
    if not path.is_dir():
        message = f"there is no adapter folder {path}"
        raise NotFoundError(message, hint=f"give the folder that holds {CONFIG} and {TENSORS}")
    inspection = inspect(path)
    config_reader.raise_for(inspection.findings, path)
    return cast(Adapter, inspection.adapter)


def inspect(path: Path) -> Inspection:
    """Read an adapter's folder and report what is wrong instead of raising it.

    Raises:
        NotFoundError: there is no such folder.
    """
    if not path.is_dir():
        message = f"there is no adapter folder {path}"
        raise NotFoundError(message, hint=f"give the folder that holds {CONFIG} and {TENSORS}")
    found = listing(path)
    findings = [*found.findings, *_missing(path)]
    names = {file.name for file in found.files}
    config, header, record = None, None, None
    if CONFIG in names:
        config, wrong = config_reader.inspect(path / CONFIG)
        findings += wrong
    if TENSORS in names:
        header = _header(path / TENSORS, findings)
    try:
        record = read_record(path)
    except AdapterError as error:
        findings.append(Finding("CFG001", error.message, where="rankloom.json", fix=error.hint))
    targets = _targets(config, header, findings)
    if config is None or header is None or _has_error(findings):
        return Inspection(path, None, tuple(findings))
    harmless = tuple(findings)
    adapter = Adapter(path, config, targets, found.files, record, harmless, header)
    return Inspection(path, adapter, harmless)


def _missing(path: Path) -> list[Finding]:
    return [
        Finding(rule, f"{path} has no {name}", where=name, fix="save the adapter again with PEFT")
        for rule, name in (("CFG001", CONFIG), ("FMT001", TENSORS))
        if not (path / name).exists()
    ]


def _header(path: Path, findings: list[Finding]) -> Header | None:
    try:
        header = read_header(path)
    except AdapterError as error:
        findings += error.findings
        return None
    findings += header.findings
    return header


def _targets(
    config: AdapterConfig | None, header: Header | None, findings: list[Finding]
) -> tuple[Target, ...]:
    if config is None or header is None:
        return ()
    reading = keys.read(config, header.tensors)
    findings += reading.findings
    return reading.targets


def _has_error(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.ERROR for finding in findings)
