"""A registry that is not asked: what the cache knows of it, and not one packet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from rankloom.errors import OfflineError
from rankloom.registry.http import HttpRegistry

if TYPE_CHECKING:
    from rankloom.ref import AdapterName, VersionRef
    from rankloom.registry.cache.resolved import RecalledVersion, Resolutions


class OfflineRegistry(HttpRegistry):
    """A registry behind a URL that is not to be reached; see ``RANKLOOM_OFFLINE``."""

    def __init__(self, url: str, known: Resolutions) -> None:
        super().__init__(url)
        self._known = known

    def resolve(self, ref: VersionRef) -> RecalledVersion:
        """Return the version that a ref named when it was last resolved.

        Raises:
            OfflineError: it never was.
        """
        found = self._known.recall(ref)
        if found is None:
            message = f"the cache knows no {ref} of {self.url}, and this is offline"
            hint = "pull it once online; 'loractl cache list' shows what is here"
            raise OfflineError(message, hint=hint)
        return found

    def blob_url(self, adapter: AdapterName, version: str, path: str) -> NoReturn:
        """Refuse.

        Raises:
            OfflineError: always.
        """
        message = f"{path} of {adapter}@{version} is not in the cache, and this is offline"
        raise OfflineError(message, hint="pull it once online")

    def _request(self, method: str, path: str, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - whatever is asked
        message = f"{self.url} is not asked to {method} {path}: this is offline"
        raise OfflineError(message, hint="leave out --offline and RANKLOOM_OFFLINE for this")
