"""FourierFT (arXiv 2405.03003) and WaveFT (arXiv 2505.12532): a few coefficients of a spectrum.

One key ``<module>.fourierft_spectrum`` or ``waveft_spectrum`` (n,); their places in the spectrum
are drawn by a seed, from the layer's sizes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankloom.adapter import config_checks as checks
from rankloom.adapter.change import Computed, Target
from rankloom.adapter.field_values import by_pattern, number, whole
from rankloom.adapter.kinds.kind import Field, Kind
from rankloom.adapter.kinds.layout import read_layouts
from rankloom.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rankloom.adapter.config import AdapterConfig
    from rankloom.adapter.kinds.layout import Parts
    from rankloom.adapter.kinds.reading import Reading
    from rankloom.tensorfile.header import TensorEntry


def _fourierft(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    return _spectrum("fourierft", config, tensors, {})


def _waveft(config: AdapterConfig, tensors: Mapping[str, TensorEntry]) -> Reading:
    return _spectrum("waveft", config, tensors, {"transform": config.options["use_idwt"]})


def _spectrum(
    name: str,
    config: AdapterConfig,
    tensors: Mapping[str, TensorEntry],
    more: Mapping[str, bool],
) -> Reading:
    count = config.by_module("n_frequency", "n_frequency_pattern")
    options = {
        "seed": config.options["random_loc_seed"],
        "scale": config.options["scaling"],
        **more,
    }
    spread = config.options.get("proportional_parameters", False)

    def build(parts: Parts) -> Iterator[Target]:
        spectrum = {"spectrum": parts.tensors[f"{name}_spectrum"]}
        yield Target(parts.module, name, Computed(name, spectrum, options))

    reading = read_layouts(
        tensors,
        [{f"{name}_spectrum": "n"}],
        build,
        known=lambda module: {} if spread else {"n": count(module)},
    )
    return _check_spread(config, reading) if spread else reading


def _check_spread(config: AdapterConfig, reading: Reading) -> Reading:
    """Demand as many coefficients in all as ``n_frequency`` gives to that many modules.

    PEFT spreads them by the sizes of the modules, which only the base tells; it rounds each share,
    and a share of nothing to one.
    """
    each, count = config.options["n_frequency"], len(reading.targets)
    changes = (target.change for target in reading.targets)
    found = sum(c.tensors["spectrum"].shape[0] for c in changes if isinstance(c, Computed))
    if abs(found - each * count) <= count:
        return reading
    message = f"{found} coefficients in {count} modules, but n_frequency is {each} for each"
    fix = "correct n_frequency in adapter_config.json, or save the adapter again"
    wrong = Finding("TEN003", message, where="n_frequency", fix=fix)
    return replace(reading, findings=(*reading.findings, wrong))


_FIELDS = {
    "random_loc_seed": Field(whole(), 777),
    "n_frequency_pattern": Field(by_pattern(whole(1))),
}
FOURIERFT = Kind(
    "FOURIERFT",
    _fourierft,
    fields={
        **_FIELDS,
        "n_frequency": Field(whole(1), 1000),
        "scaling": Field(number, 150.0),
    },
)
WAVEFT = Kind(
    "WAVEFT",
    _waveft,
    fields={
        **_FIELDS,
        "n_frequency": Field(whole(1), 2592),
        "scaling": Field(number, 25.0),
        "use_idwt": Field(checks.flag, default=True),
        "proportional_parameters": Field(checks.flag, default=False),
    },
    fixed={"wavelet_family": "db1"},
)
