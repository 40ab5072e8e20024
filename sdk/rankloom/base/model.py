"""A base model as a value: its config and the headers of its tensors, without their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.base.layout import Layout
    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class Piece:
    """Where one part of a target's parameter lies on disk: ``entry[region] = parameter[part]``.

    The parameter counts as the change knows it: (out, in) or (experts, out, in) for one that is
    computed, however the module keeps it; as the module keeps it for one that is put in its place.
    Most parameters are one piece: one whole stored tensor. Checkpoints that keep each expert by
    itself while the module has them in one parameter need many, and a projection that is a part of
    a fused one on disk needs a region.

    Attributes:
        entry: the stored tensor's header; ``entry.name`` is its name on disk.
        transposed: the last two axes of the stored region are (in, out), as in transformers'
            ``Conv1D`` and in the experts of some models.
        region: index of the stored tensor as it lies on disk; ``()`` is all of it.
        part: index of the parameter that this region holds; ``()`` is all of it.
    """

    entry: TensorEntry
    transposed: bool = False
    region: tuple[int | slice, ...] = ()
    part: tuple[int | slice, ...] = ()


@dataclass(frozen=True)
class Base:
    """A base model.

    Attributes:
        path: its folder; for a base known only by the registry's record, an empty path.
        config: content of ``config.json``.
        tensors: header of every tensor by its name on disk.
        files: its safetensors files in name order; empty for a base known only by record.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    files: tuple[Path, ...] = ()

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """The base under the names of each class that its config can mean, the likeliest first."""
        from rankloom.base import layout, naming

        return tuple(layout.Layout(self.tensors, found) for found in naming.namings(self.config))

    @cached_property
    def shared(self) -> tuple[re.Pattern[str], ...]:
        """What is found in the names of parameters that several modules share."""
        from rankloom.base import tying

        return tuple(tying.shared(self.config))

    @cached_property
    def marks(self) -> frozenset[str]:
        """Names of tensors that say that what they are beside is quantised."""
        from rankloom.base import quantised

        return frozenset(name for name in self.tensors if name.endswith(quantised.ENDINGS))

    @cached_property
    def transposed(self) -> Mapping[str, bool]:
        """Modules whose bias says whether they keep their weight as (in, out)."""
        from rankloom.base import orientation

        return orientation.transposed_modules(self)
