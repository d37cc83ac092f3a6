"""Where something was measured: processor, cores and versions, and nothing that tells whose machine it is."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from charlstm.support.process import cores

_PACKAGES = ("charlstm", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "keras", "dm-haiku")
_CPUINFO = Path("/proc/cpuinfo")


def describe() -> dict[str, Any]:
    """JSON values: the processor's name, cores, system, and the version of each library that is installed."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    """The model's name, and the widest vectors that it has, since virtual machines hide the exact model."""
    if not _CPUINFO.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in _CPUINFO.read_text().splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = fields.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return " ".join(filter(None, (fields.get("model name", platform.machine()), vectors)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
