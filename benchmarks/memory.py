"""Memory of this process, as Linux counts it."""

from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident() -> int | None:
    """Bytes in memory now; None where there is no /proc."""
    return _field("VmRSS")


def peak() -> int | None:
    """The most bytes that were in memory at once since the process began; None where there is no /proc."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Let the peak begin again at what is in memory now, where Linux allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> int | None:
    if not _STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
