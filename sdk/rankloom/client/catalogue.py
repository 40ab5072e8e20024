"""What the registry lists, and what is said of it: adapters, aliases, bases."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import bases, ref
from rankloom.client.session import Session, ask, version_ref
from rankloom.errors import RankloomWarning, RefError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from rankloom.fingerprint import Fingerprint
    from rankloom.registry.wire import (
        AdapterDetail,
        AdapterRecord,
        AliasMove,
        BaseRecord,
        RelatedVersion,
        Version,
    )

    Progress = Callable[[int, int], None]
    PathLike = str | os.PathLike[str]


class Catalogue(Session):
    """What a client finds in the registry and says there."""

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
                ``rank_max=16``, ``contains=["q_proj"]``, ``labels=["task=qa"]``,
                ``engine="vllm==0.33"``.

        Warns:
            RankloomWarning: an engine was named, and not all versions have been judged.

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
            if after is None and page.incomplete:
                warn_incomplete("have not been judged by the present tables of engines")
            yield from page.items
            after = page.next
            if after is None:
                return

    def related(self, name: str) -> Iterator[RelatedVersion]:
        """Yield the versions that have tensors of the one that a ref names, most shared first.

        Warns:
            RankloomWarning: of some versions the registry does not know the single tensors yet.

        Raises:
            RefError: it does not know them of this version.
        """
        wanted = version_ref(name)
        after: str | None = None
        while True:
            page = ask(name, wanted, partial(self.registry.related, after=after))
            if after is None and page.incomplete:
                warn_incomplete("were published before the registry took digests of single tensors")
            yield from page.items
            after = page.next
            wanted = ref.VersionRef(wanted.adapter, digest=page.digest)  # an alias may move
            if after is None:
                return

    def _tensors_of(self, adapter: PathLike) -> str:
        """Return the digest of the tensors of a version or a folder."""
        from rankloom.adapter.reader import read
        from rankloom.tensorfile.tensor_digest import leaves, tensor_digest

        where = ref.parse(adapter)
        if isinstance(where, Path):
            return tensor_digest(leaves(read(where).header.tensors.values()))
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

        version = self.resolve(name).version
        try:
            said = Remarks(
                labels=dict(labels or {}), metrics=dict(metrics or {}), deprecated=deprecated
            )
        except ValidationError as error:
            found = error.errors()[0]
            message = f"this cannot be said of {name}: {found['loc'][-1]}: {found['msg']}"
            raise RefError(message, hint="names are as those of adapters") from error
        return self.registry.remark(version.adapter, version.digest, said)

    def show(self, name: str) -> AdapterDetail:
        """Return an adapter with all its versions, newest first.

        Raises:
            NotFoundError: there is no such adapter.
            RefError: the name is malformed, or (REG005) may mean several adapters.
        """
        return self.registry.show(ref.AdapterName.parse(name), bare="/" not in name)

    def alias(self, name: str, alias: str, *, expected: str | None = None) -> AliasMove:
        """Let ``alias`` name the version that the ref ``name`` resolves to.

        Args:
            name: a ref to a version.
            alias: the alias to move.
            expected: digest that the alias must name now; ``None``: whatever it names when this
                call begins. If somebody moves it meanwhile, nothing happens.

        Raises:
            ConflictError: the alias names another version than expected.
            RefError: no alias may have that name.
        """
        from rankloom.registry.push import alias_digest
        from rankloom.registry.wire import AliasRequest

        ref.check_name(alias, "alias")
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

    def _yank(self, name: str, reason: str | None) -> Version:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankloomWarning)  # the caller knows that it is yanked
            version = self.resolve(name).version
        return self.registry.yank(version.adapter, version.digest, reason)


def warn_incomplete(why: str) -> None:
    """Warn that an answer leaves out versions of which too little is known."""
    message = f"the answer lacks versions that {why}; 'loractl admin index', where the registry is"
    warnings.warn(RankloomWarning(f"{message}, looks at them"), stacklevel=3)
