"""Runs that are killed, and the ones after them."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from lowrank_cases import Case, part, write_base
from rankloom.apply import workers
from rankloom.apply.partial import Partial
from rankloom.composition import Composition, compose
from rankloom.errors import ConflictError

if TYPE_CHECKING:
    from rankloom.apply.staged import Staged
    from rankloom.apply.transfer import Sink

pytestmark = pytest.mark.filterwarnings("ignore:BASE001:rankloom.errors.RankloomWarning")


def composed(tmp_path: Path, weight: float = 0.8) -> Composition:
    folder = tmp_path / "adapter"
    if not folder.exists():
        Case(rank=4).write(folder)
    return compose([part(folder)], [weight])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(tmp_path: Path, composition: Composition) -> Path:
    """Stop a run after its first file; return where the rest of it lies."""
    real = Partial.add

    def add(partial: Partial, staged: Staged) -> None:
        if partial.finished():
            raise KeyboardInterrupt
        real(partial, staged)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Partial, "add", add)
        with pytest.raises(KeyboardInterrupt):
            composition.apply_to(tmp_path / "base", tmp_path / "out")
    return tmp_path / ".out.partial"


def test_killed_anywhere_the_next_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_base(tmp_path / "base", shards=4)
    composed(tmp_path).apply_to(tmp_path / "base", tmp_path / "undisturbed")
    code = f"""
        import os, random, signal, sys, threading, warnings
        from pathlib import Path
        import torch
        from lowrank_cases import part
        from rankloom.composition import compose
        from rankloom.apply import transfer
        warnings.simplefilter("ignore")
        where, chance = Path({str(tmp_path)!r}), random.Random(int(sys.argv[1]))
        composition = compose([part(where / "adapter")], [0.8])
        for out in range(6):
            if os.fork() == 0:
                left, real = chance.randrange(20), transfer.write_at
                def write_at(*arguments):
                    global left
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    real(*arguments)
                transfer.write_at = write_at
                composition.apply_to(where / "base", where / f"out-{{out}}", workers=2)
                os._exit(0)
            chance.random()
            os.wait()
            composition.apply_to(where / "base", where / f"again-{{out}}" if
                (where / f"out-{{out}}").exists() else where / f"out-{{out}}")
    """
    seed = torch.randint(1 << 30, ()).item()
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(code), str(seed)]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = contents(tmp_path / "undisturbed")
    for number in range(6):
        assert contents(tmp_path / f"out-{number}") == expected, (seed, number)
    assert not list(tmp_path.glob(".out-*"))


def test_what_was_finished_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base", shards=4)
    composed(tmp_path).apply_to(tmp_path / "base", tmp_path / "undisturbed")
    partial = interrupted(tmp_path, composed(tmp_path))
    lines = [json.loads(line) for line in (partial / "journal.jsonl").read_text().splitlines()]
    finished = {line["name"] for line in lines[1:]}
    carried, real = set(), workers.carry_out

    def carry_out(step: object, sources: object, sink: Sink, tiles: object) -> bool:
        carried.add(getattr(step, "path", None) or step.new.path)  # type: ignore[attr-defined]
        return real(step, sources, sink, tiles)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "carry_out", carry_out)
    report = composed(tmp_path).apply_to(tmp_path / "base", tmp_path / "out")
    assert finished
    assert {path.name for path in carried}.isdisjoint(finished)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert report.changed == report.targets
    assert not partial.exists()


@pytest.mark.parametrize("change", ["weight", "dtype", "base", "a finished file", "a torn line"])
def test_nothing_else_is_taken_over(tmp_path: Path, change: str) -> None:
    write_base(tmp_path / "base", shards=4)
    partial = interrupted(tmp_path, composed(tmp_path))
    weight, dtype = 0.8, None
    if change == "weight":
        weight = 0.7
    elif change == "dtype":
        dtype = "float32"
    elif change == "base":
        for path in (tmp_path / "base").glob("model-*"):
            data = bytearray(path.read_bytes())
            data[-40:] = bytes(40)
            path.write_bytes(data)
    elif change == "a finished file":
        for path in (partial / "content").glob("model-*"):
            path.write_bytes(bytes(path.stat().st_size))
    else:
        journal = partial / "journal.jsonl"
        journal.write_text(journal.read_text()[:-9])
    for name in ("out", "fresh"):
        composed(tmp_path, weight).apply_to(tmp_path / "base", tmp_path / name, dtype=dtype)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    with (partial / "journal.jsonl").open("w") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another process is writing"):
            composed(tmp_path).apply_to(tmp_path / "base", tmp_path / "out")
    composed(tmp_path).apply_to(tmp_path / "base", tmp_path / "out")
