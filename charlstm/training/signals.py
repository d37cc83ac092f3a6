"""A signal becomes a note that a loop acts on when its work is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

Received = list[int]
"""The numbers of the signals that came."""


@contextmanager
def collected(wanted: bool = True) -> Iterator[Received]:
    """Collects SIGINT and SIGTERM, if `wanted`, instead of dying of them; a second one acts at once."""
    received = Received()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
