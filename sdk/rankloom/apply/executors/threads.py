"""Tasks in this process: all files at once, so that no thread waits while another has work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.apply.workers import Job, usual_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from rankloom.apply.staged import Staged
    from rankloom.apply.tasks import ShardTask


class Threads:
    """See :class:`rankloom.apply.tasks.Executor`.

    Args:
        workers: how many threads; ``None``: as many as torch uses, up to four.
        device: where sums are formed; ``None``: on the CPU.
    """

    def __init__(self, workers: int | None, device: torch.device | None = None) -> None:
        self._workers, self._device = workers or usual_workers(), device

    def run(
        self,
        tasks: list[ShardTask],
        done: Callable[[Staged], None],
        progress: Callable[[int], None],
    ) -> None:
        """See :class:`rankloom.apply.tasks.Executor`."""
        if not tasks:
            return
        plans = [task.plan for task in tasks]
        with tasks[0].origin.open() as sources:
            job = Job(plans, sources, tasks[0].stage, done, self._device)
            job.run(self._workers, progress)
