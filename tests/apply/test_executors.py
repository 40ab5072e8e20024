"""Whoever carries the tasks out, the bytes are the same; what is lost is begun again, or named."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gate import Gate, lives
from lowrank_cases import Case, part, write_base
from parcels import InParcels, away
from rankloom.apply import checkpoint
from rankloom.apply.executors import attempt, find_executor
from rankloom.apply.places import Origin
from rankloom.apply.staged import FolderStage
from rankloom.apply.steps import plan_shard
from rankloom.apply.tasks import ShardTask
from rankloom.base.reader import read
from rankloom.composition import Composition, compose
from rankloom.errors import (
    AdapterError,
    BackendUnavailableError,
    BaseError,
    RankloomWarning,
    RefError,
    WorkerLostError,
)
from rankloom.recipe.methods import METHODS
from rankloom.recipe.parameters import REQUIRED
from rankloom.tensorfile.header import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankloom.apply.staged import Staged

pytestmark = pytest.mark.filterwarnings("ignore:BASE001", "ignore:MRG011")


@pytest.fixture
def composition(tmp_path: Path) -> Composition:
    write_base(tmp_path / "base", shards=4)
    Case(rank=4).write(tmp_path / "adapter")
    return compose([part(tmp_path / "adapter")], [0.8])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder: Path, composition: Composition, name: str, **options: Any) -> str:  # noqa: ANN401
    report = composition.apply_to(folder / "base", folder / name, digest=True, **options)
    assert report.digest is not None
    return report.digest


def test_the_digest_is_what_other_programs_compute(
    tmp_path: Path, composition: Composition
) -> None:
    found = written(tmp_path, composition, "out")
    line = "sha256sum *.safetensors | sha256sum"
    env = {**os.environ, "LC_ALL": "C"}
    printed = subprocess.check_output(line, shell=True, cwd=tmp_path / "out", env=env, text=True)  # noqa: S602
    assert found == f"sha256:{printed.split()[0]}"
    assert composition.apply_to(tmp_path / "base", tmp_path / "other").digest is None


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"shard_bytes": 5000}])
def test_processes_write_what_threads_write(
    tmp_path: Path, composition: Composition, options: dict[str, Any]
) -> None:
    calls: list[tuple[int, int]] = []
    expected = written(tmp_path, composition, "threads", **options)
    for count in (1, 2):
        name = f"processes-{count}"
        options = {**options, "progress": lambda *call: calls.append(call)}
        assert written(tmp_path, composition, name, on="processes", workers=count, **options) == (
            expected
        )
        assert contents(tmp_path / name) == contents(tmp_path / "threads")
        assert calls[-1][0] == calls[-1][1]
    assert not list(tmp_path.glob(".*.partial"))


def test_a_process_that_is_killed_in_a_file_costs_nothing_but_time(
    tmp_path: Path, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(tmp_path, composition, "undisturbed")
    gate = Gate(tmp_path / "gate")
    for name, value in gate.environment.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(written, tmp_path, composition, "out", on="processes", workers=2)
        pids = gate.waiting(2)
        assert len(list(tmp_path.glob(".out.partial/staged-*/*"))) == 2
        os.kill(pids[0], signal.SIGKILL)
        gate.open()
        assert running.result() == expected
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert not any(map(lives, gate.seen()))


def test_a_file_whose_process_always_dies_is_named_and_nothing_is_kept(
    tmp_path: Path, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(tmp_path / "gate")
    gate.be_deadly()
    for name, value in gate.environment.items():
        monkeypatch.setenv(name, value)
    match = r"wrote model-0000\d-of-00004\.safetensors died 3 times, at last by SIGKILL"
    with pytest.raises(WorkerLostError, match=match):
        written(tmp_path, composition, "out", on="processes", workers=1)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_an_interrupt_ends_the_processes(
    tmp_path: Path, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(tmp_path / "gate")
    for name, value in gate.environment.items():
        monkeypatch.setenv(name, value)

    def stop(done: int, _: int) -> None:
        if done > sum(path.stat().st_size for path in (tmp_path / "base").glob("*.json")):
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        options = {"on": "processes", "workers": 2, "progress": stop}
        running = pool.submit(written, tmp_path, composition, "out", **options)
        gate.waiting(2)
        gate.open()
        with pytest.raises(KeyboardInterrupt):
            running.result()
    assert not any(map(lives, gate.seen()))
    # The finished file is kept for the next run, which may be carried out by something else.
    assert len(list(tmp_path.glob(".out.partial/content/*.safetensors"))) == 1
    assert written(tmp_path, composition, "out") == written(tmp_path, composition, "other")


def test_stragglers_of_a_killed_run_change_nothing_and_end(
    tmp_path: Path, composition: Composition
) -> None:
    gate = Gate(tmp_path / "gate")
    code = f"""
        import warnings
        from pathlib import Path
        from lowrank_cases import part
        from rankloom.composition import compose
        warnings.simplefilter("ignore")
        where = Path({str(tmp_path)!r})
        composition = compose([part(where / "adapter")], [0.8])
        composition.apply_to(where / "base", where / "out", on="processes", workers=2)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, **gate.environment}
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment) as asking:
        pids = gate.waiting(2)
        asking.kill()
    assert all(map(lives, pids))
    other = compose(composition.parts, [-1])
    expected = written(tmp_path, other, "undisturbed")
    assert written(tmp_path, other, "out") == expected
    gate.open()
    end = time.monotonic() + 30
    while any(map(lives, pids)):
        assert time.monotonic() < end, pids
        time.sleep(0.02)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".out*"))


def test_an_error_in_a_process_is_the_same_error(tmp_path: Path, composition: Composition) -> None:
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterError, match="FMT008") as found:
        written(tmp_path, composition, "out", on="processes", workers=1)
    assert found.value.hint == "pull or copy the adapter again"
    assert not (tmp_path / "out").exists()


def test_processes_run_nothing_of_the_current_folder(
    tmp_path: Path, composition: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("torch", "socket"):
        Path(f"{name}.py").write_text(f"open('ran-{name}', 'w')")
    written(tmp_path, composition, "out", on="processes", workers=1)
    assert not list(tmp_path.glob("ran-*"))


def test_what_a_library_prints_is_no_result(tmp_path: Path) -> None:
    code = """
        import os
        class Loud:
            def run(self):
                os.write(1, b"from C")
                print("from Python")
                return "done"
    """
    (tmp_path / "loud.py").write_text(textwrap.dedent(code))
    task = b"cloud\nLoud\n)\x81."  # the pickle of Loud(): the module is there for the child alone
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", attempt.__name__]
    done = subprocess.run(command, input=task, env=environment, capture_output=True, check=True)
    assert pickle.loads(done.stdout) == "done"  # noqa: S301 - our child's
    assert b"from C" in done.stderr
    assert b"from Python" in done.stderr


@pytest.mark.parametrize("name", METHODS)
def test_a_parcel_holds_all_that_a_method_reads(tmp_path: Path, name: str) -> None:
    method = METHODS[name]
    write_base(tmp_path / "base", shards=3)
    for number in range(2):
        Case(rank=4, seed=number).write(tmp_path / str(number))
    needed = {"t": 0.3, "density": 0.6}
    parameters = {
        key: needed[key] for key, one in method.parameters.items() if one.default is REQUIRED
    }
    parts = [part(tmp_path / str(number)) for number in range(2)]
    rank = 3 if method.needs_rank else None
    composition = compose(parts, method=name, parameters=parameters, rank=rank)
    found = []
    for executor in (None, InParcels([tmp_path / "0", tmp_path / "1"])):
        out = tmp_path / str(executor)[:5]
        changes = composition.changes
        base = read(tmp_path / "base")
        report = checkpoint.apply_to_checkpoint(
            base, changes, out, executor=executor, hashes=True, seed="a"
        )
        found.append(report.digest)
    assert found[0] == found[1]


def task(folder: Path, **fields: Any) -> ShardTask:  # noqa: ANN401
    """The copy of one file."""
    base = read(folder / "base")
    (folder / "staged").mkdir()
    plan = plan_shard(read_header(base.files[0]), {}, None)
    made = ShardTask(plan, Origin.of(base), FolderStage(str(folder / "staged"), hashes=True))
    return replace(made, **fields)


def test_a_task_may_be_done_twice(tmp_path: Path, composition: Composition) -> None:
    one = task(tmp_path)
    first, second = one.run(), one.run()
    assert first.digest == second.digest
    assert first.token != second.token
    data = read(tmp_path / "base").files[0].read_bytes()
    assert first.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    ("hidden", "error", "match"),
    [
        ("base", BaseError, "is not on this machine"),
        ("staged", BackendUnavailableError, "does not see .*staged"),
    ],
)
def test_a_machine_that_does_not_see_the_folders_says_so(
    tmp_path: Path,
    composition: Composition,
    hidden: str,
    error: type[Exception],
    match: str,
) -> None:
    one = task(tmp_path)
    with away(tmp_path / hidden), pytest.raises(error, match=match):
        one.run()


def test_another_base_under_the_same_name_is_refused(
    tmp_path: Path, composition: Composition
) -> None:
    one = task(tmp_path)
    os.utime(read(tmp_path / "base").files[0], (1, 1))
    with pytest.raises(BaseError, match="another size or time"):
        one.run()


def test_other_versions_are_refused(tmp_path: Path, composition: Composition) -> None:
    one = task(tmp_path, versions=("0.0.1", "2.6.0"))
    with pytest.raises(BackendUnavailableError, match=r"planned with \('0.0.1', '2.6.0'\)"):
        one.run()


class Mixed(InParcels):
    """A cluster of machines of which no two are alike."""

    def run(self, tasks: list[ShardTask], done: Callable[[Staged], None], *rest: Any) -> None:  # noqa: ANN401
        count = iter(range(9))
        super().run(tasks, lambda one: done(replace(one, processor=f"P{next(count)}")), *rest)


def test_processors_of_several_kinds_are_told(tmp_path: Path, composition: Composition) -> None:
    with pytest.warns(RankloomWarning, match=r"several kinds \(P0; P1; P2; P3\)"):
        checkpoint.apply_to_checkpoint(
            read(tmp_path / "base"), composition.changes, tmp_path / "out", executor=Mixed()
        )


def test_nothing_else_carries_work_out() -> None:
    with pytest.raises(RefError, match="'slurm'"):
        find_executor("slurm")


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendUnavailableError) as found:
        find_executor("ray://127.0.0.1:10001")
    assert found.value.hint == "pip install 'rankloom[ray]'"
