"""Holds other Python processes in the middle of a write, so that they can be killed right there."""

from __future__ import annotations

import os
import time
from pathlib import Path

_CODE = """
import os, time
from pathlib import Path
gate, write = Path({folder!r}), os.pwrite
def pwrite(descriptor, data, offset):
    if (gate / "deadly").exists():
        os.kill(os.getpid(), 9)
    if not (gate / "open").exists() and len(data) > 1:
        count = write(descriptor, data[: len(data) // 2], offset)
        (gate / str(os.getpid())).touch()
        while not (gate / "open").exists():
            time.sleep(0.01)
        return count
    return write(descriptor, data, offset)
os.pwrite = pwrite
"""


class Gate:
    """Processes that start with ``environment`` wait in their first write until it is opened.

    Args:
        folder: an empty one of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_CODE.format(folder=str(folder)))
        behind = os.environ.get("PYTHONPATH")
        self.environment = {"PYTHONPATH": os.pathsep.join([str(folder), *[behind] * bool(behind)])}

    def waiting(self, count: int) -> list[int]:
        """Return the ids of the processes that wait, once there are so many."""
        end = time.monotonic() + 60
        while len(found := self.seen()) < count:
            assert time.monotonic() < end, f"only {found} began to write"
            time.sleep(0.01)
        return found

    def seen(self) -> list[int]:
        """Return the ids of all processes that ever waited."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def open(self) -> None:
        """Let all of them go on."""
        (self._folder / "open").touch()

    def be_deadly(self) -> None:
        """Kill every process that writes."""
        (self._folder / "deadly").touch()


def lives(pid: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
