"""The writing of a checkpoint as one task for each of its files, for this or any other machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

import torch

from rankloom.apply.workers import Job
from rankloom.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.apply.places import Origin
    from rankloom.apply.staged import Stage, Staged
    from rankloom.apply.steps import ShardPlan


def versions() -> tuple[str, str]:
    """Return the versions of the programs that decide the bytes of a result."""
    return version("rankloom"), torch.__version__


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One file of the output. To do it again, anywhere, gives the same bytes.

    Attributes:
        plan: of the file.
        origin: the base.
        stage: where it is written.
        versions: of the programs that planned it.
    """

    plan: ShardPlan
    origin: Origin
    stage: Stage
    versions: tuple[str, str] = field(default_factory=versions)

    def run(self) -> Staged:
        """Write the file, on one thread.

        Raises:
            BackendUnavailableError: other versions are installed here.
        """
        if self.versions != versions():
            message = f"rankloom and torch are {versions()} here, but the work was planned with"
            message += f" {self.versions}"
            hint = "install the same versions on all machines: others may round differently"
            raise BackendUnavailableError(message, hint=hint)
        found: list[Staged] = []
        with self.origin.open() as sources:
            Job([self.plan], sources, self.stage, found.append).run(1, lambda _: None)
        return found[0]


class Executor(Protocol):
    """Carries out tasks: in this process, in others, on other machines."""

    def run(
        self,
        tasks: list[ShardTask],
        done: Callable[[Staged], None],
        progress: Callable[[int], None],
    ) -> None:
        """Do all of them, or raise what went wrong once nobody here works on them any more.

        Args:
            tasks: of one output and one base.
            done: told of each file that is complete, one at a time.
            progress: told of bytes that were written, in this thread.
        """
