"""A signal becomes a note that a loop acts on when its work is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Received(list[int]):
    """The numbers of the signals that came."""

    def note(self, number: int, _frame: object) -> None:
        """Handles a signal; a second one acts at once."""
        self.append(number)
        if len(self) > 1:
            raise KeyboardInterrupt(number)


@contextmanager
def collected() -> Iterator[Received]:
    """Collects SIGINT and SIGTERM instead of dying of them."""
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, received.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
