"""Who may sign: public keys, authorities of certificates, identities; and with what one signs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from rankloom import digest as digests
from rankloom.errors import NotFoundError, RefError
from rankloom.message import Message
from rankloom.signing.bundle import MAX_BYTES, Material

if TYPE_CHECKING:
    import os

Pem = Annotated[str, StringConstraints(min_length=1, max_length=1 << 16, pattern=r"^[\x09-\x7e]+$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]


class KeySigner(Message):
    """Whoever holds the private half of an elliptic-curve key (P-256, P-384, P-521).

    Attributes:
        pem: the public key.
    """

    kind: Literal[Material.KEY] = Material.KEY
    pem: Pem

    def __str__(self) -> str:
        """Name the key as people compare it."""
        return f"key {_short(self.pem)}"


class CertificateSigner(Message):
    """Whoever holds a certificate for signatures that one of these authorities issued.

    Attributes:
        pem: the certificates of the authorities, and of those between if the signature lacks them.
    """

    kind: Literal[Material.CERTIFICATES] = Material.CERTIFICATES
    pem: Pem

    def __str__(self) -> str:
        """Name the authorities as people compare them."""
        return f"certificates {_short(self.pem)}"


class IdentitySigner(Message):
    """Whom an OpenID issuer knew when Sigstore gave out the certificate of the signature.

    Attributes:
        identity: an e-mail address, or the address of a workflow.
        issuer: address of the OpenID issuer.
        trust: Sigstore's client trust config (JSON) of a private instance; ``None``: that of the
            public one.
    """

    kind: Literal[Material.IDENTITY] = Material.IDENTITY
    identity: Word
    issuer: Word
    trust: Annotated[str, StringConstraints(min_length=1, max_length=MAX_BYTES)] | None = None

    def __str__(self) -> str:
        """Name the identity with who vouches for it."""
        return f"{self.identity} ({self.issuer})"


Signer = Annotated[KeySigner | CertificateSigner | IdentitySigner, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """With what one signs.

    Attributes:
        private_key: PEM file of an elliptic-curve key; ``None``: keyless, by the identity that
            Sigstore finds in the environment or asks for in the browser.
        password: of an encrypted key.
        certificate: PEM file of the key's certificate.
        chain: PEM files of the certificates between it and its authority.
    """

    private_key: Path | None
    password: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


def read_signer(path: str | os.PathLike[str]) -> KeySigner | CertificateSigner:
    """Return who is trusted by a PEM file: a public key, or certificates of authorities.

    Raises:
        NotFoundError: there is no such file.
        RefError: it is neither; a private key is refused, for it must not travel.
    """
    try:
        text = Path(path).read_text("ascii")
    except FileNotFoundError as error:
        message = f"there is no key file {path}"
        raise NotFoundError(message, hint="give the PEM file of a public key") from error
    except (OSError, ValueError) as error:
        message = f"{path} is no PEM file: {error}"
        raise RefError(message, hint="give the PEM file of a public key") from error
    kinds = set(re.findall(r"-----BEGIN ([A-Z ]+)-----", text))
    if kinds == {"PUBLIC KEY"}:
        return KeySigner(pem=text)
    if kinds == {"CERTIFICATE"}:
        return CertificateSigner(pem=text)
    found = ", ".join(sorted(kinds)).lower() or "nothing"
    message = f"{path} holds {found}, not a public key or certificates"
    raise RefError(message, hint="'openssl pkey -in private.pem -pubout' gives the public half")


def _short(pem: str) -> str:
    return digests.of_bytes("".join(pem.split()).encode()).removeprefix("sha256:")[:12]
