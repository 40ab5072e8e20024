"""Where a composition is scored: on one live model, or as a checkpoint of its own."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rankloom.apply.live.attach import Changes, apply_to_model
from rankloom.apply.live.load import load_model
from rankloom.apply.live.originals import Originals
from rankloom.errors import RankloomWarning, RefError
from rankloom.tune.held import Held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from rankloom.composition import Composition


@contextmanager
def quiet(*, active: bool = True) -> Iterator[None]:
    """Hold back warnings while a trial is made that is like one before it."""
    with warnings.catch_warnings():
        if active:
            warnings.simplefilter("ignore", RankloomWarning)
        yield


class Stage(Protocol):
    """Applies a composition, lets something be evaluated, and takes the composition back."""

    def run(self, evaluate: Callable[[Any], object], composition: Composition | None) -> object:
        """Return what the evaluation gave; without a composition, of the base as it is."""
        ...


class Live:
    """One model that is never loaded again: each composition lies on it while it is scored.

    Args:
        model: the base, or the folder that it is loaded from when it is needed first. It has its
            own bits again after each run, also after an exception.
    """

    def __init__(self, model: nn.Module | Path) -> None:
        self._source, self._has_warned = model, False
        self._held, self._originals = Held(), Originals()

    @cached_property
    def _model(self) -> nn.Module:
        return load_model(self._source) if isinstance(self._source, Path) else self._source

    def run(self, evaluate: Callable[[Any], object], composition: Composition | None) -> object:
        """Evaluate the model.

        Raises:
            IncompatibleError: the adapters do not fit the model, or it is another base.
            BackendUnavailableError: the model cannot be loaded.
        """
        if composition is None:
            return evaluate(self._model)
        changes = Changes(self._held.hold(composition.changes), composition.base)
        with quiet(active=self._has_warned):
            handle = apply_to_model(self._model, changes, originals=self._originals)
        self._has_warned = True
        with handle:
            return evaluate(self._model)


class Checkpoints:
    """A folder for each composition, removed after it was scored.

    Args:
        base: the base's folder.
    """

    def __init__(self, base: Path) -> None:
        self._base, self._has_warned = base, False

    def run(self, evaluate: Callable[[Any], object], composition: Composition | None) -> object:
        """Evaluate a folder.

        Raises:
            IncompatibleError: the adapters do not fit the base, or it is another one.
        """
        if composition is None:
            return evaluate(self._base)
        with tempfile.TemporaryDirectory(prefix="rankloom-") as folder:
            checkpoint = Path(folder) / "checkpoint"
            with quiet(active=self._has_warned):
                composition.apply_to(self._base, checkpoint)
            self._has_warned = True
            return evaluate(checkpoint)


def make_stage(base: Path | None, model: nn.Module | None, *, checkpoints: bool = False) -> Stage:
    """Return where compositions are scored.

    Args:
        base: the base's folder.
        model: the base as a live model; ``None``: it is loaded from the folder, once.
        checkpoints: score folders, not a model.

    Raises:
        RefError: nothing is there to apply to, or a live model where a folder is needed.
    """
    if base is None and (model is None or checkpoints):
        message = "there is no folder of a base to " + ("merge into" if checkpoints else "load")
        raise RefError(message, hint="give base= as a folder such as ./base, or a live model")
    if checkpoints and model is not None:
        message = "checkpoints are made of the base's folder, so a live model has no part in it"
        raise RefError(message, hint="leave out model=, or checkpoints=")
    if model is not None:
        return Live(model)
    assert base is not None  # noqa: S101 - checked above
    return Checkpoints(base) if checkpoints else Live(base)
