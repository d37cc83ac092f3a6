"""Memory of a process, as Linux counts it, or the library that holds a GPU's."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any


def resident(pid: int | None = None) -> int | None:
    """Bytes in memory now, of this process or another; None where there is no /proc."""
    return _field("VmRSS", pid)


def peak() -> int | None:
    """The most bytes that were in memory at once since the process began; None where there is no /proc.

    Of a process that computes on a GPU, the most that its arrays had there.
    """
    return _gpu_peak() or _field("VmHWM")


def forget_peak() -> None:
    """Let the peak begin again at what is in memory now, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _gpu_peak() -> int | None:
    torch: Any = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    jax: Any = sys.modules.get("jax")
    statistics = jax and jax.local_devices()[0].memory_stats()  # a CPU keeps none
    return statistics and statistics["peak_bytes_in_use"]


def _field(name: str, pid: int | None = None) -> int | None:
    status = Path("/proc", "self" if pid is None else str(pid), "status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    found = lines.get(name)  # a process that has ended has none
    return int(found.split()[0]) * 1024 if found else None
