"""Tasks in this process: all files at once, so that no thread waits while another has work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.apply.workers import Job, usual_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.apply.staged import Staged
    from rankloom.apply.tasks import ShardTask


class Threads:
    """See :class:`rankloom.apply.tasks.Executor`.

    Args:
        workers: how many threads; ``None``: as many as torch uses, up to four.
    """

    def __init__(self, workers: int | None) -> None:
        self._workers = workers or usual_workers()

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
            Job(plans, sources, tasks[0].stage, done).run(self._workers, progress)
