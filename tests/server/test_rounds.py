"""A server collects garbage by itself, and a fault does not end that."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapter_folder import push, write_adapter
from rankloom.errors import RegistryError
from rankloom_server import collect
from rankloom_server.metrics import Metrics
from rankloom_server.models import BLOB
from rankloom_server.rounds import Rounds
from rankloom_server.service import Service
from rankloom_server.store.local import LocalStore

PATIENCE = 20  # seconds; a round takes milliseconds


class Rounded(Metrics):
    """Figures that say when a collection has been counted."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[str] = []
        self.counted = threading.Semaphore(0)

    def note_collection(self, outcome: str, nbytes: int) -> None:
        super().note_collection(outcome, nbytes)  # type: ignore[arg-type]
        self.outcomes.append(outcome)
        self.counted.release()


@pytest.fixture
def service(engine: sa.Engine, tmp_path: Path) -> Service:
    return Service(engine, LocalStore(tmp_path / "blobs"), tmp_path / "scratch")


def unwant(service: Service, state: str) -> str:
    """Let a blob be one that nobody wants since two days; return its digest."""
    before = datetime.now(UTC) - timedelta(days=2)
    digest = "sha256:" + "ab" * 32
    values = {"namespace": "default", "digest": digest, "state": state, "damaged": False}
    with service.engine.begin() as connection:
        connection.execute(sa.insert(BLOB).values(**values, wanted_at=before, changed_at=before))
    return digest


def states(service: Service) -> list[str]:
    with service.engine.begin() as connection:
        return list(connection.scalars(sa.select(BLOB.c.state)))


def test_what_nobody_wants_goes_and_what_a_version_names_stays(
    service: Service, tmp_path: Path
) -> None:
    push(service, write_adapter(tmp_path / "kept"), "kept")
    kept = len(states(service))
    unwant(service, "condemned")
    metrics = Rounded()
    rounds = Rounds(service, metrics, hours=1, first_seconds=0)
    rounds.start()
    assert metrics.counted.acquire(timeout=PATIENCE)
    rounds.stop()
    assert states(service) == ["live"] * kept
    assert b'rankloom_collections_total{outcome="done"} 1.0' in metrics.render()


def test_after_a_fault_the_next_round_is_made(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwant(service, "condemned")
    inside, faults = LocalStore.inside, iter([RegistryError("the store does not answer")])

    def failing(store: LocalStore, namespace: str) -> object:
        for fault in faults:
            raise fault
        return inside(store, namespace)

    monkeypatch.setattr(LocalStore, "inside", failing)
    monkeypatch.setattr(collect, "STUCK", timedelta(0))  # the next round takes over at once
    metrics = Rounded()
    rounds = Rounds(service, metrics, hours=1e-5, first_seconds=0)
    with caplog.at_level(logging.ERROR, logger="rankloom_server"):
        rounds.start()
        assert metrics.counted.acquire(timeout=PATIENCE)
        assert metrics.counted.acquire(timeout=PATIENCE)
        rounds.stop()
    assert metrics.outcomes[:2] == ["failed", "done"]
    assert states(service) == []
    assert "the store does not answer" in caplog.text


def test_zero_hours_mean_never(service: Service) -> None:
    before = threading.active_count()
    rounds = Rounds(service, Rounded(), hours=0)
    rounds.start()
    assert threading.active_count() == before
    rounds.stop()
