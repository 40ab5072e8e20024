"""Signatures that are attached to versions: kept as they were sent, never changed or removed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rankloom import digest as digests
from rankloom.errors import ConflictError, SignatureError
from rankloom.manifest import Manifest
from rankloom.ref import VersionRef
from rankloom.registry.wire import Signature, SignedVersion
from rankloom.signing import bundle as bundles
from rankloom_server import audit, catalogue, signed
from rankloom_server.models import VERSION, VERSION_SIGNATURE

if TYPE_CHECKING:
    from rankloom.ref import AdapterName
    from rankloom_server.access import Actor

MOST = 16
"""Signatures of one version; whoever may push could else fill the database with them.

Where the namespace names signers, only theirs count, so that nobody else can take their place.
"""

MOST_BY_ONE = 4
"""Those of them that one token may attach where the namespace names nobody."""


def of(connection: sa.Connection, ref: VersionRef) -> SignedVersion:
    """Return the version that a ref names with its signatures, whether it must have any or not.

    Raises:
        NotFoundError: there is no such adapter, version or alias.
    """
    row = catalogue.row_of(connection, ref)
    found = catalogue.resolved(connection, row)
    kept = tuple(_kept(connection, row["id"]))
    return SignedVersion(version=found.version, manifest=found.manifest, signatures=kept)


def _kept(connection: sa.Connection, version_id: int) -> list[Signature]:
    statement = (
        sa.select(*(VERSION_SIGNATURE.c[name] for name in Signature.model_fields))
        .where(VERSION_SIGNATURE.c.version_id == version_id)
        .order_by(VERSION_SIGNATURE.c.created_at, VERSION_SIGNATURE.c.digest)
    )
    rows = connection.execute(statement).mappings()
    return [Signature.model_validate(dict(row)) for row in rows]


def attach(
    connection: sa.Connection, actor: Actor, adapter: AdapterName, digest: str, bundle: str
) -> Signature:
    """Attach a signature to a version; the same again, however it is spaced, changes nothing.

    Raises:
        ConflictError: the version has as many as it may have, or as this actor may attach.
        NotFoundError: there is no such adapter or version.
        SignatureError: (SEC007) it is malformed, of another version, or by nobody whom the
            namespace names.
    """
    what = f"{adapter}@{digest}"
    row = _row(connection, adapter, digest)
    _check(row, bundle, what)
    # Who attaches another one at the same time waits until this is committed.
    mine = sa.select(VERSION.c.id).where(VERSION.c.id == row["id"]).with_for_update()
    connection.execute(mine)
    before = _kept(connection, row["id"])
    name = _name(bundle)
    if known := [one for one in before if one.digest == name]:
        return known[0]
    _check_room(row, before, actor, what)
    made = Signature(digest=name, bundle=bundle, creator=actor.name, created_at=datetime.now(UTC))
    values = {"version_id": row["id"], **made.model_dump()}
    connection.execute(sa.insert(VERSION_SIGNATURE).values(**values))
    audit.record(
        connection,
        actor,
        "version.sign",
        namespace=adapter.namespace,
        subject=adapter.name,
        detail={"version": digest, "signature": name},
    )
    return made


def check(connection: sa.Connection, adapter: AdapterName, digest: str, bundle: str) -> None:
    """Refuse what :func:`attach` would not attach; afterwards that need not verify it again.

    Sigstore may be asked over the network for this, so it is done before the database is locked.

    Raises:
        NotFoundError: as :func:`attach`.
        SignatureError: (SEC007) as :func:`attach`.
    """
    _check(_row(connection, adapter, digest), bundle, f"{adapter}@{digest}")


def _row(connection: sa.Connection, adapter: AdapterName, digest: str) -> sa.RowMapping:
    row = signed.row_of(connection, adapter, digest)
    if row is None:
        raise catalogue.unresolved(connection, VersionRef(adapter, digest=digest))
    return row


def _name(bundle: str) -> str:
    """Return the digest of what a bundle says, which its spaces and the order of keys are not."""
    try:
        plain = json.dumps(json.loads(bundle), sort_keys=True, separators=(",", ":"))
    except ValueError as error:  # a number of thousands of digits
        message = f"SEC007 this is no signature of a model: {error}"
        raise SignatureError(message, hint="sign it with 'loractl sign'") from error
    return digests.of_bytes(plain.encode())


def _check_room(row: sa.RowMapping, before: list[Signature], actor: Actor, what: str) -> None:
    """Refuse more signatures than a version may have; those of nobody who is named do not count."""
    signers = signed.signers_of(row)
    if not signers and sum(one.creator == actor.name for one in before) >= MOST_BY_ONE:
        message = f"{actor.name} has attached {MOST_BY_ONE} signatures to {what}, as many as it may"
        raise ConflictError(message, hint="one signature by each signer is enough")
    if signers and len(before) >= MOST:
        manifest = Manifest.model_validate_json(row["manifest"])
        before = [one for one in before if signed.is_by(one.bundle, manifest, signers)]
    if len(before) >= MOST:
        message = f"{what} has {MOST} signatures, which is as many as a version may have"
        raise ConflictError(message, hint="one signature by each signer is enough")


def _check(row: sa.RowMapping, bundle: str, what: str) -> None:
    """Refuse what could never count as a signature of this version in its namespace."""
    manifest = Manifest.model_validate_json(row["manifest"])
    bundles.check_contents(bundles.read(bundle), bundles.contents_of(manifest), what)
    signers = signed.signers_of(row)
    if signers and not signed.is_by(bundle, manifest, signers):
        wanted = " or ".join(map(str, signers))
        message = f"SEC007 the signature of {what} is by nobody whom its namespace names: {wanted}"
        raise SignatureError(message, hint="sign it with the key that the namespace expects")
