"""What rankloom knows about one ``peft_type`` besides LORA: its reader, and each config field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rankloom.adapter.kinds.reading import Reader

Parse = Callable[[str, Any], Any]
"""Checks the JSON value of the field of this name and returns it, or raises ``FieldError``."""


Export = Literal["yes", "with weight 1", "no"]
"""Whether a composition of a kind's changes can be saved as a PEFT folder.

Products of factors can, values that replace the base's only as they are, and the rest cannot.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One field that changes what the saved tensors mean.

    Attributes:
        parse: checks its value.
        default: PEFT's value where the file does not have the field.
    """

    parse: Parse
    default: Any = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One ``peft_type``. Every field of PEFT's config class is in one of the tables, or common.

    Common to all types, and never named here: what ``fields.COMMON_READ``, ``COMMON_IGNORED``
    and ``COMMON_OPTIONS`` hold.

    Attributes:
        peft_type: its name in the config.
        read: turns tensors into targets.
        fields: what changes the meaning of the tensors; the values land in
            ``AdapterConfig.options``, also those at their defaults.
        training: what cannot change it, and why not.
        fixed: what must stand at this default, since rankloom does not do anything else.
        shared: full keys of tensors that belong to no module (``base_model.vera_A``), or what
            such keys begin with, ending in a dot; the reader gets them under these keys.
        export: whether its changes have a form in a PEFT folder.
        tells_conv1d: PEFT corrects ``fan_in_fan_out`` in the config by the module that it finds, or
            puts the kind on no ``Conv1D``.
    """

    peft_type: str
    read: Reader
    fields: Mapping[str, Field] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    export: Export = "no"
    tells_conv1d: bool = True

    def shares(self, key: str) -> bool:
        """Tell whether a tensor of this full key belongs to no module."""
        begins = tuple(name for name in self.shared if name.endswith("."))
        return key in self.shared or key.startswith(begins)

    @property
    def known(self) -> frozenset[str]:
        """Names of all fields of its own."""
        return frozenset(self.fields) | self.training.keys() | self.fixed.keys()
