"""What every benchmark writes: medians and spread with the machine and the versions beside them."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Wall seconds of repeated runs."""

    median: float
    fastest: float
    slowest: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Summarise the seconds of all runs."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def machine() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory, system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def write(name: str, results: dict[str, Any], packages: Sequence[str] = ()) -> Path:
    """Write ``results/<name>.json``; timings may be given as :class:`Timing`."""
    content = {
        "machine": machine(),
        "load of the last 1, 5 and 15 minutes": [round(load, 1) for load in os.getloadavg()],
        "versions": {package: version(package) for package in packages},
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2, default=_plain) + "\n")
    return path


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, Timing):
        return {key: round(figure, 4) for key, figure in asdict(value).items()}
    message = f"{type(value).__name__} is no result"
    raise TypeError(message)
