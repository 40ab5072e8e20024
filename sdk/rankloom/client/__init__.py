"""A client: everything rankloom does, over one registry."""

from __future__ import annotations

from rankloom.client.catalogue import Catalogue
from rankloom.client.checks import Checks
from rankloom.client.composing import Composing


class Client(Catalogue, Checks, Composing):
    """Everything of the SDK as methods, over one registry.

    Args:
        url: address of the registry. ``None`` means what the environment and the config file say
            at each call; if they name none either, the registry embedded in this process.
        token: bearer token for ``url``.
        offline: use no network: of a registry behind an address, only what the cache knows. What
            an alias named when it was last resolved is used with a warning that says when.
            ``None``: what ``RANKLOOM_OFFLINE`` says.

    Nothing is opened before the first call that needs it. A client may be shared by threads.
    """


__all__ = ["Client"]
