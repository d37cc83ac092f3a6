"""The environment of a process, by either reading of a row."""

import os
from typing import Literal

from charlstm.support.process import MOST_CPU_DEVICES, cores

Settings = Literal["shipped", "equal"]
SETTINGS: dict[Settings, str] = {"shipped": "as shipped", "equal": "equal settings"}
"""By each library's own guide; or with charlstm's malloc for all, and its devices and vectors for all JAX libraries."""
_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**63 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}
"""What `charlstm.support.process` sets by `mallopt`."""
_VECTORS, _DEVICES = "--xla_cpu_prefer_vector_width", "--xla_force_host_platform_device_count"


def environment(settings: Settings, *, jax: bool) -> dict[str, str]:
    """This process's own, but for what it says of malloc, vectors and devices, which the settings decide alone.

    Args:
        settings: the reading.
        jax: whether the process is one of a JAX library.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    kept.pop("JAX_NUM_CPU_DEVICES", None)
    flags = [each for each in kept.pop("XLA_FLAGS", "").split() if not each.startswith((_VECTORS, _DEVICES))]
    if settings == "equal":
        kept |= _MALLOC
        if jax:
            flags.append(f"{_VECTORS}=512")
            kept["JAX_NUM_CPU_DEVICES"] = str(min(cores(), MOST_CPU_DEVICES))
    return kept | ({"XLA_FLAGS": " ".join(flags)} if flags else {})
