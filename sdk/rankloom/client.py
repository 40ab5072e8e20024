"""A client: everything rankloom does, over one registry."""

from __future__ import annotations

import tempfile
import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rankloom import bases, config, ref
from rankloom.errors import (
    AdapterError,
    ConflictError,
    NotFoundError,
    OfflineError,
    RankloomWarning,
    RefError,
)
from rankloom.recipe.lines import at_line

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn

    from rankloom.adapter.reader import Adapter
    from rankloom.compose.interference.report import InterferenceReport
    from rankloom.composition import Composition, Part
    from rankloom.fingerprint import Fingerprint
    from rankloom.manifest import Manifest
    from rankloom.recipe.demands import Demands
    from rankloom.recipe.document import Recipe
    from rankloom.registry.cache.folder import Cache
    from rankloom.registry.protocol import Registry
    from rankloom.registry.signatures import Signed, Signers
    from rankloom.registry.wire import (
        AdapterDetail,
        AdapterRecord,
        AliasMove,
        BaseRecord,
        MintedToken,
        Probe,
        ResolvedVersion,
        Signature,
        SignedVersion,
        Version,
    )
    from rankloom.repair import Repaired
    from rankloom.signing.signers import SigningKey
    from rankloom.tune.trial import Trial
    from rankloom.tune.tuned import Tuned
    from rankloom.validate import Report

    Progress = Callable[[int, int], None]
    PathLike = str | os.PathLike[str]
    T = TypeVar("T")


class Client:
    """Everything of the SDK as methods, over one registry.

    Args:
        url: address of the registry. ``None`` means what the environment and the config file say
            at each call; if they name none either, the registry embedded in this process.
        token: bearer token for ``url``.
        offline: use no network: of a registry behind an address, only what the cache knows. What
            an alias named when it was last resolved is used with a warning that says when.
            ``None``: what ``RANKLOOM_OFFLINE`` says.

    Nothing is opened before the first call that needs it. A client may be shared by threads.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, offline: bool | None = None
    ) -> None:
        self._url, self._token, self._offline = url, token, offline
        self._lock = threading.Lock()
        self._cache: Cache | None = None
        self._minted: dict[str, MintedToken] = {}
        self._opened: tuple[config.Settings, Registry] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the registry; the next call opens it again."""
        with self._lock:
            if self._opened:
                self._opened[1].close()
            if self._cache:
                self._cache.close()
            self._opened = self._cache = None

    @property
    def settings(self) -> config.Settings:
        """Where this client keeps things and which registry it speaks to."""
        found = config.load()
        if self._url:
            found = replace(found, url=self._url, token=self._token)
        if found.token is None and found.url in self._minted:
            found = replace(found, token=self._minted[found.url].token)
        return found if self._offline is None else replace(found, offline=self._offline)

    @property
    def registry(self) -> Registry:
        """The registry itself, as :class:`rankloom.registry.protocol.Registry`."""
        settings = self.settings
        with self._lock:
            if self._opened and self._opened[0] == settings:
                return self._opened[1]
            if self._opened:
                self._opened[1].close()
            self._opened = settings, _open(settings)
            return self._opened[1]

    @property
    def cache(self) -> Cache:
        """What was pulled to this machine; what this client pulled stays there until it closes."""
        from rankloom.registry.cache.folder import Cache

        folder = self.settings.cache_dir
        with self._lock:
            if self._cache is None or self._cache.folder != folder:
                self._cache = Cache(folder)
            return self._cache

    # --- versions ------------------------------------------------------------------------------

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
        _warn_withdrawn(name, found)
        return found

    def _ask_as_a_job(self) -> None:
        """Get a token for the job of CI that this is, if none was given and none is good now."""
        settings = self.settings
        minted = self._minted.get(settings.url or "")
        given = settings.token if minted is None else None
        if settings.url is None or settings.offline or given or (minted and minted.is_fresh()):
            return
        from rankloom.registry import ambient

        if ambient.is_job():
            self._minted[settings.url] = ambient.exchange(settings.url)

    def _signed(self, name: str) -> SignedVersion:
        """Return the version that a ref names with its signatures."""
        from rankloom.registry import signatures

        return _ask(name, _version_ref(name), partial(signatures.look_up, self.registry))

    def resolve(self, name: str) -> ResolvedVersion:
        """Return the version that a ref names now, with its manifest.

        A yanked version is still resolved by its number or digest; a warning gives the reason.
        """
        resolved = self._resolve(name)
        _warn_withdrawn(name, resolved)
        return resolved

    def _resolve(self, name: str, *, is_locked: bool = False) -> ResolvedVersion:
        parsed = _version_ref(name)
        if is_locked:  # the digest will be compared, so no namesake can be taken for it
            parsed = replace(parsed, bare=False)
        return _ask(name, parsed, self._look_up)

    def _look_up(self, asked: ref.VersionRef) -> ResolvedVersion:
        from rankloom.registry.cache.resolved import Resolutions, look_up

        settings = self.settings
        known = Resolutions(settings.cache_dir, settings.url)
        return look_up(self.registry, known, asked)

    def list(self, query: str = "", *, namespace: str | None = None) -> Iterator[AdapterRecord]:
        """Yield the adapters of the catalogue in name order, page by page."""
        after: str | None = ""
        while after is not None:
            page = self.registry.list_adapters(namespace=namespace, query=query, after=after)
            yield from page.items
            after = page.next

    def search(
        self, text: str = "", *, same_as: PathLike | None = None, **query: object
    ) -> Iterator[Version]:
        """Yield the versions that are searched for, newest first.

        Args:
            text: words of the adapter's name, namespace or card, whole and in any case.
            same_as: a ref, or an adapter's folder, whose very tensors they have.
            query: what else must hold; the fields of
                :class:`rankloom.registry.wire.VersionQuery`, e.g. ``base="llama"``,
                ``rank_max=16``, ``contains=["q_proj"]``, ``labels=["task=qa"]``.

        Raises:
            NotFoundError: there is no such base.
            RefError: the query is malformed.
        """
        from pydantic import ValidationError

        from rankloom.registry.wire import VersionQuery

        if same_as is not None:
            query["tensors"] = self._tensors_of(same_as)
        try:
            wanted = VersionQuery.model_validate({"text": text, **query})
        except ValidationError as error:
            found = error.errors()[0]
            message = f"this cannot be searched for: {found['loc'][0]}: {found['msg']}"
            raise RefError(message, hint="'loractl search --help' lists what can") from error
        after: int | None = None
        while True:
            page = self.registry.search(wanted, after=after)
            yield from page.items
            after = page.next
            if after is None:
                return

    def _tensors_of(self, adapter: PathLike) -> str:
        """Return the digest of the tensors of a version or a folder."""
        from rankloom.adapter.reader import read
        from rankloom.tensorfile.tensor_digest import tensor_digest

        where = ref.parse(adapter)
        if isinstance(where, Path):
            return tensor_digest(read(where).header.tensors.values())
        found = self.registry.resolve(where).version.facts.tensors
        if found is None:
            message = f"{where} was published before the registry took digests of tensors"
            raise RefError(message, hint="pull it, and give its folder instead")
        return found

    def remark(
        self,
        name: str,
        *,
        labels: Mapping[str, str | None] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        deprecated: str | None = None,
    ) -> Version:
        """Say something of the version that a ref names; what is not named stays as it is.

        Args:
            name: a ref to a version.
            labels: names and values to search by; a value of ``None`` removes the label.
            metrics: names and numbers, e.g. of an evaluation; ``None`` removes one.
            deprecated: why it should not be used any more; an empty text takes that back.

        Raises:
            RefError: a name or value is malformed.
        """
        from pydantic import ValidationError

        from rankloom.registry.wire import Remarks

        resolved = self.resolve(name)
        version = resolved.version
        try:
            said = Remarks(
                labels=_changed(version.labels, labels),
                metrics=_changed(version.metrics, metrics),
                deprecated=(version.deprecated if deprecated is None else deprecated) or None,
                probe=resolved.probe,
            )
        except ValidationError as error:
            found = error.errors()[0]
            message = f"this cannot be said of {name}: {found['loc'][-1]}: {found['msg']}"
            raise RefError(message, hint="names are as those of adapters") from error
        return self.registry.remark(version.adapter, version.digest, said)

    def show(self, name: str) -> AdapterDetail:
        """Return an adapter with all its versions, newest first."""
        return self.registry.show(ref.AdapterName.parse(name))

    def alias(self, name: str, alias: str, *, expected: str | None = None) -> AliasMove:
        """Let ``alias`` name the version that the ref ``name`` resolves to.

        Args:
            name: a ref to a version.
            alias: the alias to move.
            expected: digest that the alias must name now; ``None``: whatever it names when this
                call begins. If somebody moves it meanwhile, nothing happens.

        Raises:
            ConflictError: the alias names another version than expected.
        """
        from rankloom.registry.push import alias_digest
        from rankloom.registry.wire import AliasRequest

        version = self.resolve(name).version
        if expected is None:
            expected = alias_digest(self.registry.show(version.adapter), alias)
        request = AliasRequest(digest=version.digest, expected=expected)
        return self.registry.set_alias(version.adapter, alias, request)

    def yank(self, name: str, reason: str) -> Version:
        """Withdraw the version that a ref names from ``latest``; its bytes stay."""
        return self._yank(name, reason)

    def unyank(self, name: str) -> Version:
        """Bring a yanked version back."""
        return self._yank(name, None)

    # --- bases ---------------------------------------------------------------------------------

    def add_base(
        self, folder: PathLike, name: str | None = None, *, progress: Progress | None = None
    ) -> BaseRecord:
        """Record a base's fingerprint and headers under ``name`` (``None``: the folder's name).

        Raises:
            ConflictError: the name belongs to another base.
        """
        known = bases.read(self.settings, Path(folder), progress)
        wanted = ref.check_name(name, "base name") if name else bases.slug(known.source)
        return self.registry.add_base(known.to_record(wanted))

    def show_base(self, name: str) -> BaseRecord:
        """Return what the registry has recorded of a base."""
        return self.registry.get_base(ref.check_name(name, "base name"))

    def list_bases(self) -> tuple[BaseRecord, ...]:
        """Return all recorded bases in name order, without their tensors."""
        return self.registry.list_bases()

    def fingerprint(self, folder: PathLike, *, progress: Progress | None = None) -> Fingerprint:
        """Return a base's fingerprint (cached until one of its files changes)."""
        return bases.read(self.settings, Path(folder), progress).fingerprint

    # --- adapters and bases --------------------------------------------------------------------

    def validate(
        self,
        adapter: PathLike,
        *,
        against: PathLike | None = None,
        engines: Sequence[str] = (),
        headers_only: bool = False,
        probe: bool = False,
        progress: Progress | None = None,
    ) -> Report:
        """Check an adapter, a ref or a folder, and how it fits a base.

        Args:
            adapter: a ref or a folder; a folder needs no registry.
            against: a base's folder, the name of a base in the registry, or an address
                (``https://…``, ``s3://…``), of which only config and headers are fetched.
            engines: serving engines that must serve what was trained, as ``"vllm==0.33"`` or
                ``"vllm,max_lora_rank=64"``; ``report.engines`` holds what each would do.
            headers_only: do not read the adapter's values nor the base's; the report says so.
            probe: run the base, which must be a folder, without and with the adapter on a few
                tokens: the adapter must have an effect, and that which was kept at its push.
            progress: called with (bytes hashed, bytes in all) while the base is fingerprinted.

        Returns:
            The report; its ``findings`` say what is wrong. A broken adapter is no exception here.
        """
        from rankloom.probe.check import check, open_
        from rankloom.validate import validate

        if probe and headers_only:
            message = "a probe reads all values, and headers_only reads none"
            raise RefError(message, hint="leave out one of them")
        where = ref.parse(adapter)
        # The version whose files are checked is the one whose probe is compared.
        resolved = self.resolve(str(adapter)) if probe and not isinstance(where, Path) else None
        named = resolved.version.pinned if resolved else str(adapter)
        folder = where if isinstance(where, Path) else self.pull(named)
        if against is None:
            report = validate(folder, engines=engines, headers_only=headers_only)
            return open_(report, "no base was given") if probe else report
        known = self._remote_base(against) or self._base(
            against, values=not headers_only, progress=progress
        )
        report = validate(
            folder,
            known.model,
            found=known.fingerprint,
            leaves=bases.apart(lambda: self.registry, self.settings, folder, known),
            engines=engines,
            headers_only=headers_only,
        )
        if not probe:
            return report
        place = Path(against).expanduser()
        if not (bases.is_folder(against) and place.is_dir()):
            return open_(report, "the base's values are not here: give its folder")
        try:
            part = self._part(folder)
        except AdapterError:
            return open_(report, "the adapter could not be read so far")
        kept = resolved.probe if resolved else None
        return check(report, part, place, known.fingerprint, kept)

    def repair(
        self,
        folder: PathLike,
        target: PathLike | None,
        *,
        against: PathLike | None = None,
        rank: int | None = None,
    ) -> Repaired:
        """Repair what is mechanical in an adapter's folder, exactly, and prove it.

        Keys get their prefix, factors one dtype that holds all their values, numbers that were
        texts become numbers. Every value is compared, and the result is validated.

        Args:
            folder: the folder.
            target: the folder to make; ``None``: repair ``folder`` itself.
            against: the base; it tells what names mean where that is open.
            rank: fill the factors up to this rank with zeros, for engines that ask for one.

        Returns:
            What was repaired, each with its rule.

        Raises:
            AdapterError: a file is too broken to be read.
            UnsupportedAdapterError: the factors cannot be brought to ``rank``.
            ConflictError: ``target`` exists and is not an empty folder.
        """
        from rankloom.repair import repair

        model = None if against is None else self._base(against, values=False).model
        place = None if target is None else Path(target)
        return repair(Path(folder), place, base=model, rank=rank)

    def compose(
        self,
        refs: Sequence[PathLike],
        weights: Sequence[object] | None = None,
        *,
        method: str = "exact",
        rank: object = None,
        base: PathLike | None = None,
        engines: Sequence[str] = (),
        allow_no_effect: bool = False,
        **parameters: object,
    ) -> Composition:
        """Combine adapters: W + Σ wᵢ(Wᵢ′ − W), Wᵢ′ being what adapter i alone makes of W.

        Args:
            refs: refs or folders; folders need no registry.
            weights: one per adapter: a number, negative ones too; a list of numbers, which is a
                gradient over the layers; or filters, ``[{"filter": "mlp", "value": 0.5},
                {"value": 1}]``. ``None`` means all 1.
            method: how deltas are combined; ``"exact"`` is the weighted sum, rank Σr. The others
                are in ``docs/composition.md``.
            rank: bring the result to this rank: a number, ``"energy=0.999"`` or ``"auto"``;
                ``composition.errors`` says what is lost. ``None``: nothing is lost.
            base: a base's folder or name that all adapters must fit; it also tells how many
                layers there are.
            engines: serving engines that must take the rank, as ``"vllm"`` or
                ``"vllm,max_lora_rank=64"``.
            allow_no_effect: let it pass where an adapter leaves a target as it is, with a warning.
            parameters: of the method; what recipes call ``lambda`` is ``lambda_`` here.

        Raises:
            RefError: the number of weights differs from the number of adapters, one is none, or
                the method does not take a parameter.
            IncompatibleError: the adapters were made for different bases, or not for ``base``, or
                an engine does not take the rank.
            UnsupportedAdapterError: the method does not work on how an adapter stores its change.
            ConflictError: a version was yanked.
        """
        from rankloom.recipe.demands import Demands

        demands = Demands.of(engines, allow_no_effect=allow_no_effect)
        parts = [self._part(item) for item in refs]
        known = None if base is None else self._base(base)
        return self._compose(
            parts,
            weights,
            known,
            method=method,
            rank=rank,
            parameters={name.removesuffix("_"): value for name, value in parameters.items()},
            demands=demands,
        )

    def interference(
        self,
        refs: Sequence[PathLike],
        weights: Sequence[object] | None = None,
        *,
        rows: int = 64,
        seed: int = 0,
    ) -> InterferenceReport:
        """Measure how much adapters disagree where they meet, before they are composed.

        Args:
            refs: refs or folders.
            weights: those that they shall be composed with; as of :meth:`compose`.
            rows: how many rows of each target are looked at for the conflict of signs, the only
                figure that is an estimate.
            seed: which rows.

        Raises:
            RefError: an adapter stands twice, or there is nothing to measure.
            IncompatibleError: the adapters were made for different bases.
        """
        from rankloom.compose.interference.of_plan import report_on
        from rankloom.recipe.plan import make_plan

        plan = make_plan([self._part(item) for item in refs], weights)
        return report_on(plan, rows=rows, seed=seed)

    def compose_recipe(
        self,
        path: PathLike,
        *,
        locked: PathLike | None = None,
        engines: Sequence[str] = (),
        allow_no_effect: bool = False,
    ) -> Composition:
        """Compose what a recipe file says; its format is in ``docs/composition.md``.

        Args:
            path: a YAML file in rankloom's format or mergekit's; folders in it are relative to it.
            locked: a composition's folder or ``rankloom.json``: take the versions that it pins,
                and :meth:`Composition.save` refuses to write any other bytes.
            engines: as of :meth:`compose`, besides those of the recipe.
            allow_no_effect: as of :meth:`compose`, even if the recipe does not.

        Raises:
            RefError: something in the recipe is not understood; the message names the line.
            IntegrityError: the recipe is not the one that was locked.
            IncompatibleError: as of :meth:`compose`.
            ConflictError: a version was yanked, and the composition is not locked.
        """
        from rankloom.recipe.demands import Demands
        from rankloom.recipe.document import read_recipe

        more = Demands.of(engines, allow_no_effect=allow_no_effect)
        recipe = read_recipe(Path(path))
        demands = recipe.demands.joined(more)
        return self._compose_recipe(recipe, None if locked is None else Path(locked), demands)

    def compose_locked(
        self,
        refs: Sequence[PathLike],
        locked: PathLike,
        *,
        engines: Sequence[str] = (),
        allow_no_effect: bool = False,
    ) -> Composition:
        """Compose refs with the versions, weights and method that a lock pins.

        :meth:`Composition.save` refuses to write any other bytes than those that were recorded.

        Args:
            refs: the adapters in the order of the lock; an alias may name another version by now.
            locked: a composition's folder or its ``rankloom.json``.
            engines: as of :meth:`compose`.
            allow_no_effect: as of :meth:`compose`.

        Raises:
            IntegrityError: an adapter is not the one that was locked.
            RefError: the lock is none, or of an algorithm that this version does not have.
        """
        from rankloom.recipe.demands import Demands
        from rankloom.recipe.locked import check_parts, pinned, read_locked
        from rankloom.recipe.locking import arguments

        demands = Demands.of(engines, allow_no_effect=allow_no_effect)
        record, lock = read_locked(Path(locked))
        parts = [self._part(item, is_locked=True) for item in pinned(refs, lock)]
        check_parts(parts, lock)
        options = {**arguments(lock), "demands": demands}
        return self._compose(parts, known=record.base, wanted=record, **options)

    def tune(
        self,
        refs: Sequence[PathLike],
        *,
        evaluate: Callable[[Any], object],
        base: PathLike | None = None,
        model: nn.Module | None = None,
        held_out: Callable[[Any], object] | None = None,
        method: str = "exact",
        rank: object = None,
        groups: Sequence[str] = (),
        bands: int = 1,
        grid: Sequence[float] = (),
        bounds: tuple[float, float] = (0.0, 1.5),
        trials: int | None = None,
        seed: int = 0,
        journal: PathLike | None = None,
        checkpoints: bool = False,
        progress: Callable[[Trial], None] | None = None,
        **parameters: object,
    ) -> Tuned:
        """Find the weights of a composition on a dev set; see ``docs/tune.md``.

        The base as it is and each adapter alone are scored first, for comparison. The model is
        never loaded again, and has its own bits again after each trial.

        Args:
            refs: refs or folders.
            evaluate: scores a model on the dev set: a number, or better one for each example, of
                which intervals can be told. Higher is better. It must give the same score for the
                same model.
            base: the base's folder. It is loaded by transformers as the class that its config
                names, unless there is a ``model``.
            model: the base as a live model.
            held_out: the same on examples that had no part in the search; it scores what was found
                and what that is compared with.
            method: how deltas are combined, as of :meth:`compose`.
            rank: what compositions are brought to.
            groups: texts in the names of targets, each of which gets a weight of its own, as do
                all other targets.
            bands: cut each group into as many bands of layers, each with a weight of its own.
            grid: try every combination of these weights; empty: search by CMA-ES.
            bounds: lowest and highest weight of the search.
            trials: how many compositions are scored at most; ``None``: 30, or all of a grid.
            seed: of the search.
            journal: a file that keeps every score; the same call with it goes on where it was,
                and another search over the same weights takes what is there.
            checkpoints: ``evaluate`` gets the folder of a merged checkpoint, not a model.
            progress: called after each trial.
            parameters: of the method.

        Returns:
            The best composition, all trials, and whether it beats the best without all adapters.

        Raises:
            EvaluationError: a score is NaN or none; the message names the trial.
            ConflictError: the journal is of something else, or of another evaluation.
            RefError: groups, bands, grid or bounds make no sense; or as of :meth:`compose`.
            IncompatibleError: the adapters do not fit each other, or the base.
        """
        from rankloom.tune.recipe import Combined, pinned
        from rankloom.tune.search import Settings
        from rankloom.tune.stage import make_stage
        from rankloom.tune.start import tune

        parts = [self._part(item) for item in refs]
        known = None if base is None else self._base(base)
        where = Path(base) if base is not None and bases.is_folder(base) else None
        named = {name.removesuffix("_"): value for name, value in parameters.items()}
        found = [pinned(item, part.digest) for item, part in zip(refs, parts, strict=True)]
        return tune(
            parts,
            Combined(tuple(found), where or (str(base) if base else None), method, named, rank),
            make_stage(where, model, checkpoints=checkpoints),
            Settings(tuple(groups), bands, tuple(grid), bounds, trials, seed),
            {"dev": evaluate, **({"held_out": held_out} if held_out else {})},
            base=known.fingerprint if known else None,
            base_names=tuple(known.model.tensors) if known else (),
            options={"publisher": self._publish, "cache": self.settings.cache_dir / bases.CACHE},
            journal=None if journal is None else Path(journal),
            progress=progress,
        )

    # --- inside --------------------------------------------------------------------------------

    def _compose(
        self,
        parts: Sequence[Part],
        weights: Sequence[object] | None,
        known: bases.KnownBase | Fingerprint | None,
        **options: Any,  # noqa: ANN401 - those of compose
    ) -> Composition:
        from rankloom.composition import compose

        names: Iterable[str] = ()
        if isinstance(known, bases.KnownBase):
            names = known.model.tensors
            known = known.fingerprint
        return compose(
            parts,
            weights,
            base=known,
            base_names=names,
            publisher=self._publish,
            cache=self.settings.cache_dir / bases.CACHE,
            **options,
        )

    def _compose_recipe(self, recipe: Recipe, locked: Path | None, demands: Demands) -> Composition:
        from rankloom.recipe.locked import check_lock, check_parts, pinned, read_locked

        known = self._base_of(recipe)
        options = {
            "method": recipe.method,
            "parameters": recipe.parameters,
            "rank": recipe.rank,
            "dtype": recipe.dtype,
            "demands": demands,
        }
        if locked is None:
            named = zip(recipe.refs, recipe.lines, strict=True)
            parts = [self._part(item, line=line) for item, line in named]
            return self._compose(parts, recipe.weights, known, **options)
        record, lock = read_locked(locked)
        again = zip(pinned(recipe.refs, lock), recipe.lines, strict=True)
        parts = [self._part(item, line=line, is_locked=True) for item, line in again]
        check_parts(parts, lock)
        composition = self._compose(parts, recipe.weights, known, wanted=record, **options)
        check_lock(composition.lock, lock)
        return composition

    def _base_of(self, recipe: Recipe) -> bases.KnownBase | None:
        """Return the base of a recipe; one that only another tool knows is passed over."""
        if recipe.base is None:
            return None
        if recipe.is_foreign and not Path(recipe.base).is_dir():
            message = f"BASE001 {recipe.base} is no folder here: the adapters are not compared with"
            message += " it, and they tell how many layers there are"
            warnings.warn(RankloomWarning(message), stacklevel=3)
            return None
        with at_line(recipe.base_line):
            return self._base(recipe.base)

    def _base(
        self, base: PathLike, *, values: bool = True, progress: Progress | None = None
    ) -> bases.KnownBase:
        return bases.resolve(
            lambda: self.registry, self.settings, base, values=values, progress=progress
        )

    def _remote_base(self, address: PathLike) -> bases.KnownBase | None:
        if bases.is_remote(address) and self.settings.offline:
            message = f"the base {address} is on the network, and this is offline"
            raise OfflineError(message, hint="name its folder, or the name of a base")
        return bases.remote(address)

    def _pull(
        self, resolved: ResolvedVersion, output: Path | None, progress: Progress | None
    ) -> Path:
        from rankloom.registry.pull import pull

        return pull(self.registry, self.cache, resolved, output=output, progress=progress)

    def _part(self, item: PathLike, *, line: str = "", is_locked: bool = False) -> Part:
        """Read what a ref names; a complaint names the recipe's line that names it."""
        with at_line(line):
            return self._read_part(item, line, is_locked=is_locked)

    def _read_part(self, item: PathLike, line: str, *, is_locked: bool) -> Part:
        from rankloom.adapter.reader import read
        from rankloom.composition import Part
        from rankloom.registry.pack import pack

        where = ref.parse(item)
        if isinstance(where, Path):
            adapter = read(where)
            manifest = pack(adapter)
            return Part(adapter, manifest.digest, str(item), manifest.base, line)
        resolved = self._resolve(str(item), is_locked=is_locked)
        (_warn_withdrawn if is_locked else _refuse_yanked)(str(item), resolved)
        adapter = read(self._pull(resolved, None, None))
        return Part(adapter, resolved.version.digest, str(item), resolved.manifest.base, line)

    def _publish(self, composition: Composition, name: str, alias: str | None) -> Version:
        with tempfile.TemporaryDirectory(prefix="rankloom-") as folder:
            saved = composition.save(Path(folder) / "composition")
            return self.push(saved, name, alias=alias)

    def _keep(self, version: Version, probe: Probe) -> Version:
        """Keep a probe beside a version, with what else was said of it."""
        from rankloom.registry.wire import Remarks

        said = Remarks(
            labels=version.labels,
            metrics=version.metrics,
            deprecated=version.deprecated,
            probe=probe,
        )
        return self.registry.remark(version.adapter, version.digest, said)

    def _yank(self, name: str, reason: str | None) -> Version:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankloomWarning)  # the caller knows that it is yanked
            version = self.resolve(name).version
        return self.registry.yank(version.adapter, version.digest, reason)


def _changed(before: dict[str, T], change: Mapping[str, T | None] | None) -> dict[str, T]:
    after = {**before, **(change or {})}
    return {name: value for name, value in after.items() if value is not None}


def _version_ref(name: str) -> ref.VersionRef:
    parsed = ref.parse(name)
    if isinstance(parsed, Path):
        message = f"{name!r} is a folder, not a version in the registry"
        raise RefError(message, hint="give a name such as zh-lang, zh-lang@v3 or zh-lang:prod")
    return parsed


def _ask(name: str, parsed: ref.VersionRef, question: Callable[[ref.VersionRef], T]) -> T:
    """Return what the registry knows of a ref; if that is nothing, a folder may have been meant."""
    try:
        return question(parsed)
    except NotFoundError as error:
        if Path(name).is_dir():
            error.hint = f"for the folder of that name write ./{name}"
        raise


def _open(settings: config.Settings) -> Registry:
    if settings.url is None:
        from rankloom.registry.embedded import open_registry

        return open_registry(settings.registry_dir)
    if settings.offline:
        from rankloom.registry.cache.resolved import Resolutions
        from rankloom.registry.offline import OfflineRegistry

        return OfflineRegistry(settings.url, Resolutions(settings.cache_dir, settings.url))
    from rankloom.registry.http import HttpRegistry

    return HttpRegistry(settings.url, settings.token)


def _warn_withdrawn(name: str, resolved: ResolvedVersion) -> None:
    if resolved.version.deprecated is not None:
        message = f"{name} is deprecated: {resolved.version.deprecated}"
        warnings.warn(RankloomWarning(message), stacklevel=3)
    if resolved.version.yanked is not None:
        reason = resolved.version.yanked or "no reason given"
        warnings.warn(RankloomWarning(f"{name} was yanked: {reason}"), stacklevel=3)


def _refuse_yanked(name: str, resolved: ResolvedVersion) -> None:
    """Let nothing new be made of a version that was withdrawn; a lock still makes it again."""
    if resolved.version.yanked is not None:
        reason = resolved.version.yanked or "no reason given"
        message = f"MRG010 {name} was yanked: {reason}"
        hint = "name another version; what was composed of it before is made again with --locked"
        raise ConflictError(message, hint=hint)


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
