"""Rows of what lies beside the weights: names, links, templates."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

from bad_inputs.container import beside, zipped
from bad_inputs.row import FITTED, Never, Row
from folders import adapter, base
from rule_cases import NESTED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bad_inputs.row import Make


def changed(change: Callable[[Path], object]) -> Make:
    """Return what writes the usual adapter and does something more to its folder."""
    return lambda place: change(adapter(place / "adapter"))


def linked(folder: Path) -> None:
    """Replace the weights by a link to ones outside."""
    weights = folder / "adapter_model.safetensors"
    (folder / weights.rename(folder.with_name("elsewhere"))).touch()
    weights.symlink_to(folder.with_name("elsewhere"))


def archive(place: Path) -> None:
    """Write an archive that would leave its folder, under an adapter's name."""
    with tarfile.open(place / "adapter", "w:gz") as tar:
        info = tarfile.TarInfo("../escaped")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"out"))


def not_unpacked(place: Path) -> None:
    """Fail if something came out of the archive."""
    assert not list(place.parent.glob("**/escaped"))


def templates(mine: str, theirs: str) -> Make:
    """Return what writes an adapter and a base with chat templates."""

    def make(place: Path) -> None:
        beside("chat_template.jinja", mine.encode())(place)
        (base(place / "base") / "chat_template.jinja").write_text(theirs)

    return make


ROWS = (
    Row(70, "weights are a link out of the folder", changed(linked), "SEC004", sent=False),
    Row(
        70,
        "a link to a folder outside",
        changed(lambda folder: (folder / "LICENSE").symlink_to("/etc")),
        "SEC004",
        sent=False,
    ),
    Row(
        70,
        "a pipe among the files",
        changed(lambda folder: os.mkfifo(folder / "LICENSE")),
        "SEC004",
        sent=False,
    ),
    Row(
        70,
        "names that differ by case only",
        changed(lambda folder: [(folder / name).touch() for name in ("LICENSE", "LICENSe")]),
        "SEC004",
    ),
    Row(70, "the name CON", beside("con.json", b"{}"), "SEC004"),
    Row(70, "a name that is shown from right to left", beside("a\u202egnp.json", b""), "SEC004"),
    Row(
        70,
        "an archive in place of a folder",
        archive,
        "",
        ("push", "./adapter", "name"),
        4,
        says="there is no adapter folder",
        then=not_unpacked,
    ),
    Row(70, "an archive among the files", beside("files.zip", zipped()), "SEC001"),
    Row(
        79,
        "another chat template than the base's",
        templates("{{ a }}", "{{ b }}"),
        "SEC005",
        FITTED,
        push="",
    ),
    Row(
        79,
        "a chat template of nested loops",
        beside("chat_template.jinja", NESTED.encode()),
        "SEC006",
    ),
)

NEVER = (
    Never(70, "a hard link", "it is a file like any other; its bytes are what is read"),
    Never(
        70,
        "an archive that unpacks to 1000 times its size",
        "nothing opens archives: a push takes a folder, a version is a list of plain files",
    ),
)
