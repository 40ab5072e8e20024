"""Loads a base as a live model."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rankloom.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from torch import nn


def load_model(base: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """Load a base with transformers, as the class that its config names, ready to be evaluated.

    Args:
        base: the base's folder; nothing is fetched, and no code in it is run.
        dtype: of all parameters; ``None``: as the checkpoint has them.

    Raises:
        BackendUnavailableError: transformers is not installed, or cannot load this base.
    """
    try:
        import transformers
    except ImportError as error:
        message = "loading a base as a model needs transformers"
        hint = "pip install transformers, or give a model instead of a folder"
        raise BackendUnavailableError(message, hint=hint) from error
    try:
        config = transformers.AutoConfig.from_pretrained(base, local_files_only=True)
        [name, *_] = config.architectures or ["AutoModel"]
        if (kind := getattr(transformers, name, None)) is None:
            message = f"transformers {transformers.__version__} has no class {name}"
            raise BackendUnavailableError(message, hint="give a model instead of a folder")
        with _quiet(transformers.utils.logging):
            model: nn.Module = kind.from_pretrained(
                base, local_files_only=True, dtype=dtype or "auto"
            )
    except (ImportError, OSError, ValueError) as error:
        # The first line says what it is about; what follows speaks of repositories.
        message = f"transformers cannot load {base}: {str(error).partition(chr(10))[0]}"
        raise BackendUnavailableError(message, hint="give a folder that it can load") from error
    return model.eval()


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:  # noqa: ANN401 - a module of transformers
    """Let transformers draw its bar only where somebody sees it."""
    shown = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
