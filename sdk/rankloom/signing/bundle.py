"""What a signature claims, read from its bundle without trusting it.

A bundle is Sigstore's JSON around a DSSE envelope. Its payload is an in-toto statement of the
OpenSSF model-signing format, which lists the files of a model with their sha256. For a version
these are the files of its manifest and ``rankloom.json``, as a pull writes them: so the base and
the lineage are signed too, and the format's own tools verify the pulled folder.

Source: https://github.com/sigstore/model-transparency, docs/model_signing_format.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, Field, StringConstraints, ValidationError

from rankloom import digest as digests
from rankloom.errors import SignatureError
from rankloom.manifest import MAX_FILES, RECORD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.manifest import Manifest

    Contents = Mapping[str, str]
    """Digests (``sha256:…``) of files by their path in the folder."""

MAX_BYTES = 1 << 18
"""A bundle of 64 files takes 30 kB; a certificate and a proof of the log add 10."""

_AGAIN = "sign it with 'loractl sign', or with model_signing 1.0 or later"


class Material(StrEnum):
    """By what a signature can be verified."""

    KEY = "key"
    CERTIFICATES = "certificates"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a bundle says of itself; nothing of it is proved.

    Attributes:
        material: by what it can be verified.
        contents: the files that it signs.
    """

    material: Material
    contents: Contents


class _Hinted(BaseModel):
    hint: Annotated[str, StringConstraints(min_length=1)]


class _Material(BaseModel):
    key: _Hinted | None = Field(default=None, alias="publicKey")
    chain: dict[str, Any] | None = Field(default=None, alias="x509CertificateChain")
    certificate: dict[str, Any] | None = None

    def kind(self) -> Material | None:
        """Return the one kind that it is."""
        given = {
            Material.KEY: self.key,
            Material.CERTIFICATES: self.chain,
            Material.IDENTITY: self.certificate,
        }
        kinds = [kind for kind, value in given.items() if value is not None]
        return kinds[0] if len(kinds) == 1 else None


class _Envelope(BaseModel):
    payload: Base64Bytes


class _Bundle(BaseModel):
    material: _Material = Field(alias="verificationMaterial")
    envelope: _Envelope = Field(alias="dsseEnvelope")


class _Resource(BaseModel):
    name: str
    algorithm: Literal["sha256"]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Predicate(BaseModel):
    resources: Annotated[list[_Resource], Field(min_length=1, max_length=MAX_FILES + 1)]


class _Statement(BaseModel):
    kind: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    predicate: _Predicate


def contents_of(manifest: Manifest) -> Contents:
    """Return the files of a version as a pull writes them."""
    files = {entry.path: entry.digest for entry in manifest.files}
    return files | {RECORD: digests.of_bytes(manifest.record())}


def read(bundle: str) -> Claim:
    """Return what a bundle claims.

    Raises:
        SignatureError: (SEC007) it is no bundle of a signed model.
    """
    if len(bundle) > MAX_BYTES:
        message = f"SEC007 a signature of {len(bundle)} characters is none"
        raise SignatureError(message, hint=_AGAIN)
    try:
        outer = _Bundle.model_validate_json(bundle)
        statement = _Statement.model_validate_json(outer.envelope.payload)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"])) or "JSON"
        message = f"SEC007 this is no signature of a model: {where}: {found['msg']}"
        raise SignatureError(message, hint=_AGAIN) from error
    material = outer.material.kind()
    if material is None:
        message = "SEC007 the signature has no key, certificates or identity to verify it by"
        raise SignatureError(message, hint=_AGAIN)
    resources = statement.predicate.resources
    return Claim(material, {one.name: f"sha256:{one.digest}" for one in resources})


def check_contents(claim: Claim, contents: Contents, what: str) -> None:
    """Refuse a signature that does not speak of just these files.

    Raises:
        SignatureError: (SEC007) it is of other files; the first of them is named.
    """
    if claim.contents == contents:
        return
    paths = sorted(claim.contents.keys() | contents.keys())
    path = next(path for path in paths if claim.contents.get(path) != contents.get(path))
    signed, here = claim.contents.get(path, "absent"), contents.get(path, "absent")
    message = f"SEC007 the signature is not of {what}: {path} was signed as {signed}, it is {here}"
    hint = "it belongs to other bytes: take the signature of this version, or sign this version"
    raise SignatureError(message, hint=hint)
