"""Is this live model the base that the adapters were made for?"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from rankloom.apply.identity import check_identity
from rankloom.apply.live.shards import is_sharded, local
from rankloom.apply.transfer import view_bytes
from rankloom.base.fingerprint import Leaf, fingerprint_of
from rankloom.change.dtypes import ALL_CODES

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from torch import nn

    from rankloom.fingerprint import Fingerprint

_CHUNK = 1 << 20
"""Elements brought to the CPU at a time."""

# A tensor's address and version counter: every write that autograd can see gives another one.
_State = dict[str, tuple[int, int]]

_known: weakref.WeakKeyDictionary[nn.Module, tuple[_State, Fingerprint]] = (
    weakref.WeakKeyDictionary()
)


def check_live_identity(model: nn.Module, expected: Fingerprint | None) -> None:
    """Compare a model's values with the recorded base; warn where that cannot be done.

    The values are hashed on the first call, and again after something wrote to the model.

    Raises:
        IncompatibleError: its values are those of another base.
    """
    found = None if expected is None else _fingerprint(model, expected)
    check_identity(expected, found, f"the {type(model).__name__}")


def _fingerprint(model: nn.Module, expected: Fingerprint) -> Fingerprint | None:
    """Return the identity of a model, or ``None`` if it cannot be compared with ``expected``."""
    if any(map(is_sharded, model.state_dict(keep_vars=True).values())):
        return None  # no process has all values
    leaves = _leaves(model)
    config = _config(model)
    named = next(
        (
            candidate
            for candidate in _namings(model, leaves)
            if fingerprint_of(candidate, config, values=False).struct == expected.struct
        ),
        None,
    )
    if named is None:
        return None
    state = _state(model)
    known = _known.get(model)
    if known is None or state is None or known[0] != state:
        found = fingerprint_of(named, config)
        if state is not None:
            _known[model] = state, found
    else:
        found = known[1]
    # Casting to float16 loses what no level of a fingerprint forgives, so it proves nothing.
    lossy = any(leaf.dtype == "F16" for leaf in leaves)
    return None if lossy and expected.match(found) is None else found


def _leaves(model: nn.Module) -> list[Leaf]:
    state = model.state_dict(keep_vars=True)
    known = {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and not tensor.is_meta and tensor.dtype in ALL_CODES
    }
    return [
        Leaf(
            name,
            ALL_CODES[tensor.dtype],
            tuple(tensor.shape),
            partial(_chunks, tensor.detach()),
            tensor.nbytes,
        )
        for name, tensor in known.items()
    ]


def _chunks(tensor: torch.Tensor) -> Iterator[memoryview]:
    flat = tensor.reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        yield view_bytes(flat[start : start + _CHUNK].cpu())


def _namings(model: nn.Module, leaves: list[Leaf]) -> Iterator[list[Leaf]]:
    """Yield the tensors as named here, then without and with the prefix of the backbone."""
    yield leaves
    prefix = getattr(model, "base_model_prefix", "")
    if prefix:
        yield [replace(leaf, name=leaf.name.removeprefix(f"{prefix}.")) for leaf in leaves]
        yield [replace(leaf, name=f"{prefix}.{leaf.name}") for leaf in leaves]


def _config(model: nn.Module) -> dict[str, Any]:
    to_dict = getattr(getattr(model, "config", None), "to_dict", dict)
    config: dict[str, Any] = to_dict()
    return config


def _state(model: nn.Module) -> _State | None:
    try:
        return {
            name: (local(tensor).data_ptr(), tensor._version)
            for name, tensor in model.state_dict(keep_vars=True).items()
        }
    except RuntimeError:  # tensors made in inference mode have no version
        return None


@contextmanager
def renew(model: nn.Module, names: Container[str]) -> Iterator[None]:
    """Keep a model's identity known while the block writes back what ``names`` had before."""
    known = _known.get(model)
    before = _state(model)
    yield
    after = _state(model)
    if known is None or before is None or after is None:
        return
    if all(before.get(name) == state for name, state in known[0].items() if name not in names):
        _known[model] = after, known[1]
