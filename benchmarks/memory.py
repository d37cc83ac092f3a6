"""Memory of a process, as Linux counts it."""

from contextlib import suppress
from pathlib import Path


def resident(pid: int | None = None) -> int | None:
    """Bytes in memory now, of this process or another; None where there is no /proc."""
    return _field("VmRSS", pid)


def peak() -> int | None:
    """The most bytes that were in memory at once since the process began; None where there is no /proc."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Let the peak begin again at what is in memory now, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str, pid: int | None = None) -> int | None:
    status = Path("/proc", "self" if pid is None else str(pid), "status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    found = lines.get(name)  # a process that has ended has none
    return int(found.split()[0]) * 1024 if found else None
