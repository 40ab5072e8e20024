"""How a push becomes a version: journal, upload, verification, one short transaction.

``open_upload`` writes the journal before a byte moves; the client sends the missing blobs straight
to the store, large ones in parts (``assemble``); ``publish`` reads every blob once and only then
names a version. Each step may be repeated at any time, by anyone, and leads to the same version.
"""

from rankloom_server.publish.journal import open_upload
from rankloom_server.publish.parts import assemble
from rankloom_server.publish.publish import publish

__all__ = ["assemble", "open_upload", "publish"]
