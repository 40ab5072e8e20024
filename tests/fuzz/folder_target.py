"""Fuzzes the validation of whole folders: ``python tests/fuzz/folder_target.py COUNT [FIRST]``.

Good adapters of several kinds are damaged: bits, ends, headers, configs, names. Whatever comes out,
``validate`` gives a report or an error of ours, soon; and what it passes, safetensors reads with
the same names, dtypes and shapes, and our own reader as an adapter. A folder is made from its
number alone: what fails is made again by ``1 NUMBER``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import safetensors

sys.path.append(str(Path(__file__).parents[1]))

from folders import file_bytes
from fuzz import folder_seeds
from rankloom.adapter import reader
from rankloom.base import reader as bases
from rankloom.errors import RankloomError
from rankloom.validate import validate
from rankloom.validate.engines import engines

if TYPE_CHECKING:
    from rankloom.base.model import Base

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ENGINES = tuple(f"{engine.name}=={engine.version}" for engine in engines())
SECONDS = 2.0
"""Of the processor: what else the machine does shows no mistake."""

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, 1e400, float("nan"), 1 << 70, "", "x", "LORA", "q_proj",
    ".*", "(a+)+$", "\0", "\ud800", "é" * 200, [], {}, [[0, 1]], ["q_proj"], {"q_proj": 3},
    {"": -1}, "F16", "BF16", "I64", "pissa", "../..", "http://example.org",
]  # fmt: skip
NAMES = ["r", "alpha", "peft_type", "use_dora", "modules_to_save", "a.b", "", "x" * 300, "\u202e"]


class Fuzzer:
    """Damages folders in one place, and looks at what becomes of them."""

    def __init__(self, place: Path) -> None:
        self.outcomes: Counter[str] = Counter()
        self._seeds = [folder_seeds.write(place / kind, kind) for kind in folder_seeds.SEEDS]
        self._base = bases.read(folder_seeds.write_base(place / "base"))
        self._folder = place / "damaged"

    def run(self, count: int, first: int = 0) -> None:
        """Make so many folders, from a number on, and check each."""
        for number in range(first, first + count):
            try:
                self.outcomes[self._step(Random(number))] += 1  # noqa: S311 - not secret
            except BaseException as error:
                error.add_note(f"folder {number}")
                raise

    def _step(self, random: Random) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(random.choice(self._seeds), self._folder)
        for damage in random.choices(DAMAGES, k=random.choice((1, 1, 2, 4))):
            damage(random, self._folder)
        if random.random() < 0.01:
            _any(random, self._folder).unlink()
        base = random.choice((None, self._base))
        start = time.process_time()
        found = check(self._folder, base, random.sample(ENGINES, 2))
        assert time.process_time() - start < SECONDS
        return found


def check(folder: Path, base: Base | None, named: list[str]) -> str:
    """Fail if a folder is not judged as it must be; return how it was."""
    try:
        report = validate(folder, base, engines=named)
    except RankloomError:
        return "error"
    if any(found.rule[:3] != "ENG" for found in report.errors):
        return "refused"
    header = reader.read(folder).header
    read = dict(safetensors.deserialize((folder / WEIGHTS).read_bytes()))
    theirs = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in read.items()}
    assert theirs == {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
    return "passed"


# --- damages -----------------------------------------------------------------------------------


def bits(random: Random, folder: Path) -> None:
    """Flip a few bits of a file."""
    file = _any(random, folder)
    data = bytearray(file.read_bytes())
    for _ in range(random.randint(1, 8)):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)


def head(random: Random, folder: Path) -> None:
    """Change bytes where the length and the header are."""
    data = bytearray((folder / WEIGHTS).read_bytes())
    for _ in range(random.randint(1, 3)):
        if data:
            data[random.randrange(min(len(data), 200))] = random.randrange(256)
    (folder / WEIGHTS).write_bytes(data)


def cut(random: Random, folder: Path) -> None:
    """Remove, repeat or insert a stretch of a file."""
    file = _any(random, folder)
    data = file.read_bytes()
    one, other = sorted(random.randrange(len(data) + 1) for _ in range(2))
    middle = random.choice((b"", data[one:other] * 2, random.randbytes(8)))
    file.write_bytes(data[:one] + middle + data[random.choice((one, other, len(data))) :])


def config(random: Random, folder: Path) -> None:
    """Change the config as JSON."""
    with_json(folder / CONFIG, random)


def header(random: Random, folder: Path) -> None:
    """Change the header as JSON; the data stay."""
    data = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    value = _parsed(data[8:end])
    if value is not None:
        text = json.dumps(changed(value, random)).encode("utf-8", "surrogatepass")
        (folder / WEIGHTS).write_bytes(file_bytes(text, data[end:]))


def with_json(file: Path, random: Random) -> None:
    """Change a file as JSON."""
    value = _parsed(file.read_bytes())
    if value is not None:
        file.write_bytes(json.dumps(changed(value, random)).encode("utf-8", "surrogatepass"))


def changed(value: Any, random: Random) -> Any:  # noqa: ANN401 - JSON is anything
    """Return a JSON value with one thing in it changed, wherever it is."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        return _with_other_field(value, random)
    if isinstance(value, list) and value and random.random() < 0.7:
        place = random.randrange(len(value))
        return [*value[:place], changed(value[place], random), *value[place + 1 :]]
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-1, 1, 8, 1 << 40))
    return random.choice(ODD)


def _with_other_field(value: dict[str, Any], random: Random) -> dict[str, Any]:
    name, other = random.choices(list(value), k=2)
    rest = {key: kept for key, kept in value.items() if key != name}
    return random.choice(
        (
            rest,
            {**rest, random.choice([*NAMES, name + "x", name[1:]]): value[name]},
            {**value, random.choice(NAMES): random.choice(ODD)},
            {**value, name: value[other]},
            {**value, name: changed(value[name], random)},
            {**value, name: changed(value[name], random)},
        )
    )


def values(random: Random, folder: Path) -> None:
    """Put other values into the data."""
    data = (folder / WEIGHTS).read_bytes()
    place = random.randrange(len(data) + 1)
    odd = random.choice((b"\0" * 64, b"\xff" * 8, b"\x00\x00\x80\x7f" * 4, random.randbytes(32)))
    (folder / WEIGHTS).write_bytes((data[:place] + odd + data[place + len(odd) :])[: len(data)])


def more(random: Random, folder: Path) -> None:
    """Add a file."""
    name = random.choice(
        ("README.md", "readme.md", "x.py", "chat_template.jinja", "rankloom.json", "tokenizer.json")
    )
    (folder / name).write_bytes(random.choice((b"", b"{}", b"[" * 5000, b"{% for %}", b"\xff\xfe")))


DAMAGES = (bits, head, cut, config, config, header, header, values, more)


def _any(random: Random, folder: Path) -> Path:
    return random.choice(sorted(folder.iterdir()))


def _parsed(data: bytes) -> Any:  # noqa: ANN401 - JSON is anything
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def main(count: int, first: int = 0) -> None:
    """Damage folders, and say what became of them."""
    with tempfile.TemporaryDirectory() as place:
        fuzzer = Fuzzer(Path(place))
        fuzzer.run(count, first)
    sys.stdout.write(f"{count} folders: {dict(fuzzer.outcomes)}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
