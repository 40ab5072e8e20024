"""An executor that does what a cluster does to tasks, in this process."""

from __future__ import annotations

import pickle
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rankloom.apply.parcel import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rankloom.apply.staged import Staged
    from rankloom.apply.tasks import ShardTask


class InParcels:
    """Packs each task, sends it through a pickle, and carries out what comes out.

    Args:
        hidden: folders that are not there while it is carried out.
    """

    def __init__(self, hidden: Sequence[Path] = ()) -> None:
        self._hidden = hidden

    def run(
        self,
        tasks: list[ShardTask],
        done: Callable[[Staged], None],
        progress: Callable[[int], None],
    ) -> None:
        for task in tasks:
            parcel = pickle.loads(pickle.dumps(pack(task)))  # noqa: S301 - our own
            with ExitStack() as stack:
                for folder in self._hidden:
                    stack.enter_context(away(folder))
                staged = stack.enter_context(unpack(parcel)).run()
            done(staged)
            progress(staged.nbytes)


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Have no such folder while the block runs."""
    elsewhere = folder.rename(folder.with_name(f"{folder.name}-away"))
    try:
        yield
    finally:
        elsewhere.rename(folder)
