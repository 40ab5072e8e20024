"""Signing versions, and pulling only what somebody signed."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.errors import NotFoundError, RefError, SignatureError
from rankloom.files import write_atomic
from rankloom.message import Message
from rankloom.ref import VersionRef
from rankloom.registry.answer import checked
from rankloom.signing import bundle as bundles
from rankloom.signing import openssf
from rankloom.signing.signers import SigningKey, read_signer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.manifest import Manifest
    from rankloom.registry.protocol import Registry
    from rankloom.registry.wire import Signature, SignedVersion, Version
    from rankloom.signing.bundle import Contents
    from rankloom.signing.signers import Signer

    PathLike = str | os.PathLike[str]
    Signers = Signer | PathLike | Sequence[Signer | PathLike]
    """Who is trusted: PEM files with public keys or certificates, or signers as values."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was verified.

    Attributes:
        signer: by whom it is.
        bundle: the signature itself; ``model_signing verify`` takes it for the pulled folder.
    """

    signer: Signer
    bundle: str = field(repr=False)


def sign(
    registry: Registry, version: Version, manifest: Manifest, key: SigningKey | PathLike
) -> Signature:
    """Attach a signature to a version; if this key has signed it already, nothing changes.

    Args:
        registry: where the version is.
        version: the version.
        manifest: what is signed.
        key: with what.

    Raises:
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
        RefError: the key cannot be used.
        SignatureError: the registry takes no signature by this key.
    """
    using, contents = _key(key), bundles.contents_of(manifest)
    known = registry.signatures(VersionRef(version.adapter, digest=version.digest)).signatures
    mine = openssf.public_half(using)
    if mine is not None:
        for one in known:
            if _is_by(one.bundle, contents, mine):
                return one
    bundle = openssf.sign(contents, version.name, using)
    return registry.add_signature(version.adapter, version.digest, bundle)


def _is_by(bundle: str, contents: Contents, signer: Signer) -> bool:
    try:
        openssf.verify(bundle, contents, signer, "the version")
    except SignatureError:
        return False
    return True


def sign_folder(folder: Path, key: SigningKey | PathLike, output: Path) -> Path:
    """Write a signature of all files of a folder to ``output``, which may lie in it.

    Raises:
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
        RefError: the key cannot be used.
        SignatureError: the folder holds links, or no file.
    """
    contents = openssf.read_folder(folder.absolute(), besides=[output])
    bundle = openssf.sign(contents, folder.absolute().name, _key(key))
    write_atomic(output, bundle.encode())
    return output


def look_up(registry: Registry, ref: VersionRef) -> SignedVersion:
    """Return the version that a ref names with its signatures.

    Raises:
        IntegrityError: the registry's answer is another version than the ref names by its digest.
        NotFoundError: there is no such version.
    """
    return checked(ref, registry.signatures(ref))


def verify(found: SignedVersion, by: Signers, what: str, file: Path | None = None) -> Signed:
    """Return the signature of a version by one of those who are trusted.

    Args:
        found: the version.
        by: who is trusted.
        what: what the version is called, for messages.
        file: the signature; ``None``: those that are attached to the version.

    Raises:
        SignatureError: (SEC007) there is none.
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
    """
    attached = [one.bundle for one in found.signatures]
    given = attached if file is None else [read_bundle(file)]
    return _first(given, bundles.contents_of(found.manifest), _signers(by), what)


def verify_folder(folder: Path, file: Path | None, by: Signers) -> Signed:
    """Return the signature in ``file`` if it is one of all files of a folder by who is trusted.

    Raises:
        RefError: no file is named.
        SignatureError: (SEC007) it is not.
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
    """
    if file is None:
        message = f"{folder} is a folder: where is its signature?"
        raise RefError(message, hint="name its file, or verify a version of the registry")
    contents = openssf.read_folder(folder.absolute(), besides=[file])
    return _first([read_bundle(file)], contents, _signers(by), str(folder))


def read_bundle(file: Path) -> str:
    """Return the signature in a file.

    Raises:
        NotFoundError: there is no such file.
        SignatureError: (SEC007) it holds none.
    """
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError as error:
        message = f"there is no signature {file}"
        raise NotFoundError(message, hint="'loractl verify REF -o FILE' writes one") from error
    except (OSError, ValueError) as error:
        message = f"SEC007 {file} is no signature: {error}"
        raise SignatureError(message, hint="'loractl verify REF -o FILE' writes one") from error
    bundles.read(text)
    return text


def _first(
    given: Sequence[str], contents: Contents, signers: Sequence[Signer], what: str
) -> Signed:
    """Return the first of several signatures that is one of these files by one of the signers."""
    wanted = " or ".join(map(str, signers))
    if not given:
        message = f"SEC007 {what} is not signed; it was to be by {wanted}"
        raise SignatureError(message, hint="ask who published it to sign it: 'loractl sign'")
    refusals = []
    for bundle, signer in itertools.product(given, signers):
        try:
            openssf.verify(bundle, contents, signer, what)
        except SignatureError as error:
            refusals.append(error)
        else:
            return Signed(signer, bundle)
    if len(refusals) == 1:
        raise refusals[0]
    message = f"SEC007 {what} has {len(given)} signatures, but none by {wanted}"
    raise SignatureError(message, hint="ask who published it who signed it") from refusals[-1]


def _signers(by: Signers) -> list[Signer]:
    many = [by] if isinstance(by, (str, os.PathLike, Message)) else list(by)
    if not many:
        message = "nobody is named who may have signed it"
        raise RefError(message, hint="give the PEM file of a public key")
    return [one if isinstance(one, Message) else read_signer(one) for one in many]


def _key(key: SigningKey | PathLike) -> SigningKey:
    return key if isinstance(key, SigningKey) else SigningKey(Path(key))
