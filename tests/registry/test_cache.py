"""The cache of pulled versions: what it tells, what it finds, what it lets go, and what never."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapter_folder import write_adapter, write_base
from rankloom.client import Client
from rankloom.manifest import RECORD, read_record
from rankloom.registry.cache import layout
from rankloom.registry.cache.folder import Cache
from rankloom.registry.cache.holds import Holds

LONG_AGO = datetime.now(UTC) - timedelta(days=40)
MONTH = timedelta(days=30)
EVER = timedelta(0)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two versions pulled, which share their config's blob."""
    place = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch, Client() as client:
        patch.setenv("RANKLOOM_HOME", str(place / "home"))
        patch.delenv("RANKLOOM_URL", raising=False)
        base = write_base(place / "base")
        for seed, name in enumerate(["zh", "qa"]):
            client.push(write_adapter(place / name, seed=seed), name, base=base, alias="prod")
            client.pull(f"{name}:prod")
    return place / "home"


@pytest.fixture
def pulled(filled: Path, home: Path) -> Iterator[Cache]:
    """A copy of that home's cache, used by nobody."""
    subprocess.run(["cp", "-a", filled, home], check=True)
    with closing(Cache(home / "cache")) as cache:
        yield cache


@pytest.fixture
def lone(pulled: Cache) -> Path:
    """The blob that only the first version has, as if last used long ago."""
    zh, qa = reversed(pulled.survey().versions)
    (digest,) = zh.blobs - qa.blobs
    path = pulled.blob(digest)
    age(path)
    return path


def age(path: Path) -> None:
    os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))


def names(cache: Cache) -> list[tuple[str, ...]]:
    return [version.refs for version in cache.survey().versions]


def tree(folder: Path) -> dict[Path, bytes]:
    paths = [
        path for room in ("blobs", "versions", "resolved") for path in folder.glob(f"{room}/**/*")
    ]
    return {path: path.read_bytes() for path in paths if path.is_file()}


@contextmanager
def using(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has pulled a version and goes on living."""
    code = (
        "import sys; from rankloom import sdk;"
        f"print(sdk.pull({name!r}), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert Path(running.stdout.readline().decode().strip()).is_dir()
        try:
            yield running
        finally:
            running.kill()


# --- what it tells -----------------------------------------------------------------------------


def test_a_cache_tells_what_it_holds_the_version_used_last_first(pulled: Cache, lone: Path) -> None:
    found = pulled.survey()
    assert names(pulled) == [("qa:prod",), ("zh:prod",)]
    qa, zh = found.versions
    assert zh.used_at == LONG_AGO.replace(microsecond=zh.used_at.microsecond)
    assert datetime.now(UTC) - qa.used_at < timedelta(minutes=5)
    assert zh.nbytes == sum(pulled.blob(blob).stat().st_size for blob in zh.blobs)
    assert (zh.missing, found.strays) == (0, frozenset())
    shared = sum(pulled.blob(blob).stat().st_size for blob in zh.blobs & qa.blobs)
    others = sum(len(data) for path, data in tree(pulled.folder).items() if "json" in path.name)
    config = len((layout.version(pulled.folder, qa.digest) / "adapter_config.json").read_bytes())
    assert found.nbytes == zh.nbytes + qa.nbytes - shared + others - 2 * config


def test_what_is_not_all_here_says_so(pulled: Cache, lone: Path) -> None:
    size = lone.stat().st_size
    lone.unlink()
    (zh,) = (version for version in pulled.survey().versions if version.refs == ("zh:prod",))
    assert zh.missing == size


def test_a_second_pull_is_a_use(pulled: Cache, lone: Path) -> None:
    with Client() as client:
        client.pull("zh")
    assert names(pulled)[0] == ("zh:latest", "zh:prod")


# --- what it finds -----------------------------------------------------------------------------


def test_a_sound_cache_is_sound(pulled: Cache) -> None:
    counted: list[tuple[int, int]] = []
    found = pulled.verify(progress=lambda *seen: counted.append(seen))
    assert (found.blobs, found.versions, found.damaged) == (3, 2, ())
    assert counted[-1] == (found.nbytes, found.nbytes)


def test_a_flipped_bit_is_found_and_only_repair_removes_it(pulled: Cache, lone: Path) -> None:
    data = bytearray(lone.read_bytes())
    data[len(data) // 2] ^= 1
    lone.write_bytes(data)  # the version's folder links to the same bytes
    before = tree(pulled.folder)
    found = pulled.verify()
    blob, folder = found.damaged
    assert (blob.path, blob.digest) == (lone, f"sha256:{lone.name}")
    assert folder.path.name in {path.name for path in pulled.folder.glob("versions/*")}
    assert tree(pulled.folder) == before
    assert len(pulled.verify(repair=True).damaged) == 2
    assert not lone.exists()
    assert not folder.path.exists()
    assert pulled.verify().damaged == ()
    with Client() as client:
        assert (client.pull("zh") / "adapter_model.safetensors").read_bytes() != bytes(data)


def test_what_a_pull_mends_while_a_repair_runs_stays(pulled: Cache, lone: Path) -> None:
    lone.write_bytes(b"others")
    handed: list[Path] = []

    def pull_once(done: int, total: int) -> None:
        if done == total and not handed:  # each blob is hashed, no folder is compared yet
            with Client() as client:
                handed.append(client.pull("zh"))

    assert pulled.verify(repair=True, progress=pull_once).damaged == ()
    assert (handed[0] / "adapter_model.safetensors").samefile(lone)
    assert pulled.verify().damaged == ()


def test_a_repair_leaves_what_is_in_use_and_says_so(pulled: Cache, lone: Path) -> None:
    lone.write_bytes(b"others")
    (zh,) = (version for version in pulled.survey().versions if version.refs == ("zh:prod",))
    with closing(Holds(pulled.folder)) as user:
        user.add([zh.digest, *zh.blobs])
        found = pulled.verify(repair=True).damaged
        assert [one.removed for one in found] == [False, False]
        assert all(one.path.exists() for one in found)
    found = pulled.verify(repair=True).damaged
    assert [one.removed for one in found] == [True, True]
    assert not any(one.path.exists() for one in found)


def harm(cache: Cache, damage: str) -> Path:
    """Harm the folder of a version, not its blobs."""
    digest = cache.survey().versions[0].digest
    folder = layout.version(cache.folder, digest)
    weights, record = folder / "adapter_model.safetensors", folder / RECORD
    manifest = read_record(folder)
    assert manifest is not None
    (record if "record" in damage else weights).unlink()
    if damage == "changed":
        weights.write_bytes(b"others")
    elif damage == "record":
        record.write_bytes(manifest.model_copy(update={"base": None}).record())
    return folder


DAMAGES = pytest.mark.parametrize("damage", ["changed", "gone", "record", "no record"])


@DAMAGES
def test_a_damaged_folder_is_found_though_its_blobs_are_sound(pulled: Cache, damage: str) -> None:
    folder = harm(pulled, damage)
    (found,) = pulled.verify(repair=True).damaged
    assert (found.path, found.digest) == (folder, folder.name.replace("-", ":"))
    assert not folder.exists()
    assert pulled.verify().damaged == ()


@DAMAGES
def test_a_pull_mends_a_damaged_folder(pulled: Cache, damage: str) -> None:
    folder = harm(pulled, damage)
    (name,) = pulled.survey().versions[0].refs
    with Client() as client:
        assert client.pull(name) == folder
    assert pulled.verify().damaged == ()


# --- what it lets go ---------------------------------------------------------------------------


def test_what_was_not_used_for_long_goes_and_what_others_share_stays(
    pulled: Cache, lone: Path
) -> None:
    size = lone.stat().st_size
    before = tree(pulled.folder)
    assert pulled.prune(older_than=MONTH, dry=True).blobs == 1
    assert tree(pulled.folder) == before
    done = pulled.prune(older_than=MONTH)
    assert [version.refs for version in done.versions] == [("zh:prod",)]
    assert (done.blobs, done.in_use, done.leftovers) == (1, (), 0)
    freed = sum(map(len, before.values())) - sum(map(len, tree(pulled.folder).values()))
    assert size < done.nbytes < freed  # a link and its blob are the same bytes
    assert names(pulled) == [("qa:prod",)]
    assert pulled.verify().damaged == ()
    assert not lone.exists()


def test_those_used_least_lately_go_until_the_rest_is_small_enough(
    pulled: Cache, lone: Path
) -> None:
    everything = pulled.survey().nbytes
    assert pulled.prune(max_bytes=everything).versions == ()
    done = pulled.prune(max_bytes=everything - 1)
    assert [version.refs for version in done.versions] == [("zh:prod",)]
    assert pulled.survey().nbytes < everything
    assert pulled.prune(max_bytes=1).blobs == 2
    assert not tree(pulled.folder)


def test_leftovers_of_broken_pulls_go_unless_they_are_fresh_or_their_pull_lives(
    pulled: Cache,
) -> None:
    digests = [f"{number:064x}" for number in range(3)]
    parts = [layout.blob(pulled.folder, f"sha256:{text}") for text in digests]
    parts = [path.with_name(f".part-{path.name}") for path in parts]
    notes = [path.with_name(f"{path.name}.note") for path in parts]
    small = parts[2].with_name(f"{parts[2].name}-abcd")  # as files come that are not resumed
    for path in (*parts, *notes, small):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some")
    for path in (*parts[1:], *notes[1:], small):
        age(path)
    folder = pulled.folder / f"versions/.sha256-{digests[2]}-abc"
    folder.mkdir()
    age(folder)
    puller = Holds(pulled.folder)
    puller.add([f"sha256:{digests[2]}"])
    assert pulled.prune().leftovers == 2
    assert parts[0].exists()
    assert not parts[1].exists()
    assert not notes[1].exists()
    assert parts[2].exists()
    assert small.exists()
    puller.close()
    assert pulled.prune().leftovers == 4
    assert not folder.exists()
    assert len(names(pulled)) == 2


def test_blobs_of_no_known_version_go(pulled: Cache, lone: Path) -> None:
    digest = pulled.survey().versions[1].digest
    shutil.rmtree(layout.version(pulled.folder, digest))
    shutil.rmtree(pulled.folder / "resolved")
    assert pulled.survey().strays == {f"sha256:{lone.name}"}
    assert pulled.prune().blobs == 1
    assert not lone.exists()
    assert pulled.verify().versions == 1


# --- what never goes ---------------------------------------------------------------------------


def test_what_another_process_uses_stays_until_that_ends_however_it_ends(pulled: Cache) -> None:
    with using("zh:prod") as running:
        done = pulled.prune(older_than=EVER)
        assert [version.refs for version in done.in_use] == [("zh:prod",)]
        assert names(pulled) == [("zh:prod",)]
        assert pulled.verify().damaged == ()
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert len(pulled.prune(older_than=EVER).versions) == 1
    assert names(pulled) == []


def test_what_this_process_uses_stays_until_its_client_closes(pulled: Cache) -> None:
    with Client() as client:
        client.pull("zh:prod")
        assert len(client.cache.prune(older_than=EVER).in_use) == 1
    assert len(pulled.prune(older_than=EVER).versions) == 1


PULLER = """
import hashlib, pathlib, sys, time
from rankloom.client import Client
end = time.monotonic() + float(sys.argv[1])
done = 0
while time.monotonic() < end:
    with Client() as client:
        for name in ("zh", "qa"):
            folder = client.pull(name)
            for _ in range(3):  # the folder stays whole while the client lives
                got = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes())
                assert got.hexdigest() == sys.argv[2 + ("zh", "qa").index(name)]
                time.sleep(0.002)
            done += 1
print(done)
"""


PRUNER = """
import sys, time
from rankloom.client import Client
end, removed = time.monotonic() + float(sys.argv[1]), 0
with Client() as client:
    while time.monotonic() < end:
        removed += len(client.cache.prune(max_bytes=1).versions)
        time.sleep(0.005)
print(removed)
"""


def test_pulls_prunes_and_checks_at_once_in_many_processes_lose_nothing(
    pulled: Cache, filled: Path
) -> None:
    weights = [filled.parent / name / "adapter_model.safetensors" for name in ("zh", "qa")]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]
    commands = [(PULLER, "2", *hashes)] * 3 + [(PRUNER, "2")] * 2
    running = [
        subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE)
        for command in commands
    ]
    while any(process.poll() is None for process in running):
        assert pulled.verify().damaged == ()
        assert len(pulled.survey().versions) <= 2
    done = [int(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0] * 5
    assert min(done[:3]) >= 2
    assert sum(done[3:]) > 0  # they did meet
    assert pulled.verify().damaged == ()
    assert not list((pulled.folder / "holders").glob("*.held"))


def test_a_disk_that_takes_no_note_of_a_use_still_gives_what_is_here(
    pulled: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Holds, "add", full)
    with Client() as client:
        assert client.pull("zh").is_dir()
