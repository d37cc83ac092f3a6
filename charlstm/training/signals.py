"""A signal becomes a note that a loop acts on when its work is whole."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from charlstm.support.errors import Interrupted

_NAMES = ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
_TOGETHER = 0.5
"""Seconds in which several count as one: a terminal that closes sends SIGHUP, and its shell once more, and what runs a
command may hand on the SIGINT that the terminal has sent already."""
_SHOW_CURSOR = b"\x1b[?25h\n"


class Received(list[int]):
    """The numbers of the signals that came."""

    def check(self, step: int = 0, of: str = "") -> None:
        """Raises Interrupted if one came; to be called where all is saved."""
        if self:
            raise Interrupted(self[0], step, of)


@contextmanager
def collected(wanted: bool = True) -> Iterator[Received]:
    """Collects the signals that ask a process to end, if `wanted`, instead of dying of them.

    Those that the process was started to ignore stay ignored, as under nohup. SIGINT or SIGTERM after another one ends
    the process at once.
    """
    received = Received()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]
    minded = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    # Python calls a handler when the main thread is back from XLA, which may take minutes to compile; the number of
    # the signal can be read here at once.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(reader, minded), daemon=True).start()
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in minded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        writer.close()  # which ends the thread


def _end_at_second(reader: socket.socket, minded: list[int]) -> None:
    """Ends the process when SIGINT or SIGTERM is not the first signal.

    No exception does: raised in a destructor or a callback of the garbage collector it is lost, and inside JAX it
    leaves half of what was going on.
    """
    first = None
    with reader:
        while byte := reader.recv(1):
            number, now = byte[0], time.monotonic()
            if number in minded:
                first = first or now
            if first and now - first > _TOGETHER and number in (signal.SIGINT, signal.SIGTERM):
                with suppress(OSError):
                    if os.isatty(2):
                        os.write(2, _SHOW_CURSOR)  # which a bar has hidden
                os._exit(128 + number)
