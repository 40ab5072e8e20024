"""Runs commands in processes of their own and measures them: time, memory, how they end.

One process has loaded the interpreter, the library and torch, and forks for every command: what is
measured is the command alone. A command that does not end, or takes a gigabyte, is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CRASH = 99
"""How a command ends that let an exception of any other class through."""

_MODULES = (
    "loractl.commands.validate",
    "loractl.main",
    "model_signing.verifying",
    "rankloom.apply.checkpoint",
    "rankloom.base.fingerprint",
    "rankloom.compose.save",
    "rankloom.convert",
    "rankloom.registry.http",
    "rankloom.tensorfile.values",
    "rankloom.validate",
    "rankloom_server.service",
)
_KILL_SECONDS = 20
_KILL_BYTES = 1 << 30


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; negative: the signal that killed it.
        out: standard output.
        err: standard error.
        seconds: that the processor worked.
        wall: seconds from start to end.
        nbytes: resident memory at its highest, less what it was at the start.
    """

    code: int
    out: str
    err: str
    seconds: float
    wall: float
    nbytes: int


class Runner:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, folder: Path, arguments: tuple[str, ...], **env: str) -> Ended:
        """Run ``loractl`` in a folder, with a home of its own in it."""
        given = {"RANKLOOM_HOME": str(folder / "home"), **env}
        request = {"folder": str(folder), "arguments": arguments, "env": given}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        out, err = folder / "out.txt", folder / "err.txt"
        return Ended(out=out.read_text(), err=err.read_text(), **ended)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _serve() -> None:
    _load()
    for line in sys.stdin:
        start = time.monotonic()
        request = json.loads(line)
        request["start"] = Path(request["folder"], "start.txt")
        if not (child := os.fork()):
            _child(**request)
        _, status, usage = os.wait4(child, 0)
        ended = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": usage.ru_utime + usage.ru_stime,
            "wall": time.monotonic() - start,
            "nbytes": usage.ru_maxrss * 1024 - int(request["start"].read_text()),
        }
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()


def _load() -> None:
    """Load all that a command may load, as the modules of a program that runs already."""
    for name in _MODULES:
        importlib.import_module(name)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _child(folder: str, arguments: list[str], env: dict[str, str], start: Path) -> None:
    code: Any = CRASH
    try:
        start.write_text(str(_resident()))
        os.chdir(folder)
        os.environ.update(env)
        for number, name in ((1, "out.txt"), (2, "err.txt")):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        signal.alarm(_KILL_SECONDS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _KILL_BYTES,) * 2)
        code = _command(arguments)
    except BaseException:  # noqa: BLE001 - whatever it is, the test shall see it
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _command(arguments: list[str]) -> int:
    from loractl.main import main

    sys.argv = ["loractl", *arguments]
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    _serve()
