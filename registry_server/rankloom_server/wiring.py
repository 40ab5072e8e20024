"""From settings to a service: which database, which store."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_server import db
from rankloom_server.service import DATABASE, SCRATCH, Service
from rankloom_server.store.local import LocalStore, UrlSigner

if TYPE_CHECKING:
    import sqlalchemy as sa

    from rankloom_server.settings import Settings
    from rankloom_server.store.interface import Store

_ABANDONED_SECONDS = 24 * 3600  # no verification takes a day


def open_service(settings: Settings) -> Service:
    """Return the service, its database brought to the present schema."""
    engine = open_database(settings)
    scratch = settings.data_dir.absolute() / SCRATCH
    _sweep(scratch)
    return Service(engine, open_store(settings), scratch)


def open_database(settings: Settings) -> sa.Engine:
    """Return the database, brought to the present schema."""
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    engine = db.open_engine(settings.database_url or db.sqlite_url(folder / DATABASE))
    db.upgrade(engine)
    return engine


def _sweep(scratch: Path) -> None:
    """Remove what a killed server left; younger folders may belong to one that runs."""
    for folder in scratch.glob("*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def open_store(settings: Settings) -> Store:
    """Return the store; a local one signs URLs that this server answers."""
    if settings.store != "local":
        from rankloom_server.store import s3

        return s3.open_store(settings)
    folder = settings.data_dir.absolute()
    key = settings.signing_key
    secret = key.get_secret_value().encode() if key else _kept_key(folder / "signing.key")
    return LocalStore(folder, UrlSigner(secret, settings.public_url, settings.url_seconds))


def _kept_key(path: Path) -> bytes:
    """Return the key in ``path``; the first of several servers that start makes it."""
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".key-") as stream:  # mode 0600
            stream.write(secrets.token_hex(32).encode())
            stream.flush()
            _link_unless_there(Path(stream.name), path)
    return path.read_bytes()


def _link_unless_there(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return  # another server was faster; its key is as good
