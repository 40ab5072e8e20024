"""Pushers, pullers, alias movers and the garbage collector at once, on PostgreSQL and S3.

Their networks lose, cut and change bytes, and the servers are killed again and again. Then it is
checked that nothing was lost: a number always meant one content, an alias moved only from where
it was, and every version that is kept is there to the last byte.

::

    python tests/fault_soak.py --operations 10000       a long run; prints its figures as JSON
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from adapter_folder import manifest_of, write_adapter
from fault_proxy import FaultProxy, running
from rankloom.errors import ConflictError, IntegrityError, NotFoundError, RankloomError
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry import transfer
from rankloom.registry.http import HttpRegistry
from rankloom.registry.push import send
from rankloom.registry.wire import AliasRequest, NamespaceRules, UploadRequest, Version
from rankloom_server import auth, fsck
from rankloom_server.access import LOCAL, Grant, Scope
from rankloom_server.collect import Collector
from rankloom_server.service import Service
from rankloom_server.settings import Settings
from rankloom_server.wiring import open_service
from servers import Postgres, S3Server, answers, free_ports, running_postgres, running_seaweedfs

NAMES = [AdapterName("default", f"a{index}") for index in range(4)]
ALIASES = ("prod", "canary")
CONTENTS = 12
API_FAULTS = {"refuse": 0.05, "delay": 0.1, "cut": 0.2, "drop": 0.3}
S3_FAULTS = {"refuse": 0.05, "delay": 0.1, "cut": 0.15, "drop": 0.2, "flip": 0.2}


@dataclass
class Books:
    """What was seen; a broken promise is written down here, not raised."""

    outcomes: Counter[str] = field(default_factory=Counter)
    collected: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    contents: dict[tuple[str, int], str] = field(default_factory=dict)
    kills: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, version: Version) -> None:
        """Write down which content a number means; it must never mean another one."""
        key = (str(version.adapter), version.number)
        with self.lock:
            if self.contents.setdefault(key, version.digest) != version.digest:
                self.broken.append(f"{key} meant {self.contents[key]}, now {version.digest}")

    def count(self, outcome: str) -> None:
        with self.lock:
            self.outcomes[outcome] += 1

    @property
    def operations(self) -> int:
        return sum(self.outcomes.values())


class Servers:
    """Two servers of one registry, each killed and started again until the end."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._env = {
            "RANKLOOM_SERVER_DATABASE_URL": str(settings.database_url),
            "RANKLOOM_SERVER_STORE": settings.store,
            "RANKLOOM_SERVER_S3_ENDPOINT": str(settings.s3_endpoint),
            "RANKLOOM_SERVER_S3_PUBLIC_ENDPOINT": str(settings.s3_public_endpoint),
            "RANKLOOM_SERVER_S3_ACCESS_KEY": str(settings.s3_access_key),
            "RANKLOOM_SERVER_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value()
            if settings.s3_secret_key
            else "",
        }
        self._folder = folder
        self.ports = free_ports(2)
        self._running = [self._start(index) for index in range(2)]
        for port in self.ports:
            _until(lambda port=port: answers(f"http://127.0.0.1:{port}/healthz"))  # type: ignore[misc]

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        import os

        data = {
            "RANKLOOM_SERVER_DATA_DIR": str(self._folder / f"server{index}"),
            "RANKLOOM_SERVER_PORT": str(self.ports[index]),
        }
        with (self._folder / f"server{index}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "rankloom_server"],
                env={**os.environ, **self._env, **data},
                stdout=log,
                stderr=log,
            )

    def kill_one(self, index: int) -> None:
        self._running[index].send_signal(signal.SIGKILL)
        self._running[index].wait()
        self._running[index] = self._start(index)

    def end(self) -> None:
        for one in self._running:
            one.kill()
            one.wait()


def _until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end, "a server did not start"
        time.sleep(0.05)


class Worker:
    """One client that does something at random, again and again."""

    def __init__(self, soak: "Soak", seed: int) -> None:
        self._soak, self._random = soak, random.Random(seed)  # noqa: S311
        self._clients = [HttpRegistry(proxy.url, soak.token) for proxy in soak.apis]

    def run(self) -> None:
        kinds: dict[str, Callable[[HttpRegistry], None]] = {
            "push": self._push,
            "pull": self._pull,
            "alias": self._alias,
            "yank": self._yank,
        }
        while not self._soak.ended:
            kind = self._random.choices(list(kinds), weights=[4, 5, 3, 1])[0]
            self._once(kind, kinds[kind])
        for client in self._clients:
            client.close()

    def _once(self, kind: str, act: Callable[[HttpRegistry], None]) -> None:
        books = self._soak.books
        try:
            act(self._random.choice(self._clients))
        except (ConflictError, NotFoundError):
            books.count(f"{kind} refused")  # somebody else was first, or there is nothing yet
        except RankloomError:
            books.count(f"{kind} failed")  # a fault of the network, and the client was told
        except BaseException as error:  # any other end is a broken promise
            books.broken.append(f"{kind}: {type(error).__name__}: {error}")
            raise
        else:
            books.count(f"{kind} done")

    def _push(self, registry: HttpRegistry) -> None:
        folder = self._random.choice(self._soak.folders)
        manifest = manifest_of(folder)
        name = self._random.choice(NAMES)
        upload = send(registry, folder, name, UploadRequest(manifest=manifest))
        if self._random.random() < 0.1:
            return  # and never comes back
        version = registry.publish(upload)
        if version.digest != manifest.digest:
            self._soak.books.broken.append(f"pushed {manifest.digest}, got {version.digest}")
        self._soak.books.note(version)

    def _pull(self, registry: HttpRegistry) -> None:
        ref = VersionRef(self._random.choice(NAMES), alias="latest")
        found = registry.resolve(ref)
        self._soak.books.note(found.version)
        if found.manifest.digest != found.version.digest:
            self._soak.books.broken.append(f"{found.version.pinned} has another manifest")
        with tempfile.TemporaryDirectory() as name:
            for entry in found.manifest.files:
                url = registry.blob_url(ref.adapter, found.version.digest, entry.path)
                target = Path(name) / entry.path
                try:
                    transfer.get(url, target, digest=entry.digest, size=entry.size)
                except IntegrityError as error:
                    self._judge(found.version, error)
                    raise

    def _judge(self, version: Version, error: IntegrityError) -> None:
        """A changed byte was seen as it should; a lost blob is one only if its version is kept."""
        if "lost" not in error.message:
            self._soak.books.count("changed byte seen")
            return
        with contextlib.suppress(NotFoundError):
            self._soak.service.resolve(VersionRef(version.adapter, digest=version.digest))
            self._soak.books.broken.append(f"{version.pinned}: {error}")

    def _alias(self, registry: HttpRegistry) -> None:
        name, alias = self._random.choice(NAMES), self._random.choice(ALIASES)
        versions = registry.show(name).versions
        before = next((item.digest for item in versions if alias in item.aliases), None)
        after = self._random.choice(versions).digest
        registry.set_alias(name, alias, AliasRequest(digest=after, expected=before))

    def _yank(self, registry: HttpRegistry) -> None:
        name = self._random.choice(NAMES)
        version = self._random.choice(registry.show(name).versions)
        reason = None if version.yanked else "soak"
        registry.yank(name, version.digest, reason)


@dataclass
class Soak:
    """Everything that takes part."""

    service: Service
    token: str
    apis: list[FaultProxy]
    stores: list[FaultProxy]
    folders: list[Path]
    books: Books = field(default_factory=Books)
    ended: bool = False

    def collect(self) -> None:
        """Collect garbage all the time, with hardly any grace."""
        while not self.ended:
            try:
                grace = timedelta(seconds=0.5)
                done = Collector(self.service.engine, self.service.store, LOCAL, grace).run()
            except RankloomError:
                self.books.collected["failed"] += 1
            else:
                self.books.collected.update(
                    runs=1,
                    purged=len(done.purged),
                    condemned=len(done.condemned),
                    deleted=len(done.deleted),
                )
            time.sleep(0.1)

    def check(self) -> dict[str, Any]:
        """Check every promise once all is quiet; return the figures."""
        self._check_aliases()
        checked = fsck.check(self.service.engine, self.service.store, rehash=True)
        self.books.broken += checked.missing + checked.damaged
        for name in NAMES:
            for version in self.service.show(name).versions:
                self.books.note(version)
        return {"versions": checked.versions, "hashed": checked.rehashed}

    def _check_aliases(self) -> None:
        """Each move began where the one before had ended; the log says so, line by line."""
        lines, before = [], None
        while page := self.service.audit_log(before=before, limit=1000).items:
            lines += [line for line in page if line.action == "alias.move"]
            before = page[-1].id
        now: dict[tuple[str, str], str] = {}
        for line in reversed(lines):
            key = (line.subject, line.detail["alias"])
            if now.get(key) != line.detail["before"]:
                self.books.broken.append(f"alias {key} moved from where it was not: {line.detail}")
            now[key] = line.detail["after"]
        for name in NAMES:
            for version in self.service.show(name).versions:
                for alias in version.aliases:
                    if now.get((name.name, alias)) != version.digest:
                        self.books.broken.append(f"alias {name}:{alias} names what no move says")


@contextlib.contextmanager
def _world(postgres: Postgres, s3: S3Server, folder: Path) -> Iterator[tuple[Soak, Servers]]:
    given = {"database_url": postgres.new_database(), **s3.settings()}
    place = s3.endpoint.removeprefix("http://").split(":")
    there = (place[0], int(place[1]))
    inner, outer = FaultProxy(there, S3_FAULTS, 1), FaultProxy(there, S3_FAULTS, 2)
    apis = [FaultProxy(("127.0.0.1", 1), API_FAULTS, seed) for seed in (3, 4)]
    service = open_service(Settings(data_dir=folder / "checker", **given))
    service.set_namespace_rules("default", NamespaceRules(keep_versions=3, keep_days=0))
    token = auth.create(service.engine, "soak", map(Grant, Scope))
    with running(inner, outer, *apis):
        given |= {"s3_endpoint": inner.url, "s3_public_endpoint": outer.url}
        servers = Servers(Settings(data_dir=folder / "unused", **given), folder)
        for proxy, port in zip(apis, servers.ports, strict=True):
            proxy.target = ("127.0.0.1", port)
        folders = [write_adapter(folder / f"f{seed}", seed=seed) for seed in range(CONTENTS)]
        try:
            yield Soak(service, token, apis, [inner, outer], folders), servers
        finally:
            servers.end()
            service.close()


def run(
    postgres: Postgres,
    s3: S3Server,
    folder: Path,
    *,
    operations: int,
    seconds: float,
    kill_every: float = 4.0,
    workers: int = 6,
) -> dict[str, Any]:
    """Soak until so many operations or seconds are over; return the figures."""
    started = time.monotonic()
    with _world(postgres, s3, folder) as (soak, servers), ThreadPoolExecutor(workers + 1) as pool:
        work = [pool.submit(Worker(soak, seed).run) for seed in range(workers)]
        work.append(pool.submit(soak.collect))
        began = time.monotonic()
        while soak.books.operations < operations and time.monotonic() - began < seconds:
            time.sleep(min(kill_every, seconds / 4))
            servers.kill_one(soak.books.kills % 2)
            soak.books.kills += 1
        soak.ended = True
        for one in work:
            one.result()
        took = time.monotonic() - began
        figures = soak.check()
        faults = {
            "clients and servers": _sum(soak.apis),
            "servers and store": _sum(soak.stores[:1]),
            "clients and store": _sum(soak.stores[1:]),
        }
        books = soak.books
    return {
        "operations": books.operations,
        "seconds": round(took, 1),
        "seconds in all": round(time.monotonic() - started, 1),
        "outcomes": dict(sorted(books.outcomes.items())),
        "kills of a server": books.kills,
        "faults between": faults,
        "collector": dict(books.collected),
        **figures,
        "broken promises": books.broken,
    }


def _sum(proxies: list[FaultProxy]) -> dict[str, int]:
    faults: Counter[str] = Counter()
    for proxy in proxies:
        faults.update(proxy.faults)
    return dict(sorted(faults.items()))


def main() -> int:
    """Run it long, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres() as postgres,
        running_seaweedfs() as s3,
    ):
        found = run(postgres, s3, Path(folder), operations=given.operations, seconds=given.seconds)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 1 if found["broken promises"] else 0


if __name__ == "__main__":
    sys.exit(main())
