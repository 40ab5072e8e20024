"""Signing and verifying by the format's own library, ``model-signing``.

The library hashes folders. Here it is given digests that are known already, so that a version is
signed and verified by its manifest, and no weight is read.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rankloom.errors import BackendUnavailableError, RefError, RegistryError, SignatureError
from rankloom.signing import bundle as bundles
from rankloom.signing.bundle import Material
from rankloom.signing.signers import KeySigner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_signing import manifest as oms
    from model_signing import signing, verifying

    from rankloom.signing.bundle import Contents
    from rankloom.signing.signers import Signer, SigningKey

_INSTALL = "pip install 'rankloom[sign]'"


def sign(contents: Contents, name: str, key: SigningKey) -> str:
    """Return the bundle of a new signature over files; ``name`` is only informative.

    Raises:
        BackendUnavailableError: ``rankloom[sign]`` is not installed, or Sigstore does not answer.
        RefError: the key cannot be used.
    """
    with _library():
        from model_signing import signing
    known: Any = _Known(contents)
    with tempfile.TemporaryDirectory(prefix="rankloom-") as folder:
        target = Path(folder) / "bundle"
        config = _configure(signing.Config().set_hashing_config(known), key)
        if key.private_key is None:
            _keyless(config, name, target)
        else:
            config.sign(name, target)
        return target.read_text("utf-8")


def _configure(config: signing.Config, key: SigningKey) -> signing.Config:
    if key.private_key is None:
        return config
    try:
        if key.certificate is None:
            # The library's annotation says str, and what it calls takes bytes only.
            password: Any = key.password.encode() if key.password else None
            return config.use_elliptic_key_signer(private_key=key.private_key, password=password)
        return config.use_certificate_signer(
            private_key=key.private_key,
            signing_certificate=key.certificate,
            # The library cannot read a chain of none; the certificate again adds no trust.
            certificate_chain=key.chain or (key.certificate,),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _no_key(key.private_key, error) from error


def public_half(key: SigningKey) -> KeySigner | None:
    """Return whom a key's signatures are verified by; ``None`` if that is not just the key.

    Raises:
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
        RefError: the key cannot be read.
    """
    if key.private_key is None or key.certificate is not None:
        return None
    with _library():
        from cryptography.hazmat.primitives import serialization as form
    try:
        password = key.password.encode() if key.password else None
        private = form.load_pem_private_key(key.private_key.read_bytes(), password)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(key.private_key, error) from error
    spki = form.PublicFormat.SubjectPublicKeyInfo
    return KeySigner(pem=private.public_key().public_bytes(form.Encoding.PEM, spki).decode())


def _no_key(path: Path, error: Exception) -> RefError:
    message = f"{path} cannot sign: {error}"
    hint = "it must be the PEM file of a private key on P-256, P-384 or P-521"
    hint += " ('openssl ecparam -name prime256v1 -genkey -noout -out private.pem')"
    return RefError(message, hint=hint)


def _keyless(config: signing.Config, name: str, target: Path) -> None:
    try:
        config.use_sigstore_signer(use_ambient_credentials=True).sign(name, target)
    except Exception as error:  # what may fail between a browser, an issuer and a log has no end
        message = f"Sigstore gave no signature: {error}"
        hint = "it needs the network and an identity; --key signs without both"
        raise BackendUnavailableError(message, hint=hint) from error


def verify(bundle: str, contents: Contents, signer: Signer, what: str) -> None:
    """Refuse a bundle that is not a signature of exactly these files by this signer.

    Args:
        bundle: the signature.
        contents: the files; every one of them must be signed, and nothing else.
        signer: by whom.
        what: what it is a signature of, for messages.

    Raises:
        SignatureError: (SEC007) it is not.
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
        RefError: the signer's key, certificates or trust config cannot be used.
        RegistryError: Sigstore's root of trust cannot be had.
    """
    claim = bundles.read(bundle)
    bundles.check_contents(claim, contents, what)
    if claim.material is not signer.kind:
        message = (
            f"SEC007 {what} is not signed by {signer}: the signature is one by {claim.material}"
        )
        raise SignatureError(message, hint="verify it by that, or ask who signed it")
    with _library():
        from model_signing import verifying
    with tempfile.TemporaryDirectory(prefix="rankloom-") as name:
        folder = Path(name)
        (folder / "bundle").write_text(bundle, "utf-8")
        known: Any = _Known(contents)
        config = _trust(verifying.Config(), signer, folder).set_hashing_config(known)
        try:
            config.verify(folder, folder / "bundle")
        except Exception as error:  # whatever a made-up bundle makes the library raise
            reason = f": {error}" if str(error) else ""
            message = f"SEC007 {what} is not signed by {signer}{reason}"
            hint = "do not use it; ask who published it to sign this version"
            raise SignatureError(message, hint=hint) from error


def check_signer(signer: Signer) -> None:
    """Refuse a key, certificates or a trust config by which nothing could be verified.

    Raises:
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
        RefError: they cannot be used.
    """
    with _library():
        from model_signing import verifying
    if signer.kind is Material.IDENTITY and signer.trust is None:
        return  # looking it up would need the network
    with tempfile.TemporaryDirectory(prefix="rankloom-") as folder:
        _trust(verifying.Config(), signer, Path(folder))


def _trust(config: verifying.Config, signer: Signer, folder: Path) -> verifying.Config:
    """Return ``config`` so that it trusts a signer; the library wants files, made in ``folder``."""
    if signer.kind is Material.IDENTITY:
        trust = None
        if signer.trust is not None:
            trust = folder / "trust.json"
            trust.write_text(signer.trust, "utf-8")
        try:
            return config.use_sigstore_verifier(
                identity=signer.identity, oidc_issuer=signer.issuer, trust_config=trust
            )
        except Exception as error:  # its updater raises errors of several libraries
            if trust is not None:
                message = f"the trust config for {signer} cannot be used: {error}"
                hint = "give the client trust config (JSON) of your own Sigstore instance"
                raise RefError(message, hint=hint) from error
            message = f"Sigstore's root of trust cannot be had: {error}"
            hint = "it needs the network, or the trust config of your own instance"
            raise RegistryError(message, hint=hint) from error
    pem = folder / "trusted.pem"
    pem.write_text(signer.pem, "utf-8")
    try:
        if signer.kind is Material.KEY:
            return config.use_elliptic_key_verifier(public_key=pem)
        return config.use_certificate_verifier(certificate_chain=[pem])
    except (ValueError, TypeError, AttributeError) as error:
        message = f"{signer} cannot verify anything: {error}"
        hint = "give a PEM file with a public key on P-256, P-384 or P-521, or with certificates"
        raise RefError(message, hint=hint) from error


def read_folder(folder: Path, *, besides: Iterable[Path] = ()) -> Contents:
    """Return the files of a folder as the library hashes them, but for some that lie in it.

    What git and its hosts keep in a folder (``.gitattributes`` …) is not looked at.

    Raises:
        BackendUnavailableError: ``rankloom[sign]`` is not installed.
        SignatureError: the folder has links, or no file.
    """
    with _library():
        from model_signing import hashing
    inside = [path.absolute() for path in besides if path.absolute().is_relative_to(folder)]
    ignored = [path.relative_to(folder) for path in inside]
    try:
        found = hashing.Config().set_ignored_paths(paths=ignored).hash(folder)
    except ValueError as error:
        message = f"SEC007 {folder} cannot be signed or verified: {error}"
        raise SignatureError(message, hint="copy the folder with its links followed") from error
    files = {one.identifier: one.digest.digest_hex for one in found.resource_descriptors()}
    if not files:
        message = f"SEC007 {folder} holds no file that could be signed"
        raise SignatureError(message, hint="give the folder of an adapter")
    return {path: f"sha256:{digest}" for path, digest in files.items()}


class _Known:
    """Takes the place of the library's hashing: the digests are known, and all of them count."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """Do nothing: a signature does not choose which files it need not cover."""

    def hash(self, model_path: str | Path, *, files_to_hash: object = None) -> oms.Manifest:
        """Return the manifest in the library's words."""
        del files_to_hash
        # The one name that its public modules do not give out.
        from model_signing._hashing.hashing import Digest
        from model_signing.manifest import FileManifestItem, Manifest, SerializationType

        arguments = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
        items = [
            FileManifestItem(
                path=PurePosixPath(path),
                digest=Digest("sha256", bytes.fromhex(digest.removeprefix("sha256:"))),
            )
            for path, digest in self._contents.items()
        ]
        return Manifest(Path(model_path).name, items, SerializationType.from_args(arguments))


@contextmanager
def _library() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"signatures need the package {error.name!r}"
        raise BackendUnavailableError(message, hint=_INSTALL) from error
