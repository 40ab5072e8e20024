"""Reading the catalogue. Each function runs a fixed number of statements, whatever the size."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom import engine_tables, semantic
from rankloom import ref as refs
from rankloom.errors import NotFoundError, RefError
from rankloom.manifest import Manifest
from rankloom.registry.wire import (
    AdapterDetail,
    AdapterFacts,
    AdapterRecord,
    Page,
    ResolvedVersion,
    Version,
)
from rankloom_server import namespaces, signed
from rankloom_server.models import ADAPTER, ALIAS, BASE, VERSION, VERSION_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import RowMapping

    from rankloom.ref import AdapterName, VersionRef

MAX_PAGE = 200
_NO_ADAPTER = "push it first, or search with 'loractl list'"

VERSION_COLUMNS = (
    ADAPTER.c.namespace,
    ADAPTER.c.name,
    VERSION.c.adapter_id,
    VERSION.c.number,
    VERSION.c.semver,
    VERSION.c.digest,
    VERSION.c.facts,
    VERSION.c.yanked,
    VERSION.c.purged_at,
    VERSION.c.deprecated,
    VERSION.c.creator,
    VERSION.c.labels,
    VERSION.c.metrics,
    VERSION.c.created_at,
    BASE.c.name.label("base"),
)
VERSIONS = VERSION.join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id).outerjoin(
    BASE, VERSION.c.base_id == BASE.c.id
)
# Number of an adapter's newest version that is neither yanked nor purged: the alias ``latest``.
LATEST = (
    sa.select(sa.func.max(VERSION.c.number))
    .where(
        VERSION.c.adapter_id == ADAPTER.c.id,
        VERSION.c.yanked.is_(None),
        VERSION.c.purged_at.is_(None),
    )
    .correlate(ADAPTER)
    .scalar_subquery()
)


def is_adapter(adapter: AdapterName) -> sa.ColumnElement[bool]:
    """Return the condition that selects one adapter by its full name."""
    return sa.and_(ADAPTER.c.namespace == adapter.namespace, ADAPTER.c.name == adapter.name)


def resolve(connection: sa.Connection, ref: VersionRef) -> ResolvedVersion:
    """Return the version that a ref names; only the alias ``latest`` skips yanked ones.

    Raises:
        NotFoundError: there is no such adapter, version or alias.
        SignatureError: its namespace demands a signature that it has not.
    """
    row = row_of(connection, ref)
    if row["required"]:
        signed.check_row(connection, row, str(ref))
    return resolved(connection, row)


def row_of(connection: sa.Connection, ref: VersionRef) -> RowMapping:
    """Return the row of the version that a ref names, with all that :func:`resolved` needs.

    Raises:
        NotFoundError: there is no such adapter, version or alias.
    """
    if ref.semver is not None and semantic.is_range(ref.semver):
        ref = _highest(connection, ref, ref.semver)
    statement = (
        sa.select(
            *VERSION_COLUMNS,
            VERSION.c.id,
            VERSION.c.manifest,
            VERSION.c.probe,
            VERSION.c.tensor_count,
            signed.REQUIRED.label("required"),
        )
        .select_from(VERSIONS)
        .where(is_adapter(ref.adapter), _names(ref))
    )
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise unresolved(connection, ref)
    if row["purged_at"] is not None:
        raise purged(str(ref), row["purged_at"])
    return row


def _highest(connection: sa.Connection, ref: VersionRef, wanted: str) -> VersionRef:
    """Return the ref of the highest version in a range; like ``latest``, it is not yanked."""
    known = (
        sa.select(VERSION.c.semver)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(
            is_adapter(ref.adapter),
            VERSION.c.semver.is_not(None),
            VERSION.c.yanked.is_(None),
            VERSION.c.purged_at.is_(None),
        )
    )
    found = semantic.newest(wanted, connection.execute(known).scalars())
    if found is None:
        raise unresolved(connection, ref)
    return replace(ref, semver=found)


def resolved(connection: sa.Connection, row: RowMapping) -> ResolvedVersion:
    """Return a version with its manifest from its row."""
    (version,) = versions(connection, [row])
    manifest = Manifest.model_validate_json(row["manifest"])
    return ResolvedVersion(version=version, manifest=manifest, probe=row["probe"])


def _names(ref: VersionRef) -> sa.ColumnElement[bool]:
    if ref.digest is not None:
        return VERSION.c.digest == ref.digest
    if ref.number is not None:
        return VERSION.c.number == ref.number
    if ref.semver is not None:
        return VERSION.c.semver == ref.semver
    if ref.alias == refs.LATEST:
        return VERSION.c.number == LATEST
    named = sa.select(ALIAS.c.digest).where(
        ALIAS.c.adapter_id == ADAPTER.c.id, ALIAS.c.name == ref.alias
    )
    return VERSION.c.digest == named.scalar_subquery()


def purged(ref: str, when: datetime) -> NotFoundError:
    """Return the error for a version that is not kept any more."""
    message = f"{ref} was purged on {when:%Y-%m-%d} by the retention rules of its namespace"
    return NotFoundError(message, hint="push the same content again to bring this version back")


def unresolved(connection: sa.Connection, ref: VersionRef) -> NotFoundError:
    """Return the error for a ref that names nothing, with what there is instead."""
    known = connection.execute(sa.select(ADAPTER.c.id).where(is_adapter(ref.adapter))).first()
    if known is None:
        return no_adapter(ref.adapter)
    message = f"adapter {ref.adapter} has no version {ref}"
    hint = f"'loractl show {ref.adapter}' lists its versions and aliases"
    if ref.alias == refs.LATEST:
        message = f"every version of adapter {ref.adapter} is yanked or purged"
        hint = f"name one by number or digest; {hint}"
    return NotFoundError(message, hint=hint)


def no_adapter(adapter: AdapterName) -> NotFoundError:
    """Return the error for an adapter that the catalogue does not know."""
    return NotFoundError(f"there is no adapter {adapter}", hint=_NO_ADAPTER)


def version(connection: sa.Connection, adapter: AdapterName, digest: str) -> Version:
    """Return one version by its digest.

    Raises:
        NotFoundError: there is none.
    """
    found = find_version(connection, adapter, digest)
    if found is None:
        raise unresolved(connection, refs.VersionRef(adapter, digest=digest))
    return found


def find_version(connection: sa.Connection, adapter: AdapterName, digest: str) -> Version | None:
    """Return one version by its digest, ``None`` if there is none."""
    statement = (
        sa.select(*VERSION_COLUMNS)
        .select_from(VERSIONS)
        .where(is_adapter(adapter), VERSION.c.digest == digest)
    )
    found = versions(connection, connection.execute(statement).mappings().all())
    return found[0] if found else None


def list_adapters(
    connection: sa.Connection,
    *,
    readable: frozenset[str] | None = None,
    namespace: str | None,
    query: str,
    limit: int,
    after: str,
) -> Page:
    """Return a page of adapters in name order; each word of ``query`` is in name or card.

    ``readable`` names the namespaces that are shown beside the public ones; ``None``: all.

    Raises:
        RefError: ``limit`` or ``after`` is none that we gave out.
    """
    check_limit(limit, "adapters")
    conditions = [_contains(word) for word in query.split()]
    if readable is not None:
        conditions.append(is_shown(readable))
    if namespace is not None:
        conditions.append(ADAPTER.c.namespace == namespace)
    if after:
        conditions.append(_behind(after))
    statement = (
        sa.select(ADAPTER.c.card, ADAPTER.c.namespace, ADAPTER.c.name, *VERSION_COLUMNS[2:])
        .select_from(
            ADAPTER.outerjoin(
                VERSION,
                sa.and_(VERSION.c.adapter_id == ADAPTER.c.id, VERSION.c.number == LATEST),
            ).outerjoin(BASE, VERSION.c.base_id == BASE.c.id)
        )
        .where(*conditions)
        .order_by(ADAPTER.c.namespace, ADAPTER.c.name)
        .limit(limit + 1)  # one more tells whether there is a next page
    )
    rows = connection.execute(statement).mappings().all()
    items = _records(connection, rows[:limit])
    more = len(rows) > limit
    return Page(items=items, next=f"{items[-1].namespace}/{items[-1].name}" if more else None)


def check_limit(limit: int, what: str) -> None:
    """Refuse a page that has no item, or too many.

    Raises:
        RefError: it has.
    """
    if not 1 <= limit <= MAX_PAGE:
        message = f"a page of {limit} {what} is not possible"
        raise RefError(message, hint=f"ask for 1 to {MAX_PAGE}")


def is_shown(readable: frozenset[str]) -> sa.ColumnElement[bool]:
    """Return the condition that an adapter is in one of these namespaces, or in a public one."""
    shown = ADAPTER.c.namespace.in_(sorted(readable))
    return sa.or_(shown, ADAPTER.c.namespace.in_(namespaces.PUBLIC))


def _contains(word: str) -> sa.ColumnElement[bool]:
    return sa.or_(
        ADAPTER.c.name.icontains(word, autoescape=True),
        ADAPTER.c.namespace.icontains(word, autoescape=True),
        ADAPTER.c.card.icontains(word, autoescape=True),
    )


def _behind(after: str) -> sa.ColumnElement[bool]:
    last = refs.AdapterName.parse(after)
    return sa.tuple_(ADAPTER.c.namespace, ADAPTER.c.name) > sa.tuple_(
        sa.literal(last.namespace), sa.literal(last.name)
    )


def _records(connection: sa.Connection, rows: Iterable[RowMapping]) -> tuple[AdapterRecord, ...]:
    rows = list(rows)
    latest = versions(connection, [row for row in rows if row["number"] is not None])
    by_name = {(item.namespace, item.name): item for item in latest}
    return tuple(
        AdapterRecord(
            namespace=row["namespace"],
            name=row["name"],
            card=row["card"],
            latest=by_name.get((row["namespace"], row["name"])),
        )
        for row in rows
    )


def show(connection: sa.Connection, adapter: AdapterName) -> AdapterDetail:
    """Return one adapter with all its versions, newest first.

    Raises:
        NotFoundError: there is no such adapter.
    """
    card = connection.execute(sa.select(ADAPTER.c.card).where(is_adapter(adapter))).scalar()
    if card is None:
        raise no_adapter(adapter)
    statement = (
        sa.select(*VERSION_COLUMNS, VERSION.c.verdicts, VERSION.c.judged_by)
        .select_from(VERSIONS)
        .where(is_adapter(adapter))
        .order_by(VERSION.c.number.desc())
    )
    rows = connection.execute(statement).mappings().all()
    return AdapterDetail(
        namespace=adapter.namespace,
        name=adapter.name,
        card=card,
        versions=versions(connection, rows),
        verdicts={row["digest"]: row["verdicts"] for row in rows if _is_judged(row)},
    )


def _is_judged(row: RowMapping) -> bool:
    return row["purged_at"] is None and row["judged_by"] == engine_tables.digest()


def file_digest(connection: sa.Connection, adapter: AdapterName, digest: str, path: str) -> str:
    """Return the digest of one file of a version.

    Raises:
        NotFoundError: there is no such version or file.
        SignatureError: the version's namespace demands a signature that it has not.
    """
    statement = (
        sa.select(VERSION_FILE.c.digest, signed.REQUIRED.label("required"))
        .join(VERSION, VERSION_FILE.c.version_id == VERSION.c.id)
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(is_adapter(adapter), VERSION.c.digest == digest, VERSION_FILE.c.path == path)
    )
    found = connection.execute(statement).one_or_none()
    if found is None:
        message = f"{adapter}@{digest} has no file {path[:80]!r}"
        raise NotFoundError(message, hint="the version's manifest lists its files")
    if found.required:
        signed.check(connection, adapter, digest)
    file: str = found.digest
    return file


def versions(connection: sa.Connection, rows: Iterable[RowMapping]) -> tuple[Version, ...]:
    """Return versions from rows of :data:`VERSION_COLUMNS`, with their aliases."""
    rows = list(rows)
    wanted = sorted({row["adapter_id"] for row in rows})
    statement = (
        sa.select(ALIAS.c.adapter_id, ALIAS.c.digest, ALIAS.c.name)
        .where(ALIAS.c.adapter_id.in_(wanted))
        .order_by(ALIAS.c.name)
    )
    aliases: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    for adapter_id, digest, name in connection.execute(statement):
        aliases[adapter_id, digest].append(name)
    return tuple(
        Version(
            namespace=row["namespace"],
            name=row["name"],
            number=row["number"],
            semver=row["semver"],
            digest=row["digest"],
            base=row["base"],
            facts=AdapterFacts.model_validate(row["facts"]),
            created_at=row["created_at"],
            yanked=row["yanked"],
            purged_at=row["purged_at"],
            deprecated=row["deprecated"],
            creator=row["creator"],
            labels=row["labels"],
            metrics=row["metrics"],
            aliases=tuple(aliases[row["adapter_id"], row["digest"]]),
        )
        for row in rows
    )
