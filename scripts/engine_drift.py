"""Compares the engines' files with the engines' wheels, which are read and never imported.

    python scripts/engine_drift.py WHEEL…          fails where a file and a wheel differ
    python scripts/engine_drift.py --write WHEEL…  writes the digests of the sources anew

Two things are compared: facts that the source states as literals (ranks, required fields, names),
and digests of the functions from which the verdicts were read. Where a digest differs, somebody
has to read the function again and correct the cells before the digests are written.
"""

import ast
import hashlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankloom.validate.engines import Engine
from rankloom.validate.engines.loading import files, parse

DATA = Path(__file__).parents[1] / "sdk" / "rankloom" / "validate" / "engines" / "data"
_MODELS = ("packed_modules_mapping", "embedding_modules", "is_3d_moe_weight")


@dataclass(frozen=True)
class Wheel:
    """A wheel as a collection of sources.

    Attributes:
        name: of the project.
        version: of the release.
        sources: text of each Python file by its path.
    """

    name: str
    version: str
    sources: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "Wheel":
        """Read the Python files of a wheel; nothing is run."""
        name, version = path.name.split("-")[:2]
        with zipfile.ZipFile(path) as archive:
            names = [item for item in archive.namelist() if item.endswith(".py")]
            sources = {item: archive.read(item).decode() for item in names}
        return cls(name.lower().replace("_", "-"), version, sources)

    def find(self, path: str, symbol: str) -> ast.AST:
        """Return a module, class, function or assignment, e.g. ``Class.method``.

        Raises:
            KeyError: it is not there.
        """
        node: ast.AST = ast.parse(self.sources[path])
        for part in symbol.split(".") if symbol else []:
            node = next((item for item in ast.iter_child_nodes(node) if _named(item, part)), node)
            if not _named(node, part):
                message = f"{path} has no {symbol}"
                raise KeyError(message)
        return node


def _named(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name == name
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == name
    if isinstance(node, ast.Assign):
        return any(isinstance(item, ast.Name) and item.id == name for item in node.targets)
    return False


def digest(wheel: Wheel, source: str) -> str:
    """Return the digest of ``path:symbol``: of its meaning, whatever its layout and comments.

    Of a path that ends in a slash it is what all classes in the folder say of their modules.
    """
    path, _, symbol = source.partition(":")
    if path.endswith("/"):
        parts = [*_declared(wheel, path)]
    else:
        parts = [ast.unparse(_without_docs(wheel.find(path, symbol)))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _declared(wheel: Wheel, folder: str) -> Iterator[str]:
    for path in sorted(name for name in wheel.sources if name.startswith(folder)):
        for node in ast.walk(ast.parse(wheel.sources[path])):
            for item in node.body if isinstance(node, ast.ClassDef) else ():
                if any(_named(item, name) for name in _MODELS):
                    yield f"{path} {ast.unparse(item)}"


def _without_docs(node: ast.AST) -> ast.AST:
    for item in ast.walk(node):
        body = getattr(item, "body", None)
        if isinstance(body, list) and body and isinstance(item, ast.ClassDef | ast.FunctionDef):
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                item.body = body[1:] or [ast.Pass()]
    return node


def _strings(node: ast.AST) -> list[str]:
    """Return the texts of the lists and tuples in a function."""
    groups = (item for item in ast.walk(node) if isinstance(item, ast.List | ast.Tuple))
    parts = (part for group in groups for part in group.elts)
    return [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]


def _required(node: ast.AST) -> list[str]:
    """Return the fields of a dataclass that have no default."""
    fields = (item for item in ast.iter_child_nodes(node) if isinstance(item, ast.AnnAssign))
    bare = (item.target for item in fields if item.value is None)
    return [target.id for target in bare if isinstance(target, ast.Name)]


def _literal(node: ast.AST) -> Any:  # noqa: ANN401 - whatever the source says
    """Return the value of an assignment; of ``Literal[…]``, the choices."""
    value = getattr(node, "value", None)
    if isinstance(value, ast.Subscript):
        value = value.slice
    return ast.literal_eval(value)


def _largest(node: ast.AST) -> int:
    numbers = (item.value for item in ast.walk(node) if isinstance(item, ast.Constant))
    return max(number for number in numbers if type(number) is int)


def _linear(node: ast.AST) -> frozenset[str]:
    return frozenset(_literal(node)) - {"embed_tokens", "lm_head"}


_HELPER = "vllm/lora/peft_helper.py"
FACTS: Mapping[str, Mapping[str, tuple[str, str, Callable[[ast.AST], Any]]]] = {
    "vllm": {
        "ranks.settings": ("vllm/config/lora.py", "MaxLoRARanks", _literal),
        "ranks.default": ("vllm/config/lora.py", "LoRAConfig.max_lora_rank", _literal),
        "reads.required": (_HELPER, "PEFTHelper", _required),
        "reads.inits": (_HELPER, "PEFTHelper._init_is_supported", _strings),
        "reads.saved": (_HELPER, "PEFTHelper._validate_features", _strings),
        "reads.vocabulary": (
            "vllm/lora/layers/logits_processor.py",
            "LogitsProcessorWithLoRA.create_lora_weights",
            _largest,
        ),
    },
    "sglang": {
        "reads.modules": ("sglang/srt/utils/common.py", "SUPPORTED_LORA_TARGET_MODULES", _linear)
    },
}
"""What each wheel states as literals, by where the engine's file says it: path, symbol, reader."""


def drift(wheel: Wheel, engine: Engine, sources: Mapping[str, str]) -> Iterator[str]:
    """Return in what an engine's file and a wheel differ.

    Args:
        wheel: the wheel.
        engine: the file's content.
        sources: the file's digests by source.
    """
    if wheel.version != engine.version:
        yield f"the file describes {engine.version}, the wheel is {wheel.version}"
    for place, (path, symbol, read) in FACTS[wheel.name].items():
        part, name = place.split(".")
        written = getattr(getattr(engine, part), name)
        node = _found(wheel.find, path, symbol)
        stated = node if isinstance(node, str) else type(written)(read(node))
        if written != stated:
            yield f"{place} is {written}, and {stated} in the wheel"
    for source, known in sources.items():
        found = _found(digest, wheel, source)
        if found != known:
            yield f"{source} changed: read it again ({found[:60]})"


def _found(read: Callable[..., Any], *where: object) -> Any:  # noqa: ANN401 - whatever is read
    try:
        return read(*where)
    except KeyError as error:
        return f"gone: {error.args[0]}"


def rewritten(text: str, wheel: Wheel) -> str:
    """Return an engine's file with the digests of this wheel."""

    def line(found: re.Match[str]) -> str:
        return f'"{found[1]}" = "{digest(wheel, found[1])}"'

    return re.sub(r'^"([^"]+:[^"]*)" = "[0-9a-f]*"$', line, text, flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Compare, or write digests; return how many differences there are."""
    differences = 0
    for wheel in map(Wheel.read, (Path(item) for item in arguments if not item.startswith("-"))):
        name = [file.name for file in files() if file.name.startswith(f"{wheel.name}-")][-1]
        text = (DATA / name).read_text()
        if "--write" in arguments:
            text = rewritten(text, wheel)
            (DATA / name).write_text(text)
        engine = parse(text, name)
        found = list(drift(wheel, engine, engine.sources))
        differences += len(found)
        said = f"{len(FACTS[wheel.name])} facts, {len(engine.sources)} sources"
        print(f"{wheel.name} {wheel.version}: {said}, {len(found)} differences")
        for difference in found:
            print(f"  {name}: {difference}")
    return differences


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
