"""Write what the installed transformers publishes about names, as data that rankloom reads.

Run it after a new release of transformers::

    python scripts/transformers_names.py

It builds every model class with its default config on torch's ``meta`` device and keeps, for each:
the prefix of its backbone, which conversions apply to which part of it, which names are not
converted although a pattern matches them, and which parameters are tied to which. A class that
needs a package that is not installed is kept without what only an instance tells.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel, conversion_mapping, core_model_loading
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transformers.core_model_loading import WeightTransform

OUT = Path(__file__).parents[1] / "sdk/rankloom/base/data/transformers.json"
LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
)


def conversions() -> dict[str, Any]:
    """Return the conversions by class name or model type; one that repeats another names it."""
    found: dict[str, Any] = {}
    known: dict[str, str] = {}
    for name, transforms in sorted(
        conversion_mapping._build_checkpoint_conversion_mapping().items()
    ):
        value = [_transform(transform) for transform in transforms]
        first = known.setdefault(json.dumps(value), name)
        found[name] = value if first == name else first
    return found


def _transform(transform: WeightTransform) -> dict[str, Any]:
    value = {
        "kind": type(transform).__name__,
        "from": transform.source_patterns,
        "to": transform.target_patterns,
    }
    for operation in getattr(transform, "operations", ()):
        value.setdefault("ops", []).append([type(operation).__name__, *_arguments(operation)])
    if offset := getattr(transform, "offset", 0):
        value["offset"] = offset
    return value


def _arguments(operation: object) -> list[Any]:
    known = {"Transpose": ("dim0", "dim1", "check_dims"), "Interleave": ("dim", "inverse")}
    names = known.get(type(operation).__name__, ("dim", "num_shards_attribute"))
    values = [getattr(operation, name, None) for name in names]
    return values[:1] if values[1:] == [None] else values


def classes() -> dict[str, Any]:
    """Return what is known of each model class."""
    found: dict[str, Any] = {}
    for model_type, config in _configs():
        for name, model in _models(config):
            found[name] = {"type": model_type, "prefix": model.base_model_prefix}
            instance = _build(model, config)
            found[name] |= _of_class(model) if instance is None else _of_instance(instance)
            found[name] = {key: value for key, value in found[name].items() if value}
    return found


def _configs() -> Iterator[tuple[str, type[PretrainedConfig]]]:
    for model_type in CONFIG_MAPPING:
        try:
            yield model_type, CONFIG_MAPPING[model_type]
        except ImportError as error:
            print(f"{model_type}: {error}")


def _models(config: type[PretrainedConfig]) -> Iterator[tuple[str, type[PreTrainedModel]]]:
    path = config.__module__.replace("configuration_", "modeling_")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        print(f"{path}: {error}")
        return
    for name, value in vars(module).items():
        mine = inspect.isclass(value) and issubclass(value, PreTrainedModel)
        if not mine or value.__module__ != path or name.endswith("PreTrainedModel"):
            continue
        if value.config_class is config:
            yield name, value


def _build(model: type[PreTrainedModel], config: type[PretrainedConfig]) -> PreTrainedModel | None:
    for small in (True, False):
        try:
            value = config()
            if small:
                _shrink(value)
            with torch.device("meta"):
                return model(value)
        except Exception as error:  # whatever a default config lacks
            problem = error
    print(f"{model.__name__}: {str(problem).strip().splitlines()[0][:100]}")
    return None


def _shrink(config: PretrainedConfig) -> None:
    for name in LAYERS:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 2:
            setattr(config, name, 2)
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            _shrink(value)


def _of_class(model: type[PreTrainedModel]) -> dict[str, Any]:
    mapping = conversion_mapping._build_checkpoint_conversion_mapping()
    names = (model.__name__, model.config_class.model_type)
    scopes = [[None, name] for name in names if name in mapping][:1]
    return {"scopes": scopes, "tied": [["", "", model._tied_weights_keys or {}]], "partial": True}


def _of_instance(model: PreTrainedModel) -> dict[str, Any]:
    scopes = _scopes(model)
    return {
        "scopes": scopes,
        "parts": list(_parts(model)),
        "keep": sorted(_kept(model)),
        "tied": list(_tied(model)),
    }


def _parts(model: PreTrainedModel) -> Iterator[list[str | None]]:
    """Yield the models within: module, place of its config, model type, class."""
    for name, module in model.named_modules():
        if name and isinstance(module, PreTrainedModel) and module.config is not model.config:
            place, kind = _place(model.config, module.config), module.config.model_type
            yield [name, place, kind, type(module).__name__]


def _scopes(model: PreTrainedModel) -> list[list[str | None]]:
    """Return which conversions apply where, in order, by the names they are kept under."""
    known = conversion_mapping.get_checkpoint_conversion_mapping

    def get(name: str) -> list[WeightTransform] | None:
        value = known(name)
        if value is not None:
            for transform in value:
                origins[id(transform)] = name
            kept.append(value)
        return value

    origins: dict[int, str] = {}
    kept: list[Any] = []  # so that no id is used twice
    conversion_mapping.get_checkpoint_conversion_mapping = get
    try:
        transforms = conversion_mapping.get_model_conversion_mapping(model, add_legacy=False)
    finally:
        conversion_mapping.get_checkpoint_conversion_mapping = known
    scopes: list[list[str | None]] = []
    for transform in transforms:
        scope = [transform.scope_prefix, origins[id(transform)]]
        if not scopes or scopes[-1] != scope:
            scopes.append(scope)
    return scopes


def _kept(model: PreTrainedModel) -> set[str]:
    """Return the names that stay as they are although converting would change them."""
    transforms = conversion_mapping.get_model_conversion_mapping(model)
    converters = [t for t in transforms if isinstance(t, core_model_loading.WeightConverter)]
    renamings = [t for t in transforms if isinstance(t, core_model_loading.WeightRenaming)]
    state = model.state_dict()
    rename = core_model_loading.rename_source_key
    kept = set()
    for name in sorted(state, key=core_model_loading.dot_natural_key):
        new, _ = rename(name, renamings, converters, model.base_model_prefix, state)
        if new not in state:
            kept.add(re.sub(r"(?<=\.)\d+(?=\.)", "*", name))
    return kept


def _tied(model: PreTrainedModel) -> Iterator[list[Any]]:
    """Yield where tied parameters may be: module, the config that decides it, and the names."""
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, PreTrainedModel) and module._tied_weights_keys:
            place = _place(model.config, module.config)
            yield [name, place, module._tied_weights_keys]


def _place(config: PretrainedConfig, wanted: PretrainedConfig, path: str = "") -> str | None:
    if config is wanted:
        return path
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            found = _place(value, wanted, f"{path}.{name}".removeprefix("."))
            if found is not None:
                return found
    return None


def tying() -> dict[str, dict[str, bool]]:
    """Return, by model type, what decides ``tie_word_embeddings`` besides the config's own value.

    ``default``: its value where the config does not give it; ``forced``: it is true whatever the
    config says; ``inner``: it is true as well if the config of the text model says so.
    """
    found = {}
    for model_type, config in _configs():
        value = {
            "default": _tie(config),
            "forced": _tie(config, tie_word_embeddings=False, **_text(config, tie=False)),
            "inner": _is_inner(config),
        }
        found[model_type] = {key: True for key, true in value.items() if true}
    return {model_type: value for model_type, value in found.items() if value}


def _tie(config: type[PretrainedConfig], **fields: object) -> bool:
    try:
        return getattr(config(**fields), "tie_word_embeddings", False) is True
    except Exception:  # whatever a default config lacks
        return False


def _text(config: type[PretrainedConfig], *, tie: bool) -> dict[str, Any]:
    if "text_config" not in getattr(config, "sub_configs", {}):
        return {}
    try:
        text = config().text_config.to_dict()
    except Exception:  # whatever a default config lacks
        return {}
    return {"text_config": {**text, "tie_word_embeddings": tie}}


def _is_inner(config: type[PretrainedConfig]) -> bool:
    text = _text(config, tie=True)
    return bool(text) and _tie(config, tie_word_embeddings=False, **text)


def automatic(names: Mapping[str, str | tuple[str, ...]]) -> dict[str, str]:
    """Return the class that one of the ``Auto`` classes takes for each model type."""
    return {kind: name if isinstance(name, str) else name[0] for kind, name in names.items()}


def main() -> None:
    """Write the data."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    data = {
        "transformers": transformers.__version__,
        "conversions": conversions(),
        "automatic": automatic(modeling_auto.MODEL_MAPPING_NAMES),
        "causal": automatic(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        "tying": tying(),
        "classes": classes(),
    }
    OUT.write_text(json.dumps(data, separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(data['classes'])} classes")


if __name__ == "__main__":
    main()
