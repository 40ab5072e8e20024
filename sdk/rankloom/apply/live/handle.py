"""What lies on a live model: changed for something else in place, and taken back to the bit."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import nn

from rankloom.apply.live.claims import release
from rankloom.apply.live.identity import check_live_identity, renew
from rankloom.apply.live.recent import RecentlyUsed
from rankloom.apply.live.shards import local, reshard
from rankloom.apply.live.turns import Turns
from rankloom.apply.live.writes import Prepared, prepare
from rankloom.errors import ConflictError
from rankloom_kernels import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from rankloom.apply.live.originals import Originals
    from rankloom.apply.live.spots import LiveBase, Spot
    from rankloom.change.formula import TargetChange
    from rankloom.fingerprint import Fingerprint
    from rankloom.tensorfile.header import TensorEntry


class Applicable(Protocol):
    """What can lie on a model, such as a :class:`rankloom.composition.Composition`."""

    @property
    def changes(self) -> Sequence[TargetChange]:
        """What is added to which parameter."""

    @property
    def base(self) -> Fingerprint | None:
        """Identity of the base that it was made for."""

    @property
    def digest(self) -> str:
        """The same for what gives the same bits; factors are remembered under it. Empty: never."""


class Handle:
    """Changes that lie on a model until :meth:`restore` or until the ``with`` block ends.

    Parameters stay the same objects at the same addresses through any number of swaps, so that
    compiled models, CUDA graphs and optimizers that hold them stay valid; only of parameters that
    modules share and of which one changes, that module gets one of its own meanwhile.

    Every swap starts from the base's own values, so that no number of swaps leaves a trace, and
    the bits are those of a first :meth:`~rankloom.composition.Composition.apply`.

    Several threads may run the model, each within :meth:`reading`: they see the base with one
    composition, never a part of one and of another. A thread that runs it without may see a part.

    Attributes:
        model: the model that was changed.
        targets: full names in it of the parameters that what lies on it changes, or lay on it last.
    """

    def __init__(self, base: LiveBase, originals: Originals) -> None:
        self.model = base.model
        self._base, self._originals = base, originals
        self._turns = Turns(base.device)
        self._factors = RecentlyUsed[Prepared](originals.budget.factors)
        self._swapping = threading.Lock()
        self._on: Applicable | None = None
        self._prepared = Prepared(())
        # Whatever may have other values than the base's, and whatever had since apply().
        self._changed: dict[str, Spot] = {}
        self._ever: set[str] = set()
        self._passed: set[Fingerprint | None] = set()
        self.targets: tuple[str, ...] = ()
        self._is_open, self._workspace = True, Workspace()

    @contextmanager
    def reading(self) -> Iterator[Applicable | None]:
        """Run the model within this block, in any thread: no swap happens meanwhile.

        Yields:
            What lies on the model; ``None``: it is the base.
        """
        with self._turns.reading():
            yield self._on

    def swap(self, composition: Applicable | None) -> None:
        """Let another composition lie on the model instead, in one step for all readers.

        Factors are read while the others go on; then it waits for readers to end their blocks. If
        anything fails, the model holds what it held before.

        Args:
            composition: ``None``: nothing, so that the model is the base.

        Raises:
            IncompatibleError: it does not fit the model, or was made for another base.
            AdapterError: a factor cannot be read.
            BackendUnavailableError: there is no room for copies of what it changes.
            ConflictError: the handle was restored, or this thread is within :meth:`reading`.
        """
        with self._swapping:
            if not self._is_open:
                message = f"nothing lies on this {type(self.model).__name__} any more"
                raise ConflictError(message, hint="apply() gives a handle that can be swapped")
            prepared = Prepared(()) if composition is None else self._prepare(composition)
            with self._turns.writing():
                self._replace(prepared, composition)

    def restore(self) -> None:
        """Write back the base's bits of every changed parameter; a second call does nothing.

        Whatever was done to those parameters meanwhile, such as training, is undone too.

        Raises:
            ConflictError: this thread is within :meth:`reading`.
            IntegrityError: the checkpoint that holds the base's values was written to.
        """
        with self._swapping, self._turns.writing():
            if not self._is_open:
                return
            self._write(Prepared(()))
            self._on, self._prepared = None, Prepared(())
            self._is_open = False
            self._originals.forget()
            del self._originals, self._factors
            release(self.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def _prepare(self, composition: Applicable) -> Prepared:
        key = composition.digest
        found = self._factors.get(key) if key else None
        if found is None or not found.is_current:
            found = prepare(self._base.spots(composition.changes))
            if key:
                self._factors.put(key, found)
        return found

    def _replace(self, prepared: Prepared, composition: Applicable | None) -> None:
        before = self._prepared
        try:
            if composition is not None:
                self._check_identity(composition.base)
            self._write(prepared)
        except BaseException:
            self._write(before)
            raise
        self._on, self._prepared = composition, prepared
        self.targets = tuple(write.spot.name for write in prepared.writes)

    def _check_identity(self, expected: Fingerprint | None) -> None:
        if expected not in self._passed:
            self._put_back(self._changed.copy())
            check_live_identity(self.model, expected)
            self._passed.add(expected)

    @torch.no_grad()
    def _write(self, prepared: Prepared) -> None:
        reshard(self.model)
        spots = {write.spot.name: write.spot for write in prepared.writes}
        self._put_back({name: s for name, s in self._changed.items() if name not in spots})
        for spot in spots.values():
            self._keep(spot, spots)
        for write in prepared.writes:
            original = self._original(write.spot)
            write.fill(original, self._read, self._workspace)

    def _keep(self, spot: Spot, needed: dict[str, Spot]) -> None:
        name = spot.name
        if spot.own:
            if name not in self._changed:
                self._changed[name] = spot
                setattr(spot.module, spot.parameter, _own(spot.shared))
        elif name not in self._changed:
            self._originals.keep(name, local(spot.weight).detach(), needed)
            self._changed[name] = spot
        self._ever.add(name)

    def _original(self, spot: Spot) -> torch.Tensor:
        now = local(spot.weight)
        if spot.own:
            return local(spot.shared).detach().to(now.dtype)
        return self._originals.of(spot.name, now)

    def _read(self, entry: TensorEntry) -> torch.Tensor:
        tensor, spot = self._base.tensors[entry.name], self._changed.get(entry.name)
        # Of a shared one it is what the others still have.
        return tensor.detach() if spot is None or spot.own else self._original(spot)

    @torch.no_grad()
    def _put_back(self, spots: dict[str, Spot]) -> None:
        if not spots:
            return
        with renew(self.model, self._ever):
            for name, spot in spots.items():
                if spot.own:  # the model may have moved to another dtype or device meanwhile
                    now = spot.weight
                    spot.shared.data = spot.shared.data.to(now.device, now.dtype)
                    setattr(spot.module, spot.parameter, spot.shared)
                else:
                    local(spot.weight).copy_(self._original(spot))
                del self._changed[name]


def _own(shared: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
