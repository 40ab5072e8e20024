"""A base behind an address: only its config and headers are fetched."""

from __future__ import annotations

import http.server
import threading
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from folders import SHAPES, adapter, base, factors, tensor
from rankloom import sdk
from rankloom.errors import BaseError, NotFoundError, RankloomError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder by ranges, and counts what it sends."""

    sent: int
    ranges = True

    def do_GET(self) -> None:
        path = self.translate_path(self.path)
        try:
            with open(path, "rb") as stream:  # noqa: PTH123 - a text
                data = stream.read()
        except OSError:
            self.send_error(404)
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1] if self.ranges else data
        self.send_response(206 if self.ranges else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        type(self).sent += len(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "sent", 0, raising=False)
    wide = {f"{name}.weight": np.zeros((6, 8), np.float32) for name in SHAPES}
    wide["model.embed_tokens.weight"] = np.zeros((100_000, 8), np.float32)
    base(tmp_path / "base", {name: tensor(values) for name, values in wide.items()}, shards=3)
    handler = partial(Handler, directory=str(tmp_path / "base"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_only_headers_are_fetched(site: str, tmp_path: Path) -> None:
    report = sdk.validate(adapter(tmp_path / "adapter"), against=site)
    assert report.ok
    assert {"TEN005", "BASE002"} <= set(report.checked)
    assert "BASE003" in report.not_checked
    assert Handler.sent < 5_000
    assert sum(file.stat().st_size for file in (tmp_path / "base").iterdir()) > 1_000_000


def test_a_remote_base_that_does_not_fit(site: str, tmp_path: Path) -> None:
    tensors = factors({**SHAPES, "model.layers.7.self_attn.q_proj": (6, 8)})
    report = sdk.validate(adapter(tmp_path / "adapter", tensors), against=site)
    assert [found.rule for found in report.errors] == ["TEN005"]


def test_a_site_without_ranges_is_refused(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "ranges", False)
    with pytest.raises(BaseError, match="part of a file"):
        sdk.validate(adapter(tmp_path / "adapter"), against=site)


def test_what_is_not_there(site: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no"):
        sdk.validate(adapter(tmp_path / "adapter"), against=f"{site}nothing")
    with pytest.raises(RankloomError):
        sdk.validate(adapter(tmp_path / "adapter"), against="http://127.0.0.1:1/x")
