"""Tiny models of all architectures, each built and written once for all tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from tiny_models import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    Saved = tuple[PreTrainedModel, Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Saved]:
    """Return what gives a model and a folder of it, under its old names or those in memory.

    Neither may be changed. The one with the names in memory is sharded.
    """

    @cache
    def model_of(kind: str) -> PreTrainedModel:
        return build(kind)

    @cache
    def saved(kind: str, original: bool) -> Saved:
        model, folder = model_of(kind), tmp_path_factory.mktemp("model")
        size = "1GB" if original else "4KB"
        model.save_pretrained(folder, save_original_format=original, max_shard_size=size)
        return model, folder

    return saved
