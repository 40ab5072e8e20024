"""A recipe file: refs, weights, method and what shall become of it, every complaint with its line.

::

    version: 1
    base_model: ./base
    adapters:
      - adapter: zh-lang:prod
        parameters: {weight: [0.2, 1.0]}
      - adapter: ./qa-task
        parameters: {weight: 0.5, density: 0.7}
    merge_method: ties
    parameters: {density: 0.5}
    output: {rank: 16}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankloom.errors import NotFoundError, RefError
from rankloom.recipe import source as sources
from rankloom.recipe.demands import Demands
from rankloom.recipe.draft import at
from rankloom.recipe.mergekit import read_mergekit
from rankloom.recipe.methods import find_method, hint
from rankloom.recipe.native import read_native
from rankloom.recipe.parameters import REQUIRED
from rankloom.recipe.weights import read_weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.recipe.draft import Draft, Entry
    from rankloom.recipe.methods import Method
    from rankloom.recipe.rank import Rank
    from rankloom.recipe.weights import Weight

SUFFIXES = (".yaml", ".yml")
DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe that was understood.

    Attributes:
        refs: of the adapters.
        weights: one for each.
        method: name of the method.
        parameters: those that were given.
        rank: what the result is brought to.
        base: ref of the base, if one is named.
        dtype: of a checkpoint that the composition is applied to; ``None``: its own.
        is_foreign: another tool's format, whose ``base`` need not be here.
        lines: file and line of each adapter.
        base_line: file and line of the base.
        demands: what the composition has to meet besides.
    """

    refs: tuple[str, ...]
    weights: tuple[Weight, ...]
    method: str = "exact"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rank: Rank | None = None
    base: str | None = None
    dtype: str | None = None
    is_foreign: bool = False
    lines: tuple[str, ...] = ()
    base_line: str = ""
    demands: Demands = field(default_factory=Demands)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; folders in it are relative to its own folder.

    Raises:
        NotFoundError: there is no such file.
        RefError: something in it is not understood; the message names the line.
    """
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError(f"there is no recipe {path}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise RefError(f"MRG007 {path} is no text in UTF-8", hint="save it as UTF-8") from error
    return parse_recipe(text, str(path), path.parent)


def parse_recipe(text: str, name: str = "recipe", folder: Path = Path()) -> Recipe:
    """Read a recipe in its own format or in mergekit's.

    Args:
        text: YAML.
        name: what messages call it.
        folder: what relative folders in it are relative to.

    Raises:
        RefError: something in it is not understood; the message names the line.
    """
    source = sources.parse(text, name)
    value = source.value
    foreign = isinstance(value, dict) and ({"models", "slices", "modules"} & value.keys())
    draft = read_mergekit(source) if foreign and "adapters" not in value else read_native(source)
    return _finish(draft, folder)


def _finish(draft: Draft, folder: Path) -> Recipe:
    source = draft.source
    _check_refs(draft)
    with at(source, draft.method_at):
        method = find_method(draft.method)
    weights = tuple(_weight(draft, entry) for entry in draft.entries)
    given = _parameters(draft, method)
    with at(source, draft.method_at):
        method.read(given, len(draft.entries))
    with at(source, draft.method_at if draft.rank is None else draft.rank_at):
        rank = method.read_rank(draft.rank)
    if draft.dtype is not None and draft.dtype not in DTYPES:
        where = ("output", "dtype") if ("output", "dtype") in source.lines else ("dtype",)
        message = f"{draft.dtype!r} is no dtype for weights"
        raise source.error(where, message, f"one of {', '.join(DTYPES)}")
    return Recipe(
        tuple(_placed(entry.ref, folder) for entry in draft.entries),
        weights,
        method.name,
        given,
        rank,
        None if draft.base is None else _placed(draft.base, folder),
        draft.dtype,
        draft.is_foreign,
        tuple(source.line(entry.where) for entry in draft.entries),
        source.line(("base_model",)),
        _demands(draft),
    )


def _check_refs(draft: Draft) -> None:
    """Refuse recipes as adapters: one could name itself, or another that names this one."""
    for entry in draft.entries:
        if entry.ref.endswith(SUFFIXES):
            message = f"{entry.ref} is a recipe, not an adapter"
            hint = f"compose it first ('loractl compose {entry.ref} -o DIR'), then name DIR"
            raise draft.source.error((*entry.where, "adapter"), message, hint)


def _demands(draft: Draft) -> Demands:
    source, engines, allow = draft.source, draft.engines, draft.allow_no_effect
    if not isinstance(allow, bool):
        message = f"allow_no_effect is {allow!r}"
        raise source.error(("allow_no_effect",), message, "it is true or false")
    where = ("output", "engines")
    listed = [engines] if isinstance(engines, str) else engines or []
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise source.error(where, f"engines are {engines!r}, no names", "write [vllm]")
    with at(source, where):
        line = source.line(where if draft.rank is None else draft.rank_at)
        return Demands.of(listed, allow_no_effect=allow, line=line)


def _weight(draft: Draft, entry: Entry) -> Weight:
    where = (*entry.where, "parameters", "weight")
    with at(draft.source, where):
        return read_weight(entry.parameters.get("weight", 1.0))


def _parameters(draft: Draft, method: Method) -> dict[str, Any]:
    """Return the method's parameters; what adapters have of their own becomes a list."""
    source = draft.source
    known = method.parameters
    found: dict[str, Any] = {}
    for name, value in draft.parameters.items():
        where = ("parameters", name)
        if name not in known:
            message = f"the method {method.name} has no parameter {name!r}"
            raise source.error(where, message, hint(name, known))
        with at(source, where):
            found[name] = known[name].read(name, value, len(draft.entries))
    own = sorted({name for entry in draft.entries for name in entry.parameters} - {"weight"})
    for name in own:
        _check_own(draft, method, name)
        found[name] = [_own(draft, method, entry, name) for entry in draft.entries]
    return found


def _check_own(draft: Draft, method: Method, name: str) -> None:
    each = [known for known, parameter in method.parameters.items() if parameter.each]
    if name not in each:
        entry = next(entry for entry in draft.entries if name in entry.parameters)
        message = f"an adapter has no parameter {name!r} in the method {method.name}"
        near = hint(name, [*each, "weight"])
        raise draft.source.error((*entry.where, "parameters", name), message, near)


def _own(draft: Draft, method: Method, entry: Entry, name: str) -> Any:  # noqa: ANN401 - JSON
    parameter = method.parameters[name]
    value = entry.parameters.get(name, draft.parameters.get(name, parameter.default))
    where = (*entry.where, "parameters", name)
    if value is REQUIRED:
        message = f"{entry.ref} has no {name}, and there is none for all"
        raise draft.source.error(entry.where, message, f"give it {name}: {parameter.wanted}")
    with at(draft.source, where):
        return parameter.read(name, value, 1)


def _placed(ref: str, folder: Path) -> str:
    """Return a ref whose folder, if it is a relative one, stands beside the recipe."""
    if not ref.startswith(".") and not (ref.endswith("/") and not ref.startswith(("/", "~"))):
        return ref
    place = str(folder / ref)
    return place if place.startswith(("/", "~", ".")) else f"./{place}"
