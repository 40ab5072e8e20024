"""Which base is meant: a folder on this machine, or one that the registry has recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import ref
from rankloom.errors import AdapterError, NotFoundError
from rankloom.fingerprint import Level

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from rankloom.adapter.reader import Adapter
    from rankloom.base.model import Base
    from rankloom.config import Settings
    from rankloom.fingerprint import Fingerprint
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import BaseRecord

_SNAPSHOT = re.compile(r"/models--([^/]+)/snapshots/([0-9a-f]{40})/?$")
CACHE = "fingerprints"
"""Folder of cached fingerprints inside the cache."""


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A base with its fingerprint.

    Attributes:
        model: config and headers.
        fingerprint: its identity; only ``struct`` and ``cfg`` if the values were not read.
        source: the repository or folder it was read from, or what its record says.
        name: its name in the registry, if it came from there.
        leaves: digest of each tensor (:class:`rankloom.base.fingerprint.Measured`), if known.
    """

    model: Base
    fingerprint: Fingerprint
    source: str
    name: str | None = None
    leaves: Mapping[str, str] = field(default_factory=dict)

    def to_record(self, name: str) -> BaseRecord:
        """Return what the registry keeps of it."""
        from rankloom.registry.base_record import to_record

        return to_record(self.model, name, self.fingerprint, self.source, self.leaves)


def is_folder(base: str | os.PathLike[str]) -> bool:
    """Say whether ``base`` is meant as a folder: a name has no slash."""
    return not isinstance(base, str) or "/" in base or base.startswith((".", "~"))


def read(
    settings: Settings,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    values: bool = True,
) -> KnownBase:
    """Read a base's folder and compute its fingerprint (cached until a file changes).

    Raises:
        NotFoundError: there is no such folder.
        BaseError: it holds no base that can be read.
    """
    from rankloom.base import reader
    from rankloom.base.fingerprint import measure

    folder = folder.expanduser()
    if not folder.is_dir():
        message = f"there is no base folder {folder}"
        raise NotFoundError(message, hint="give the folder with config.json and *.safetensors")
    model = reader.read(folder)
    cache = settings.cache_dir / CACHE
    found = measure(model, values=values, cache=cache, progress=progress)
    return KnownBase(model, found.fingerprint, _source(folder), leaves=found.leaves)


def is_remote(address: object) -> bool:
    """Say whether a base is named by an address."""
    from rankloom.base import remote as reading

    return reading.is_address(address)


def remote(address: object) -> KnownBase | None:
    """Return the base behind an address, from its headers alone; ``None`` if it is no address.

    Raises:
        BaseError: it cannot be read.
        NotFoundError: there is no base.
    """
    from rankloom.base import remote as reading

    if not reading.is_address(address):
        return None
    model, found = reading.read(str(address))
    return KnownBase(model, found, str(address))


def _source(folder: Path) -> str:
    """Return where a folder says it is from: repository and commit in Hugging Face's cache."""
    place = folder.absolute()
    matched = _SNAPSHOT.search(place.as_posix())
    return f"{matched[1].replace('--', '/', 1)}@{matched[2]}" if matched else place.name


def apart(
    registry: Callable[[], Registry], settings: Settings, adapter: Path, known: KnownBase
) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
    """Return what tells an adapter's recorded base and another one apart, tensor by tensor.

    Args:
        registry: gives the registry; asked only if this machine did not hash the recorded base.
        settings: where hashes are kept.
        adapter: the adapter's folder.
        known: the other base.

    Returns:
        Digests by canonical name of the recorded base and of the other one; ``None`` if they agree
        or nothing is recorded.
    """
    from rankloom.manifest import read_record

    try:
        record = read_record(adapter)
    except AdapterError:
        return None  # validation itself reports it
    expected = record.base if record else None
    if expected is None or expected.match(known.fingerprint) is not None:
        return None
    return _leaves_of(registry, settings, expected), known.leaves


def _leaves_of(
    registry: Callable[[], Registry], settings: Settings, base: Fingerprint
) -> Mapping[str, str]:
    from rankloom.base import fingerprint_cache

    if kept := fingerprint_cache.recall(settings.cache_dir / CACHE, base):
        return kept.leaves
    for record in registry().list_bases():
        if base.match(record.fingerprint) in {Level.EXACT, Level.BF16}:
            return _known(registry().get_base(record.name)).leaves
    return {}


def resolve(
    registry: Callable[[], Registry],
    settings: Settings,
    base: str | os.PathLike[str],
    *,
    values: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> KnownBase:
    """Return the base that a text or path means.

    Raises:
        NotFoundError: there is neither such a folder nor such a name.
    """
    if is_folder(base):
        return read(settings, Path(base), progress, values=values)
    name = ref.check_name(str(base), "base name")
    try:
        return _known(registry().get_base(name))
    except NotFoundError as error:
        if Path(name).is_dir():
            error.hint = f"for the folder of that name write ./{name}"
        raise


def find(
    registry: Registry,
    settings: Settings,
    adapter: Adapter,
    base: str | os.PathLike[str] | None,
) -> KnownBase | None:
    """Return the base of an adapter: the one given, else the recorded one that it names."""
    if base is not None:
        return resolve(lambda: registry, settings, base)
    claim = adapter.config.base_model_name_or_path
    if adapter.base is not None or not claim:
        return None
    claimed = {claim, slug(claim)}
    for record in registry.list_bases():
        if record.name in claimed or record.source.partition("@")[0] == claim:
            return _known(registry.get_base(record.name))
    return None


def record(registry: Registry, known: KnownBase) -> str:
    """Make sure that the registry has a record of a base; return the record's name."""
    if known.name is not None:
        return known.name
    taken = {}
    for present in registry.list_bases():
        if present.fingerprint == known.fingerprint:
            return present.name
        taken[present.name] = present.fingerprint
    name = slug(known.source)
    if name in taken:  # another base lives under the folder's name: tell them apart by content
        content = known.fingerprint.exact or known.fingerprint.struct
        name = f"{name[:80]}-{content[-12:]}"
    return registry.add_base(known.to_record(name)).name


def slug(text: str) -> str:
    """Return a valid base name made from a path or repository id: its last part, in lower case."""
    last = text.partition("@")[0].rstrip("/").rpartition("/")[2].lower()
    cleaned = re.sub(r"[^a-z0-9._-]+|\.{2,}", "-", last).strip("._-")[:96].rstrip("._-")
    return ref.check_name(cleaned or "base", "base name")


def _known(found: BaseRecord) -> KnownBase:
    from rankloom.registry.base_record import from_record, leaves

    model = from_record(found)
    return KnownBase(model, found.fingerprint, found.source, found.name, leaves(found))
