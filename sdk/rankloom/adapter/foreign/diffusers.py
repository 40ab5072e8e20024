"""PEFT's configs in the metadata of a file that diffusers wrote, from which its scales come.

``lora_adapter_metadata`` is JSON with keys such as ``transformer.lora_alpha``; files of older
versions have none, and there alpha is the rank.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rankloom.adapter import config_reader
from rankloom.adapter.foreign.refusals import broken, refusal
from rankloom.tensorfile import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.adapter.config import AdapterConfig

METADATA = "lora_adapter_metadata"
_UNDERSTOOD = {"use_dora"}  # the tensors tell it too


def configs(metadata: Mapping[str, str]) -> dict[str, AdapterConfig]:
    """Return the config of each model of a pipeline, by the model's name.

    Raises:
        AdapterError: the metadata are broken.
        UnsupportedAdapterError: they ask for something that rankloom cannot do.
    """
    if METADATA not in metadata:
        return {}
    try:
        value = strict_json.loads(metadata[METADATA])
    except ValueError as error:
        raise broken(METADATA, f"is no JSON: {error}", "CFG001") from None
    if not isinstance(value, dict):
        raise broken(METADATA, "is not a JSON object", "CFG001")
    models: dict[str, dict[str, object]] = {}
    for key, entry in value.items():
        model, _, field = key.partition(".")
        models.setdefault(model, {"peft_type": "LORA"})[field] = entry
    return {model: _config(model, fields) for model, fields in models.items()}


def _config(model: str, fields: Mapping[str, object]) -> AdapterConfig:
    config, findings = config_reader.parse(json.dumps(fields).encode())
    config_reader.raise_for(findings, f"{METADATA} of {model}")
    assert config is not None  # noqa: S101 - else there was an error
    if strange := config.options.keys() - _UNDERSTOOD:
        hint = "convert it with the version of diffusers that made it"
        raise refusal(f"{model}.{min(strange)}", "in the metadata changes the result", hint)
    return config
