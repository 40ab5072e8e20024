"""What the library says about uploaded files: the client's rules, which no upload can skip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.registry.wire import AdapterFacts

if TYPE_CHECKING:
    from pathlib import Path

    from rankloom.manifest import Manifest
    from rankloom.registry.wire import BaseRecord


def examine(folder: Path, manifest: Manifest, base: BaseRecord | None) -> AdapterFacts:
    """Validate a materialised adapter and derive what the catalogue shows of it.

    Raises:
        AdapterError: a rule found an error; all findings are in it.
        IncompatibleError: the adapter does not fit the base.
    """
    from rankloom.base.record import from_record

    from rankloom.adapter import reader
    from rankloom.validate import validate

    known = base if base is not None and base.tensors else None
    report = validate(
        folder,
        from_record(known) if known else None,
        expected=manifest.base if known else None,
        found=known.fingerprint if known else None,
    )
    report.raise_for_errors()
    adapter = reader.read(folder)
    return AdapterFacts(
        kinds=tuple(adapter.kinds),
        ranks=tuple(adapter.ranks),
        targets=tuple(target.name for target in adapter.targets),
        parameters=adapter.parameters,
        nbytes=adapter.nbytes,
    )
