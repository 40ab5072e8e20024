"""What carries out the tasks of an apply: threads of this process, other processes, Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import RefError

if TYPE_CHECKING:
    from rankloom.apply.tasks import Executor


def find_executor(on: str, workers: int | None = None) -> Executor:
    """Return what carries tasks out.

    Args:
        on: ``threads``, ``processes``, ``ray``, or the address of a Ray cluster.
        workers: how many at once; ``None``: as many as suit the machine, or all that the cluster
            has.

    Raises:
        RefError: there is no such thing.
        BackendUnavailableError: Ray is not installed.
    """
    if on == "threads":
        from rankloom.apply.executors.threads import Threads

        return Threads(workers)
    if on == "processes":
        from rankloom.apply.executors.processes import Processes

        return Processes(workers)
    if on == "ray" or on.startswith("ray://"):
        from rankloom.apply.executors.ray import Ray

        return Ray(None if on == "ray" else on, workers)
    message = f"nothing carries work out on {on!r}"
    raise RefError(message, hint="one of threads, processes, ray, ray://host:10001")
