"""Opens a base wherever it is: a folder here, or one in S3."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rankloom.apply.s3 import Prefix, S3Source, is_s3, shadow
from rankloom.apply.stores import Sources
from rankloom.base.reader import read

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from rankloom.base.model import Base


@contextmanager
def open_base(place: str | os.PathLike[str]) -> Iterator[tuple[Base, Sources]]:
    """Give a base, of which headers can be read as from a folder, and what its tensors come from.

    Args:
        place: a folder, or ``s3://bucket/prefix``.

    Raises:
        BaseError: it holds no checkpoint.
    """
    if not is_s3(place):
        with Sources() as sources:
            yield read(Path(place)), sources
        return
    prefix = Prefix(str(place))
    with TemporaryDirectory(prefix="rankloom-") as folder:
        shadow(prefix, Path(folder))
        with Sources(lambda path: S3Source(prefix, path.name)) as sources:
            yield read(Path(folder)), sources
