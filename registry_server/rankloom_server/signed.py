"""What a namespace demands of its versions: to be signed by somebody whom it names.

A version is pushed first and signed then, so publishing asks for nothing. Every door through which
a version is used does: resolving it, reading its files, letting an alias name it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pydantic import TypeAdapter

from rankloom.errors import SignatureError
from rankloom.manifest import Manifest
from rankloom.signing import bundle, openssf
from rankloom.signing.signers import Signer
from rankloom_server.models import ADAPTER, NAMESPACE, VERSION, VERSION_SIGNATURE

if TYPE_CHECKING:
    from rankloom.ref import AdapterName

_SIGNERS = TypeAdapter(tuple[Signer, ...])
_HINT = "sign it ('loractl sign'), or ask who administers the namespace ('loractl namespace show')"

REQUIRED = (
    sa.select(NAMESPACE.c.required_signers)
    .where(NAMESPACE.c.name == ADAPTER.c.namespace)
    .correlate(ADAPTER)
    .scalar_subquery()
)
"""Who must have signed the versions of an adapter; ``None`` or empty: nobody."""


def check(connection: sa.Connection, adapter: AdapterName, digest: str) -> None:
    """Refuse a version of a namespace that wants signatures until it is signed.

    A version that does not exist is nothing to refuse.

    Raises:
        SignatureError: (SEC007) none of those whom the namespace names has signed it.
    """
    row = row_of(connection, adapter, digest)
    if row is not None and row["required"]:
        check_row(connection, row, f"{adapter}@{digest}")


def row_of(connection: sa.Connection, adapter: AdapterName, digest: str) -> sa.RowMapping | None:
    """Return ``id``, ``manifest`` and ``required`` (signers) of a version, if it exists."""
    statement = (
        sa.select(VERSION.c.id, VERSION.c.manifest, REQUIRED.label("required"))
        .join(ADAPTER, VERSION.c.adapter_id == ADAPTER.c.id)
        .where(
            ADAPTER.c.namespace == adapter.namespace,
            ADAPTER.c.name == adapter.name,
            VERSION.c.digest == digest,
        )
    )
    return connection.execute(statement).mappings().one_or_none()


def check_row(connection: sa.Connection, row: sa.RowMapping, what: str) -> None:
    """Refuse a version, as :func:`row_of` gives it, that none of the required signers has signed.

    Raises:
        SignatureError: (SEC007) as :func:`check`.
    """
    statement = sa.select(VERSION_SIGNATURE.c.bundle).where(
        VERSION_SIGNATURE.c.version_id == row["id"]
    )
    manifest = Manifest.model_validate_json(row["manifest"])
    signers = signers_of(row)
    found = connection.execute(statement).scalars().all()
    if any(is_by(one, manifest, signers) for one in found):
        return
    wanted = " or ".join(map(str, signers))
    state = "is signed by none of them" if found else "is not signed"
    message = f"SEC007 {what} {state}: its namespace demands {wanted}"
    raise SignatureError(message, hint=_HINT)


def signers_of(row: sa.RowMapping) -> tuple[Signer, ...]:
    """Return by whom a version, as :func:`row_of` gives it, must be signed."""
    return _SIGNERS.validate_python(row["required"] or ())


def is_by(signature: str, manifest: Manifest, signers: tuple[Signer, ...]) -> bool:
    """Say whether a bundle is a signature of a version by one of the signers."""
    contents = tuple(sorted(bundle.contents_of(manifest).items()))
    return any(_is_by(signature, contents, signer) for signer in signers)


def _is_by(signature: str, contents: tuple[tuple[str, str], ...], signer: Signer) -> bool:
    try:
        _verify(signature, contents, signer)
    except SignatureError:
        return False
    return True


# A version that is read often is verified once: what was found good stays so. A refusal is not
# kept, for the verifier also refuses when something else failed it.
@functools.lru_cache(maxsize=4096)
def _verify(signature: str, contents: tuple[tuple[str, str], ...], signer: Signer) -> None:
    openssf.verify(signature, dict(contents), signer, "the version")
