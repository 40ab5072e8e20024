"""Tasks on the machines of a Ray cluster.

A task brings the adapters' factors along; the base and the output have to be where every machine
sees them. Ray begins a task again elsewhere if its process or its machine is lost.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rankloom.apply.executors.attempt import attempt
from rankloom.apply.parcel import Parcel, pack, unpack
from rankloom.errors import BackendUnavailableError, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rankloom.apply.staged import Staged
    from rankloom.apply.tasks import ShardTask

RETRIES = 3
"""How often Ray begins a task again whose process or machine is lost."""


class Ray:
    """See :class:`rankloom.apply.tasks.Executor`.

    Args:
        address: of the cluster; ``None``: that of ``RAY_ADDRESS``, or the one running here, or
            one that is started for this.
        workers: how many tasks at once; ``None``: as many as the cluster has processors.

    Raises:
        BackendUnavailableError: Ray is not installed.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        try:
            import ray
        except ImportError:
            message = "Ray is not installed"
            raise BackendUnavailableError(message, hint="pip install 'rankloom[ray]'") from None
        self._ray: Any = ray
        self._address, self._workers = address, workers

    def run(
        self,
        tasks: list[ShardTask],
        done: Callable[[Staged], None],
        progress: Callable[[int], None],
    ) -> None:
        """See :class:`rankloom.apply.tasks.Executor`.

        Raises:
            BackendUnavailableError: there is no such cluster, or it cannot run rankloom.
            WorkerLostError: the process or the machine of a task was lost again and again.
        """
        ray, waiting = self._ray, deque(tasks)
        running: dict[Any, ShardTask] = {}
        with self._connected():
            remote = ray.remote(num_cpus=1, max_retries=RETRIES)(carry_out)
            try:
                while waiting or running:
                    while waiting and len(running) < self._room():
                        task = waiting.popleft()
                        running[remote.remote(pack(task))] = task
                    [ready], _ = ray.wait(list(running))
                    staged = self._result(ready, running.pop(ready))
                    done(staged)
                    progress(staged.nbytes)
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Be connected to the cluster; a connection that the caller has is used, and kept."""
        if self._ray.is_initialized():
            yield
            return
        options = {} if self._address else {"logging_level": logging.WARNING}
        try:
            self._ray.init(address=self._address, log_to_driver=False, **options)
        except (ConnectionError, RuntimeError, ImportError) as error:
            message = f"no Ray cluster answers at {self._address or 'this machine'}: {error}"
            hint = "start one with 'ray start --head', or check the address"
            raise BackendUnavailableError(message, hint=hint) from error
        try:
            yield
        finally:
            self._ray.shutdown()

    def _room(self) -> int:
        """Return how many tasks may be with Ray: those that run, and as many to go on with."""
        if self._workers:
            return self._workers
        return 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _result(self, reference: Any, task: ShardTask) -> Staged:  # noqa: ANN401 - Ray's
        """Return what a task that ended made.

        Raises:
            Exception: the task's own.
        """
        errors = self._ray.exceptions
        try:
            found: Staged | Exception = self._ray.get(reference)
        except errors.RayTaskError as error:
            message = f"{task.plan.name} could not be begun: {error.cause or error}"
            hint = "install the same rankloom on all machines of the cluster"
            raise BackendUnavailableError(message, hint=hint) from error
        except errors.RayError as error:
            message = f"{task.plan.name} was lost {RETRIES + 1} times: {error}"
            hint = "memory may be short on its machines: give a smaller shard size"
            raise WorkerLostError(message, hint=hint) from error
        if isinstance(found, Exception):
            raise found
        return found


def carry_out(parcel: Parcel) -> Staged | Exception:
    """Carry out a task on the machine that it came to."""
    with unpack(parcel) as task:
        return attempt(task)
