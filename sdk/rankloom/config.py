"""What is kept on this machine, and which registry is meant when none is named.

========================  ===================================================================
``RANKLOOM_HOME``         folder of everything that is kept: embedded registry, cache, config
``RANKLOOM_URL``          address of the registry; without one the embedded registry is used
``RANKLOOM_TOKEN``        token for that registry
``RANKLOOM_OFFLINE``      ``1``: use what the cache knows of it, and no network
========================  ===================================================================

The variables win over the file ``config.json`` that ``loractl login`` writes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom.errors import RefError
from rankloom.files import write_atomic

if TYPE_CHECKING:
    from typing import TypeGuard


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are kept and which registry is used.

    Attributes:
        home: folder of everything that is kept on this machine.
        url: address of the registry; ``None`` means the embedded one.
        token: bearer token for ``url``; never printed.
        offline: nobody is asked; a registry is what the cache knows of it.
    """

    home: Path
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    @property
    def registry_dir(self) -> Path:
        """Data directory of the embedded registry (what ``loractl serve`` opens too)."""
        return self.home / "registry"

    @property
    def cache_dir(self) -> Path:
        """Pulled versions and base fingerprints; may be deleted at any time."""
        return self.home / "cache"


def home() -> Path:
    """Return the folder that holds everything rankloom keeps on this machine."""
    if chosen := os.environ.get("RANKLOOM_HOME"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("rankloom", appauthor=False))


def load() -> Settings:
    """Read environment and config file.

    Raises:
        RefError: the config file is broken, or a variable is neither yes nor no.
    """
    kept = _read(home() / "config.json")
    url = os.environ.get("RANKLOOM_URL") or kept.get("url")
    # A token belongs to the registry it was given for: a kept one is never sent elsewhere.
    kept_token = _good_token(kept) if url == kept.get("url") else None
    token = os.environ.get("RANKLOOM_TOKEN") or kept_token
    return Settings(home(), url, token, _is_set("RANKLOOM_OFFLINE"))


def _is_set(name: str) -> bool:
    """Return whether a variable says yes; whoever writes something else may mean either."""
    said = os.environ.get(name, "").strip().lower()
    if said in {"", "0", "false", "no", "off"}:
        return False
    if said in {"1", "true", "yes", "on"}:
        return True
    message = f"{name}={said[:40]!r} is neither yes nor no"
    raise RefError(message, hint=f"set {name} to 1 or 0")


def _good_token(kept: dict[str, str]) -> str | None:
    """Return the kept token; one that has ended is none, so that a job of CI gets another."""
    end = kept.get("expires_at")
    if end is not None and datetime.fromisoformat(end) <= datetime.now(UTC):
        return None
    return kept.get("token")


def remember(url: str, token: str, *, expires_at: datetime | None = None) -> Path:
    """Keep a registry and its token for the next calls, readable by this user only.

    Args:
        url: address of the registry.
        token: bearer token for it.
        expires_at: when the token ends, with its time zone; ``None``: it does not.
    """
    path = home() / "config.json"
    kept = {"url": url, "token": token}
    if expires_at is not None:
        kept["expires_at"] = expires_at.isoformat()
    content = json.dumps(kept, indent=2) + "\n"
    write_atomic(path, content.encode(), mode=0o600)
    return path


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text())
    except ValueError as error:
        kept = error
    if not _is_config(kept):
        message = f"{path} is not a config file"
        raise RefError(message, hint="delete it and run 'loractl login' again")
    return kept


def _is_config(kept: object) -> TypeGuard[dict[str, str]]:
    if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
        return False
    try:
        return "expires_at" not in kept or bool(datetime.fromisoformat(kept["expires_at"]).tzinfo)
    except ValueError:
        return False
