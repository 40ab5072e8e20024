"""Reads and writes a 4-bit weight as GPTQ, AWQ and compressed-tensors keep it in a checkpoint.

They pack as these do:

* GPTQ: ``QuantLinear.pack`` of AutoGPTQ's ``qlinear_cuda_old.py``; zeros are stored less one, but
  as they are in ``gptq_v2`` (AutoGPTQ pull request 640).
* AWQ: ``WQLinear_GEMM.from_linear`` of AutoAWQ's ``awq/modules/linear/gemm.py``.
* compressed-tensors 0.20: ``pack_to_int32`` of ``compressors/pack_quantized/helpers.py``.

What readers of one format take for different numbers is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from rankloom_kernels.int4 import IN_ORDER, INTERLEAVED, PER_WORD, Int4, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIDDLE: Final = 8
"""The code of 0 in symmetric formats."""


class _Scheme(NamedTuple):
    """What a config says of its weights.

    Attributes:
        names: of codes, scales, zeros and groups.
        group_size: columns that share a scale; -1: all.
        symmetric: whether the code of 0 is always 8.
        reorders: whether columns of a group may lie apart.
        less: what zeros are stored less.
        by_column: whether a word holds elements of a column, interleaved.
    """

    names: tuple[str, str, str, str]
    group_size: int
    symmetric: bool
    reorders: bool
    less: int = 0
    by_column: bool = False

    @property
    def is_turned(self) -> bool:
        """Whether tensors are (in, out)."""
        return self.names == _GPTQ

    @property
    def has_zeros(self) -> bool:
        """Whether zeros are stored."""
        return self.is_turned or not self.symmetric

    @property
    def zeros(self) -> tuple[int, int]:
        """The lowest and highest code of 0."""
        return (_MIDDLE, _MIDDLE) if self.symmetric else (self.less, 15)


_GPTQ = ("qweight", "scales", "qzeros", "g_idx")
_PACKED = ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx")
_SHAPE = "weight_shape"


def read_int4(config: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> Int4:
    """Return the weight of one module; its codes and scales lie in the tensors that are given.

    Args:
        config: ``quantization_config`` of the model's config.json.
        tensors: of the module, by their names in it: ``qweight``, ``qzeros``, ``scales`` and
            ``g_idx`` (GPTQ), the first three (AWQ), or ``weight_packed``, ``weight_scale``,
            ``weight_shape``, ``weight_zero_point`` and ``weight_g_idx`` (compressed-tensors).

    Raises:
        ValueError: the config is of another format, or the tensors are not of this one; says what.
    """
    scheme = _scheme(config)
    _check_names(scheme, tensors)
    codes, scale, zero, group = (tensors.get(name) for name in scheme.names)
    assert codes is not None  # noqa: S101 - for mypy; checked above
    assert scale is not None  # noqa: S101
    codes, scale = (codes.T, scale.T) if scheme.is_turned else (codes, scale)
    out, width = scale.shape[0], codes.shape[1] * (1 if scheme.by_column else PER_WORD)
    if _SHAPE in tensors:
        rows, width = tensors[_SHAPE].tolist()
        _refuse_if(rows != out, f"{_SHAPE} says {rows} rows, and there are {out} of scales")
    groups = _groups(scheme, group, width, scale)
    return Int4(codes, scale, _zeros(scheme, zero, scale), groups, scheme.zeros)


def stored_int4(config: Mapping[str, object], weight: Int4) -> dict[str, torch.Tensor]:
    """Return codes, scales and zeros as a checkpoint keeps them; groups and shape do not change.

    Args:
        config: ``quantization_config`` of the model's config.json.
        weight: one that was read with it, and changed since.

    Raises:
        ValueError: the config is of another format.
    """
    scheme = _scheme(config)
    codes, scale, zero, _ = scheme.names
    turned = scheme.is_turned
    found = {
        codes: weight.codes.T if turned else weight.codes,
        scale: weight.scale.T if turned else weight.scale,
    }
    if scheme.has_zeros:
        words = pack(weight.zero.T - scheme.less, _order(scheme))
        found[zero] = words if turned else words.T.contiguous()
    return found


def _order(scheme: _Scheme) -> tuple[int, ...]:
    return INTERLEAVED if scheme.by_column else IN_ORDER


def _zeros(scheme: _Scheme, stored: torch.Tensor | None, scale: torch.Tensor) -> torch.Tensor:
    """Return the code of 0 of each group, (out, groups) uint8."""
    if not scheme.has_zeros or stored is None:
        return torch.full(scale.shape, _MIDDLE, dtype=torch.uint8, device=scale.device)
    words = stored if scheme.is_turned else stored.T
    size = (scale.shape[1], -(-scale.shape[0] // PER_WORD))
    _refuse_if(words.shape != size, f"{scheme.names[2]} is {tuple(stored.shape)}, not of the codes")
    zero = unpack(words, _order(scheme), scale.shape[0]).T + scheme.less
    first, last = scheme.zeros
    outside = zero[(zero < first) | (zero > last)]
    _refuse_if(
        bool(outside.numel()),
        f"{scheme.names[2]} has {outside[:1].tolist()}, which is not from {first} to {last}, and "
        "is read in two ways; stored as they are, zeros are of checkpoint_format gptq_v2",
    )
    return zero.to(torch.uint8)


def _groups(
    scheme: _Scheme, stored: torch.Tensor | None, width: int, scale: torch.Tensor
) -> torch.Tensor:
    """Return the number of each column's group, (in,) int32."""
    size = width if scheme.group_size == -1 else scheme.group_size
    number = scale.shape[1]
    in_order = (torch.arange(width, device=scale.device) // max(1, size)).to(torch.int32)
    name = scheme.names[3]
    if stored is None:
        _refuse_if(scheme.reorders, f"{name} is needed: the config says that columns are reordered")
        found = in_order
    else:
        found = stored.to(torch.int32)
        same = torch.equal(found, in_order)
        _refuse_if(
            not (scheme.reorders or same),
            f"{name} reorders columns, and the config says that it does not",
        )
    if width:
        low, high = int(found.min()), int(found.max())
        _refuse_if(low < 0 or high >= number, f"columns are of {high + 1} groups, scales {number}")
    return found


def _check_names(scheme: _Scheme, tensors: Mapping[str, torch.Tensor]) -> None:
    codes, scale, zero, group = scheme.names
    needed = {codes, scale} | ({zero} if scheme.has_zeros else set())
    needed |= set() if scheme.is_turned else {_SHAPE}
    missing, unknown = needed - tensors.keys(), tensors.keys() - needed - {group, "bias"}
    message = f"{', '.join(sorted(missing)) or 'nothing'} is missing of a module in this format"
    _refuse_if(
        bool(missing or unknown), f"{message}, {', '.join(sorted(unknown)) or 'nothing'} new"
    )


def _scheme(config: Mapping[str, object]) -> _Scheme:
    """Read a config.

    Raises:
        ValueError: it is of no format that is known.
    """
    method = config.get("quant_method")
    readers = {"gptq": _gptq, "awq": _awq, "compressed-tensors": _compressed}
    if method not in readers:
        message = f"quant_method is {method!r}; known: {', '.join(readers)}"
        raise ValueError(message)
    return readers[str(method)](config)


def _gptq(config: Mapping[str, object]) -> _Scheme:
    form = config.get("checkpoint_format") or config.get("format") or "gptq"
    _needs(config, "bits", 4)
    _needs(config, "pack_dtype", "int32", default="int32")
    _needs(config, "is_marlin_format", False, default=False)
    _refuse_if(form not in {"gptq", "gptq_v2"}, f"checkpoint_format is {form!r}")
    _refuse_if(bool(config.get("dynamic")), "dynamic gives modules formats of their own")
    return _Scheme(
        _GPTQ,
        _size(config.get("group_size", 128)),
        config.get("sym", True) is True,
        config.get("desc_act", False) is True,
        less=int(form == "gptq"),
    )


def _awq(config: Mapping[str, object]) -> _Scheme:
    form = str(config.get("version") or config.get("checkpoint_format") or "gemm").lower()
    _needs(config, "bits", 4, default=config.get("w_bit"))
    _needs(config, "zero_point", True, default=True)
    _refuse_if(form != "gemm", f"version is {form!r}, which packs otherwise than 'gemm'")
    size = _size(config.get("group_size", config.get("q_group_size", 128)))
    return _Scheme(_GPTQ, size, symmetric=False, reorders=False, by_column=True)


def _compressed(config: Mapping[str, object]) -> _Scheme:
    _needs(config, "format", "pack-quantized")
    for key in ("transform_config", "sparsity_config"):
        _refuse_if(bool(config.get(key)), f"{key} changes what codes stand for")
    groups = config.get("config_groups")
    found = list(groups.values()) if isinstance(groups, dict) else []
    forms = [(each.get("weights"), each.get("format")) for each in found if isinstance(each, dict)]
    (weights, form), *others = forms or [(None, None)]
    one = len(forms) == len(found) and all(other == (weights, form) for other in others)
    if not isinstance(weights, dict) or not one or form not in {None, "pack-quantized"}:
        message = "config_groups has not the same pack-quantized weights in each group"
        raise ValueError(message)
    return _of_arguments(weights)


def _of_arguments(weights: Mapping[str, object]) -> _Scheme:
    """Read ``QuantizationArgs`` of compressed-tensors."""
    _needs(weights, "num_bits", 4)
    _needs(weights, "type", "int", default="int")
    size, strategy = weights.get("group_size"), weights.get("strategy")
    strategy = strategy or ("channel" if size in {None, -1} else "group")
    _refuse_if(strategy not in {"channel", "group"}, f"strategy is {strategy!r}")
    return _Scheme(
        _PACKED,
        -1 if strategy == "channel" else _size(size),
        weights.get("symmetric", True) is True,
        weights.get("actorder") in {"group", "dynamic", True},
    )


def _needs(
    config: Mapping[str, object], key: str, value: object, *, default: object = None
) -> None:
    found = config.get(key, default)
    _refuse_if(found != value, f"{key} is {found!r}, not {value!r}")


def _size(value: object) -> int:
    right = isinstance(value, int) and (value == -1 or value > 0)
    _refuse_if(not right, f"group_size is {value!r}")
    return int(str(value))


def _refuse_if(condition: bool, message: str) -> None:
    if condition:
        raise ValueError(message)
