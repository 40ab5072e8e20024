"""Loads a base as a live model."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rankloom.errors import BackendUnavailableError, RankloomError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import torch
    from torch import nn

_NAMED = 3


def load_model(base: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """Load a base with transformers, as the class that its config names, ready to be evaluated.

    Args:
        base: the base's folder; nothing is fetched, and no code in it is run.
        dtype: of all parameters; ``None``: as the checkpoint has them.

    Raises:
        BackendUnavailableError: transformers is not installed, or cannot load this base, or would
            set parameters at random that the checkpoint lacks.
    """
    try:
        import transformers
    except ImportError as error:
        message = "loading a base as a model needs transformers"
        hint = "pip install transformers, or give a model instead of a folder"
        raise BackendUnavailableError(message, hint=hint) from error
    # Without the last, transformers asks on the terminal whether to run code in the folder.
    given = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(base, **given)
        _check_at_home(base, config)
        kind = _kind(transformers, config)
        with _quiet(transformers.utils.logging):
            model, info = kind.from_pretrained(
                base, dtype=dtype or "auto", output_loading_info=True, **given
            )
    except RankloomError:
        raise
    except Exception as error:  # damaged files end with whatever transformers trips over first
        # The first line says what it is about; what follows speaks of repositories.
        said = str(error).partition("\n")[0] or type(error).__name__
        message = f"transformers cannot load {base}: {said}"
        raise BackendUnavailableError(message, hint="give a folder that it can load") from error
    _check_complete(base, type(model).__name__, info["missing_keys"])
    loaded: nn.Module = model.eval()
    return loaded


def _check_at_home(base: Path, config: Any) -> None:  # noqa: ANN401 - a class of transformers
    """Refuse kernels of a hub, which transformers would fetch and run."""
    subconfigs = (getattr(config, name) for name in config.sub_configs)
    for part in (config, *subconfigs):
        for name in ("_attn_implementation", "_experts_implementation"):
            wanted = getattr(part, name, None)
            if wanted is not None and "/" in wanted:
                message = f"the config of {base} asks for code from elsewhere: {name[1:]} {wanted}"
                hint = "take that field out of its config.json, or give a model instead"
                raise BackendUnavailableError(message, hint=hint)


def _kind(transformers: Any, config: Any) -> Any:  # noqa: ANN401 - a module and classes of it
    """Return the class that a config names."""
    names = config.architectures
    if not names:
        return transformers.AutoModel
    name = names if isinstance(names, str) else names[0]
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        message = f"transformers {transformers.__version__} has no model {name}"
        raise BackendUnavailableError(message, hint="give a model instead of a folder")
    return kind


def _check_complete(base: Path, kind: str, missing: Collection[str]) -> None:
    """Refuse what transformers fills with random numbers; tied parameters are not among it."""
    if not missing:
        return
    named = ", ".join(sorted(missing)[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
    message = (
        f"{base} lacks {len(missing)} of the parameters of {kind}, which would be random: {named}"
    )
    hint = "give a model instead, or a folder whose config names the class that was saved"
    raise BackendUnavailableError(message, hint=hint)


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
