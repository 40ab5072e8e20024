"""What carries out the tasks of an apply: threads of this process, other processes, Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.errors import BackendUnavailableError, RefError

if TYPE_CHECKING:
    import torch

    from rankloom.apply.tasks import Executor


def find_device(name: str) -> torch.device:
    """Return a GPU by its name in torch, ``cuda`` or ``cuda:N``.

    Raises:
        RefError: it is no such name.
        BackendUnavailableError: there is no such GPU.
    """
    import torch

    _, colon, number = name.partition(":")
    if colon and not number.isdecimal():
        message = f"{name!r} names no GPU"
        raise RefError(message, hint="cuda, cuda:0, cuda:1, …")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        message = f"torch {torch.__version__} sees {count} CUDA GPUs, and {name} was asked for"
        hint = "the CPU gives as good a result: leave it out; or install torch for CUDA"
        raise BackendUnavailableError(message, hint=hint)
    return torch.device("cuda", int(number or 0))


def find_executor(on: str, workers: int | None = None) -> Executor:
    """Return what carries tasks out.

    Args:
        on: ``threads``, ``cuda`` or ``cuda:N`` (threads that compute on a GPU), ``processes``,
            ``ray``, or the address of a Ray cluster.
        workers: how many at once; ``None``: as many as suit the machine, or all that the cluster
            has.

    Raises:
        RefError: there is no such thing.
        BackendUnavailableError: Ray is not installed, or there is no such GPU.
    """
    if on == "threads":
        from rankloom.apply.executors.threads import Threads

        return Threads(workers)
    if on == "cuda" or on.startswith("cuda:"):
        from rankloom.apply.executors.threads import Threads

        return Threads(workers, find_device(on))
    if on == "processes":
        from rankloom.apply.executors.processes import Processes

        return Processes(workers)
    if on == "ray" or on.startswith("ray://"):
        from rankloom.apply.executors.ray import Ray

        return Ray(None if on == "ray" else on, workers)
    message = f"nothing carries work out on {on!r}"
    raise RefError(message, hint="one of threads, cuda, processes, ray, ray://host:10001")
