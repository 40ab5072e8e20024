"""Versions pushed and pulled, signed and verified."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import bases, ref
from rankloom.client.session import Session, warn_withdrawn
from rankloom.errors import RankloomWarning, RefError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from rankloom.adapter.reader import Adapter
    from rankloom.manifest import Manifest
    from rankloom.registry.signatures import Signed, Signers
    from rankloom.registry.wire import (
        Probe,
        Signature,
        SignedVersion,
        Version,
    )
    from rankloom.signing.signers import SigningKey

    Progress = Callable[[int, int], None]
    PathLike = str | os.PathLike[str]


class Versions(Session):
    """How adapters get into the registry and out of it."""

    def push(
        self,
        folder: PathLike,
        name: str,
        *,
        base: PathLike | None = None,
        alias: str | None = None,
        semver: str | None = None,
        sign_with: SigningKey | PathLike | None = None,
        probe: bool = False,
        progress: Progress | None = None,
    ) -> Version:
        """Make an adapter's folder a version of ``name``.

        Args:
            folder: a PEFT folder (``adapter_config.json`` and ``*.safetensors``).
            name: ``name`` or ``namespace/name``.
            base: the base it was trained on: a folder, or the name of a base in the registry.
                ``None``: what the folder's record says, else the base that the registry knows by
                the adapter's ``base_model_name_or_path``; without either, a warning says that the
                version is not tied to a base.
            alias: let this alias name the new version.
            semver: semantic version to give it, e.g. ``1.2.0``; it is one content's for ever.
            sign_with: sign the version with this private key (a PEM file) before the alias moves.
            probe: run the base, which must be a folder, without and with the adapter on a few
                tokens, and keep the answer beside the version: :meth:`validate` compares it.
            progress: called with (bytes sent, bytes to send).

        Returns:
            The version. The same content again is the same version and moves no bytes.

        Raises:
            AdapterError: the adapter is broken, or the probe finds no effect; nothing was sent.
            IncompatibleError: it does not fit the base; nothing was sent.
            BackendUnavailableError: the base cannot be run; nothing was sent.
        """
        from rankloom import semantic
        from rankloom.adapter.reader import read
        from rankloom.registry.pack import card, pack
        from rankloom.registry.push import move_alias, push
        from rankloom.validate import validate

        target = ref.AdapterName.parse(name)
        if alias is not None:
            ref.check_name(alias, "alias")
        if semver is not None:
            semantic.check(semver)
        self._ask_as_a_job()
        adapter = read(Path(folder))
        known = bases.find(self.registry, self.settings, adapter, base)
        expected = adapter.record.base if adapter.record else None
        found = known.fingerprint if known else None
        model = known.model if known else None
        validate(adapter, model, expected=expected, found=found).raise_for_errors()
        manifest = pack(adapter, found)
        if manifest.base is None:
            _warn_untied(adapter)
        answered = _probe(adapter, manifest, base) if probe else None
        recorded = bases.record(self.registry, known) if known else None
        version = push(
            self.registry,
            adapter.path,
            target,
            manifest,
            base=recorded,
            card=card(adapter),
            semver=semver,
            progress=progress,
        )
        if answered is not None:
            version = self._keep(version, answered)
        if sign_with is not None:
            from rankloom.registry import signatures

            signatures.sign(self.registry, version, manifest, sign_with)
        if alias is not None:
            move_alias(self.registry, version, alias)
            version = self.registry.resolve(ref.VersionRef(target, digest=version.digest)).version
        return version

    def pull(
        self,
        name: str,
        output: PathLike | None = None,
        *,
        signed_by: Signers | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Return the folder of the version that a ref names, every byte verified.

        Args:
            name: a ref to a version.
            output: make a copy of its own there; ``None``: the folder in the cache (do not edit).
            signed_by: refuse it unless one of these has signed it; as of :meth:`verify`.
            progress: called with (bytes here, bytes in all).

        Raises:
            IntegrityError: stored bytes differ from their digest; no folder appears.
            NotFoundError: there is no such version.
            SignatureError: it is not signed as it must be; nothing is fetched.
        """
        resolved = self.resolve(name) if signed_by is None else self._verified(name, signed_by)
        return self._pull(resolved, Path(output) if output is not None else None, progress)

    def sign(
        self,
        name: str,
        key: SigningKey | PathLike | None = None,
        *,
        signature: PathLike | None = None,
    ) -> Signature:
        """Sign the version that a ref names, and attach the signature to it.

        What is signed are its files, base and lineage as its manifest lists them, in the OpenSSF
        model-signing format; no weight is read. The same key again changes nothing.

        Args:
            name: a ref to a version.
            key: the PEM file of a private key, or a :class:`SigningKey` for all other ways.
            signature: attach the signature in this file, which was made elsewhere, instead.

        Raises:
            BackendUnavailableError: ``rankloom[sign]`` is not installed.
            RefError: the key cannot be used.
            SignatureError: the signature is of another version, or the namespace names others.
        """
        from rankloom.registry import signatures

        found = self._signed(name)
        if signature is not None:
            bundle = signatures.read_bundle(Path(signature))
            return self.registry.add_signature(found.version.adapter, found.version.digest, bundle)
        if key is None:
            message = f"with what shall {name} be signed?"
            raise RefError(message, hint="give a private key, or a signature that is made already")
        return signatures.sign(self.registry, found.version, found.manifest, key)

    def sign_folder(self, folder: PathLike, key: SigningKey | PathLike, output: PathLike) -> Path:
        """Write a signature of all files of a folder to a file, and return its path.

        That of a pulled folder is one of the version too, and can be attached to it.

        Raises:
            BackendUnavailableError: ``rankloom[sign]`` is not installed.
            RefError: the key cannot be used.
            SignatureError: the folder holds links, or no file.
        """
        from rankloom.registry import signatures

        return signatures.sign_folder(Path(folder), key, Path(output))

    def verify(
        self,
        adapter: PathLike,
        by: Signers,
        *,
        signature: PathLike | None = None,
    ) -> Signed:
        """Return the signature of a version or folder by one of those who are trusted.

        Args:
            adapter: a ref to a version, or a folder, whose every file is hashed.
            by: a PEM file with a public key or with certificates, a ``Signer``, or several.
            signature: the file with the signature; a version has its own.

        Raises:
            BackendUnavailableError: ``rankloom[sign]`` is not installed.
            SignatureError: (SEC007) there is none; nothing should be made of what was to be signed.
        """
        from rankloom.registry import signatures

        where = ref.parse(adapter)
        file = None if signature is None else Path(signature)
        if isinstance(where, Path):
            return signatures.verify_folder(where, file, by)
        return signatures.verify(self._signed(str(adapter)), by, str(adapter), file)

    def _verified(self, name: str, by: Signers) -> SignedVersion:
        from rankloom.registry import signatures

        found = self._signed(name)
        signatures.verify(found, by, name)
        warn_withdrawn(name, found)
        return found

    def _keep(self, version: Version, probe: Probe) -> Version:
        """Keep a probe beside a version, with what else was said of it."""
        from rankloom.registry.wire import Remarks

        return self.registry.remark(version.adapter, version.digest, Remarks(probe=probe))


def _probe(adapter: Adapter, manifest: Manifest, base: PathLike | None) -> Probe:
    """Return what a base answers with an adapter; errors as of :func:`rankloom.probe.take.keep`."""
    if base is None or manifest.base is None or not bases.is_folder(base):
        message = "a probe runs the base, which must be a folder of this machine"
        raise RefError(message, hint="push with base= (--base) as a folder such as ./base")
    from rankloom.probe.check import needed
    from rankloom.recipe.part import Part

    with needed():
        from rankloom.probe.take import keep

    part = Part(adapter, manifest.digest, str(adapter.path), manifest.base)
    return keep(part, Path(base).expanduser(), manifest.base)


def _warn_untied(adapter: Adapter) -> None:
    claim = adapter.config.base_model_name_or_path
    message = (
        f"BASE001 {adapter.path} is pushed without a base: nothing will refuse it on a wrong one"
        f" (its config names {claim!r}; push with base=, or record that base first)"
    )
    warnings.warn(RankloomWarning(message), stacklevel=3)
