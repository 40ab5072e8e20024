"""One factor of a module on its way from another tool's file into a PEFT folder."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from rankloom.adapter.foreign import scale
from rankloom.adapter.foreign.output import Tensor, copy
from rankloom.adapter.foreign.refusals import broken
from rankloom.tensorfile.values import load_bits, load_numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from rankloom.tensorfile.header import TensorEntry

    Doubles = npt.NDArray[np.float64]

_DTYPES = {"F64": "<f8", "F32": "<f4"}


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor, and what is to be done with it.

    Attributes:
        module: its module, for messages.
        entry: its values in the source.
        shape: as it will be: perhaps longer than it is, by zeros.
        times: number that it is multiplied by.
        mid: M (rank, rank, *kernel), the tensor between A and B of a convolution in LyCORIS; then
            the result is Σⱼ M[i, j, …]·A[j, in].
    """

    module: str
    entry: TensorEntry
    shape: tuple[int, ...]
    times: Fraction = Fraction(1)
    mid: TensorEntry | None = None

    def kept(self) -> Tensor:
        """Return it with all its bits, zeros added."""
        if self.shape == self.entry.shape:
            return copy(self.entry)

        def chunks() -> Iterator[bytes]:
            yield _filled(load_bits(self.entry), self.shape).tobytes()

        return Tensor(self.entry.dtype, self.shape, chunks)

    def computed(self, code: str, lost: Callable[[str], object]) -> Tensor:
        """Return it in a dtype, each value rounded once.

        Args:
            code: ``"F32"`` or ``"F64"``.
            lost: called with the module when a value loses a bit, when the values are written.
        """

        def chunks() -> Iterator[bytes]:
            wide = self._values()
            with np.errstate(over="ignore"):  # found below
                rounded = wide.astype(_DTYPES[code])
            if not np.isfinite(rounded).all():
                raise broken(self.module, f"has values that {code} cannot hold", "NUM004")
            if not self._is_exact(wide, rounded):
                lost(self.module)
            yield _filled(rounded, self.shape).tobytes()

        return Tensor(code, self.shape, chunks)

    def _is_exact(self, wide: Doubles, rounded: npt.NDArray[Any]) -> bool:
        """Tell whether neither the product in float64 nor the rounding after it lost a bit."""
        bits = scale.BITS[self.entry.dtype] + scale.bits(self.times)
        is_short = self.mid is None and bits <= scale.BITS["F64"]
        return is_short and bool((rounded == wide).all())

    def _values(self) -> Doubles:
        values = load_numpy(self.entry).astype(np.float64)
        if self.mid is not None:
            middle = load_numpy(self.mid).astype(np.float64)
            values = np.einsum("ij...,jc->ic...", middle, values.reshape(values.shape[:2]))
        return values * float(self.times)


def _filled(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Put zeros behind an array along each axis, up to a shape."""
    return np.pad(values, [(0, new - old) for old, new in zip(values.shape, shape, strict=True)])
