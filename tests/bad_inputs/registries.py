"""Rows that a command meets in a registry, by both doors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter_folder import manifest_of, push, send
from bad_inputs.door import EMBEDDED, HTTP
from bad_inputs.row import Case, Row
from folders import adapter, factors, tensor_file
from rankloom import digest
from rankloom.ref import AdapterName
from rankloom.registry.signatures import sign
from rankloom.registry.wire import NamespaceRules, UploadRequest
from rankloom.signing.signers import read_signer
from signing_keys import key_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bad_inputs.door import Door
    from rankloom.registry.wire import Version

    Make = Callable[[Door, Path], object]

WEIGHTS = "adapter_model.safetensors"
PULL = ("pull", "name", "-o", "out")
SIGNED = (*PULL, "--require-signature", "--key", "ours.pub")
WIDE = {"model.layers.0.self_attn.q_proj": (2_200_000, 8)}
"""Its B has 17.6 MB: more than one range."""


@dataclass(frozen=True)
class Served(Case):
    """A row that a command meets in a registry.

    Attributes:
        make: brings the registry and a working directory there.
        rule: id that must be named; empty: none.
        command: what meets it.
        code: how that must end.
        says: what it must say besides.
        lie: what a network between does with the ranges of a large blob.
        doors: by which doors it can be met.
    """

    make: Make
    rule: str = ""
    command: tuple[str, ...] = PULL
    code: int = 8
    says: str = ""
    lie: str = ""
    doors: tuple[str, ...] = (EMBEDDED, HTTP)


def pushed(door: Door, place: Path, name: str = "name") -> Version:
    """Push the usual adapter."""
    return push(door.registry, adapter(place / "adapter"), name)


def numbered(door: Door, place: Path) -> None:
    """Push an adapter as 1.0.0, and write another one to its folder."""
    folder = adapter(place / "adapter")
    request = UploadRequest(manifest=manifest_of(folder), semver="1.0.0")
    upload = door.registry.open_upload(AdapterName("default", "name"), request)
    send(folder, upload)
    door.registry.publish(upload.id)
    adapter(folder, factors(seed=1))


def repacked(door: Door, place: Path) -> None:
    """Push an adapter, and write its tensors into another file, which has metadata."""
    pushed(door, place)
    adapter(place / "adapter", tensor_file(factors(), {"format": "pt"}))


def large(door: Door, place: Path) -> Version:
    """Push an adapter whose tensors come in ranges."""
    folder = adapter(place / "adapter", factors(WIDE), target_modules=["q_proj"])
    return push(door.registry, folder, "name")


def stored(change: Callable[[Path], object], path: str = WEIGHTS) -> Make:
    """Return what pushes an adapter, and then changes a file where the registry keeps it."""

    def make(door: Door, place: Path) -> None:
        change(door.stored(pushed(door, place), path))

    return make


def flip(file: Path) -> None:
    """Change one bit."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    """Cut off the last byte."""
    file.write_bytes(file.read_bytes()[:-1])


def cached(door: Door, place: Path) -> None:
    """Push an adapter, and lay other bytes into the cache under the digest of its weights."""
    version = pushed(door, place)
    name = door.stored(version, WEIGHTS).name
    blob = place / "home/cache/blobs/sha256" / name[:2] / name
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"something else")


def namesakes(door: Door, place: Path) -> None:
    """Push the same name in two namespaces."""
    pushed(door, place)
    pushed(door, place, "acme/name")


def yanked(door: Door, place: Path) -> None:
    """Push an adapter and yank it."""
    version = pushed(door, place)
    door.registry.yank(AdapterName("default", "name"), version.digest, "wrong data")


def check(place: Path) -> None:
    """Fail if a pull left anything that is not what its name says."""
    for path in (path for path in (place / "home/cache/blobs").rglob("*") if path.is_file()):
        assert f"sha256:{path.name}" == digest.of_file(path), path
    assert not (place / "home/cache/versions").exists()
    assert not (place / "out").exists()


def signed_by(signer: str) -> Make:
    """Return what pushes an adapter, which somebody signs, and writes the keys of two."""

    def make(door: Door, place: Path) -> None:
        version = pushed(door, place)
        for name in ("ours", "theirs"):
            key_pair(place, name)
        if signer:
            manifest = manifest_of(place / "adapter")
            sign(door.registry, version, manifest, place / f"{signer}.pem")

    return make


def demanding(door: Door, place: Path) -> None:
    """Push an adapter that nobody signed to a namespace that names who must."""
    _, public = key_pair(place, "ours")
    rules = NamespaceRules(required_signers=(read_signer(public),))
    door.registry.set_namespace_rules("default", rules)
    pushed(door, place)


NAMES = ("..", "a/b/c", "%2e%2e", "x" * 300, "n\u0430me", "name\u202e", "con")

NAMED = tuple(
    Row(
        75,
        f"name {ascii(name)[1:-1] if len(name) < 99 else 'of 300 letters'}",
        lambda place: adapter(place / "adapter"),
        "REG003",
        ("push", "./adapter", name),
        2,
    )
    for name in NAMES
)

ROWS = (
    # A push is idempotent, so a version that is there already is no error.
    Served(
        68,
        "the same content again",
        pushed,
        "",
        ("push", "./adapter", "name", "--json"),
        0,
        says='"number": 1',
    ),
    Served(
        68,
        "the same tensors in another file",
        repacked,
        "",
        ("push", "./adapter", "name", "--json"),
        0,
        says='"number": 2',
    ),
    Served(73, "a bit flipped in the store", stored(flip), "REG002"),
    Served(73, "a bit of the config flipped", stored(flip, "adapter_config.json"), "REG002"),
    Served(73, "other bytes in the cache", cached, "", code=0),
    Served(74, "cut off in the store", stored(cut), "REG002"),
    Served(74, "lost by the store", stored(lambda file: file.unlink()), "REG002"),
    *(
        Served(74, f"a store that sends {lie}", large, "REG002", lie=lie, doors=(HTTP,))
        for lie in ("another range", "another size", "bytes of another range")
    ),
    Served(
        76,
        "another content for a semantic version",
        numbered,
        "REG004",
        ("push", "./adapter", "name", "--version", "1.0.0"),
        5,
    ),
    Served(80, "a version that nobody signed", signed_by(""), "SEC007", SIGNED),
    Served(80, "a version that another key signed", signed_by("theirs"), "SEC007", SIGNED),
    Served(80, "a version that the key signed", signed_by("ours"), "", SIGNED, 0),
    Served(80, "no signature where the namespace names signers", demanding, "SEC007"),
    Served(81, "a name that two namespaces have", namesakes, "REG005", code=2, says="acme/name"),
    Served(91, "the only version is yanked", yanked, "", code=4, says="yanked"),
)
