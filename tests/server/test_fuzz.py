"""The short form of ``python tests/fuzz_api.py``, on both databases."""

from pathlib import Path

from fuzz_api import fuzz
from rankloom_server.app import create_app
from rankloom_server.settings import Settings


def test_no_request_ends_in_a_fault_of_ours(database_url: str, tmp_path: Path) -> None:
    url = database_url if database_url.startswith("postgresql") else None
    app = create_app(Settings(data_dir=tmp_path / "data", database_url=url))
    seen = fuzz(app, 250)
    app.state.service.close()
    assert sum(seen.values()) >= 200
    # All of them refused would prove little.
    assert sum(count for status, count in seen.items() if status < 300) >= 40
